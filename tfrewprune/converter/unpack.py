# SPDX-License-Identifier: Apache-2.0
"""The way back: packed layers become CONV_2D and FULLY_CONNECTED again."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter import options
from tfrewprune.converter.detect import Layer, find_layers
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model
from tfrewprune.payload.format import PayloadError
from tfrewprune.payload.reading import unpack_matrix

_BUILTIN = schema.BuiltinOperator


def unpack_model(model: Model) -> None:
    """Changes ``model`` so that no packed layer is left.

    Raises:
        ConversionError: If a payload, or the options of a packed layer, are damaged.
    """
    layers = [layer for layer in find_layers(model) if layer.packed]
    for layer in layers:
        if layer.reason is not None:
            raise ConversionError(f"layer {layer.name!r}: {layer.reason}")
    dense: dict[int, np.ndarray] = {}
    by_tensor: dict[tuple[int, int], list[Layer]] = defaultdict(list)
    for layer in layers:
        tensor = model.subgraphs[layer.subgraph].tensors[layer.weight]
        if tensor.buffer not in dense:
            dense[tensor.buffer] = read_payload(model, layer)
        by_tensor[layer.subgraph, layer.weight].append(layer)
    for (subgraph, tensor), users in by_tensor.items():
        _restore(model, model.subgraphs[subgraph], tensor, users, dense)
    for layer in reversed(layers):
        if layer.residual is not None:
            _restore_sum(model, layer)
    for buffer, weights in dense.items():
        model.tree.buffers[buffer] = schema.BufferT(data=weights.reshape(-1).view("u1"))
        model.alignment.pop(buffer, None)
    _drop_operator_codes(model)


def read_payload(model: Model, layer: Layer) -> np.ndarray:
    """Returns the weight matrix of a packed layer, float32 ``[O, K]``.

    Raises:
        ConversionError: If its payload is damaged.
    """
    data = model.data(model.subgraphs[layer.subgraph].tensors[layer.weight])
    if data is None:
        raise ConversionError(f"layer {layer.name!r}: its payload is not constant")
    try:
        return unpack_matrix(data)
    except PayloadError as error:
        raise ConversionError(f"layer {layer.name!r}: {error}") from error


def dense_shape(layer: Layer, weights: np.ndarray) -> tuple[int, ...]:
    """Returns the shape in which TFLite stores the weights of a packed layer.

    Raises:
        ConversionError: If payload and options disagree.
    """
    rows, columns = weights.shape
    if isinstance(layer.options, options.FullyConnectedOptions):
        return rows, columns
    conv = layer.options
    taps = (conv.kernel_height, conv.kernel_width, conv.input_channels)
    if np.prod(taps, dtype=np.int64) != columns:
        raise ConversionError(
            f"layer {layer.name!r}: a kernel of {taps} needs "
            f"{np.prod(taps, dtype=np.int64)} columns, the payload has {columns}"
        )
    return rows, *taps


def _restore(
    model: Model,
    subgraph: schema.SubGraphT,
    tensor: int,
    users: list[Layer],
    dense: dict[int, np.ndarray],
) -> None:
    stored = subgraph.tensors[tensor]
    shapes = {dense_shape(user, dense[stored.buffer]) for user in users}
    if len(shapes) > 1:
        raise ConversionError(
            f"layer {users[0].name!r}: its payload is used with shapes {shapes}"
        )
    readers = [op for op in subgraph.operators if tensor in list(op.inputs)]
    if len(readers) > len(users):
        raise ConversionError(
            f"layer {users[0].name!r}: its payload is read by another operator too"
        )
    stored.shape = np.array(shapes.pop(), np.int32)
    stored.type = schema.TensorType.FLOAT32
    for user in users:
        operator = subgraph.operators[user.operator]
        packed = user.options
        operator.customOptions = None
        if isinstance(packed, options.ConvOptions):
            operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
            operator.builtinOptions = schema.Conv2DOptionsT(
                padding=packed.padding,
                strideW=packed.stride_width,
                strideH=packed.stride_height,
                fusedActivationFunction=packed.activation,
                dilationWFactor=packed.dilation_width,
                dilationHFactor=packed.dilation_height,
            )
            code, version = _BUILTIN.CONV_2D, 1
        else:
            operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            operator.builtinOptions = schema.FullyConnectedOptionsT(
                fusedActivationFunction=packed.activation,
                keepNumDims=bool(packed.keep_num_dims),
            )
            no_bias = len(operator.inputs) < 3 or operator.inputs[2] < 0
            code = _BUILTIN.FULLY_CONNECTED
            version = 6 if no_bias else 5 if packed.keep_num_dims else 1
        operator.opcodeIndex = _operator_code(model, code, version)


def _restore_sum(model: Model, layer: Layer) -> None:
    """Puts the ADD that a convolution took over behind it again."""
    operators = model.subgraphs[layer.subgraph].operators
    conv = operators[layer.operator]
    add = schema.OperatorT(
        opcodeIndex=_operator_code(model, _BUILTIN.ADD, 1),
        inputs=np.array([conv.intermediates[0], layer.residual], np.int32),
        outputs=conv.outputs,
        builtinOptionsType=schema.BuiltinOptions.AddOptions,
        builtinOptions=schema.AddOptionsT(
            fusedActivationFunction=conv.builtinOptions.fusedActivationFunction
        ),
    )
    conv.builtinOptions.fusedActivationFunction = 0
    conv.inputs = np.array([i for i in conv.inputs[:3] if i >= 0], np.int32)
    conv.outputs, conv.intermediates = conv.intermediates, None
    operators.insert(layer.operator + 1, add)


def _operator_code(model: Model, builtin: int, version: int) -> int:
    """Returns the code of a built-in operator, if possible one the model had."""
    codes = model.tree.operatorCodes
    versions = {
        code.version: index
        for index, code in enumerate(codes)
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin
    }
    fitting = [known for known in versions if known >= version]
    if versions:
        return versions[min(fitting, default=max(versions))]
    codes.append(
        schema.OperatorCodeT(
            deprecatedBuiltinCode=builtin, builtinCode=builtin, version=version
        )
    )
    return len(codes) - 1


def _drop_operator_codes(model: Model) -> None:
    """Removes the packed operators' codes, keeping the order of all others."""
    codes = model.tree.operatorCodes
    operators = [op for graph in model.subgraphs for op in graph.operators or ()]
    used = {operator.opcodeIndex for operator in operators}
    ours = {name.encode() for name in options.OPERATORS}
    kept = [
        index
        for index, code in enumerate(codes)
        if index in used or code.customCode not in ours
    ]
    renumbered = {old: new for new, old in enumerate(kept)}
    for operator in operators:
        operator.opcodeIndex = renumbered[operator.opcodeIndex]
    model.tree.operatorCodes = [codes[i] for i in kept]
