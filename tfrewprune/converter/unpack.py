# SPDX-License-Identifier: Apache-2.0
"""The way back: packed layers become CONV_2D and FULLY_CONNECTED again.

Weights are stored as they were before they were packed: in float16 behind DEQUANTIZE,
in TFLite's sparse encoding behind DENSIFY, or as int8 with scales, if that is how they
came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter import options
from tfrewprune.converter.densify import (
    FLOAT_TYPES,
    WEIGHT_TYPES,
    SparseForm,
    write_weights,
)
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    Model,
    drop_unused,
    drop_unused_codes,
    operator_code,
    tensor_shape,
    text,
)
from tfrewprune.converter.hosts import restore_operators
from tfrewprune.converter.layer import Layer
from tfrewprune.converter.recurrent.fuse import split_operator
from tfrewprune.converter.sources import Source, forget, recall
from tfrewprune.payload.reading import unpack_matrix
from tfrewprune.payload.values import PayloadError

_BUILTIN = schema.BuiltinOperator
_OPTIONS = {
    _BUILTIN.DENSIFY: (schema.BuiltinOptions.DensifyOptions, schema.DensifyOptionsT),
    _BUILTIN.DEQUANTIZE: (
        schema.BuiltinOptions.DequantizeOptions,
        schema.DequantizeOptionsT,
    ),
}
# DEQUANTIZE reads float16 from version 3 on.
_VERSIONS = {_BUILTIN.DENSIFY: 1, _BUILTIN.DEQUANTIZE: 3}


def unpack_model(model: Model) -> bool:
    """Changes ``model`` so that no packed layer is left.

    Returns:
        Whether there was one.

    Raises:
        ConversionError: If a payload, or the options of a packed layer, are damaged.
    """
    layers = [layer for layer in find_layers(model) if layer.packed]
    for layer in layers:
        if layer.reason is not None:
            raise ConversionError(f"layer {layer.name!r}: {layer.reason}")
    if not layers:
        return False
    restore_operators(model)
    _split_recurrent(model, [layer for layer in layers if layer.recurrent])
    layers = [layer for layer in find_layers(model) if layer.packed]
    sources = recall(model)
    dense: dict[int, np.ndarray] = {}
    by_tensor: dict[tuple[int, int], list[Layer]] = defaultdict(list)
    for layer in layers:
        tensor = model.subgraphs[layer.subgraph].tensors[layer.weight]
        if tensor.buffer not in dense:
            dense[tensor.buffer] = read_payload(model, layer)
        by_tensor[layer.subgraph, layer.weight].append(layer)
    before: dict[tuple[int, int], list[schema.OperatorT]] = {}
    for buffer in dense:
        model.tree.buffers[buffer] = schema.BufferT()
        model.alignment.pop(buffer, None)
    for (subgraph, tensor), users in by_tensor.items():
        buffer = model.subgraphs[subgraph].tensors[tensor].buffer
        source = sources.get((subgraph, tensor))
        weights = _restore(model, tensor, users, dense[buffer])
        if source is None:
            stored = model.subgraphs[subgraph].tensors[tensor]
            _store(model, stored, buffer, weights, None)
            continue
        _restore_constant(model, source, buffer, weights)
        if source.weights is None:
            first = min(user.operator for user in users)
            before[subgraph, first] = _restore_decoders(model, source)
        else:
            _restore_dynamic_range(model, source, users)
    after = {
        (layer.subgraph, layer.operator): [_restore_sum(model, layer)]
        for layer in layers
        if layer.residual is not None
    }
    for index, subgraph in enumerate(model.subgraphs):
        subgraph.operators = [
            restored
            for number, operator in enumerate(subgraph.operators)
            for restored in (
                *before.get((index, number), ()),
                operator,
                *after.get((index, number), ()),
            )
        ]
    _drop_payload_tensors(model, sources.values())
    forget(model)
    ours = {name.encode() for name in options.OPERATORS}
    drop_unused_codes(model, lambda code: code.customCode in ours)
    return True


def _split_recurrent(model: Model, layers: list[Layer]) -> None:
    """Writes the loops of packed recurrent layers."""
    dense: dict[int, int] = {}  # payload buffers -> buffers of dense weights
    for index, subgraph in enumerate(list(model.subgraphs)):
        here: dict[int, list[Layer]] = defaultdict(list)
        for layer in layers:
            if layer.subgraph == index:
                here[layer.operator].append(layer)
        operators = []
        for number, operator in enumerate(subgraph.operators):
            if number not in here:
                operators.append(operator)
                continue
            matrices = {user.weight: read_payload(model, user) for user in here[number]}
            packed = here[number][0].options
            operators += split_operator(model, index, operator, packed, matrices, dense)
        subgraph.operators = operators
    for buffer in dense:
        model.tree.buffers[buffer] = schema.BufferT()
        model.alignment.pop(buffer, None)
    if layers:
        drop_unused(model)


def _store(
    model: Model,
    tensor: schema.TensorT,
    buffer: int,
    weights: np.ndarray,
    form: SparseForm | None,
) -> None:
    """Puts weights into a buffer, as the constant that the tensor says it is."""
    tensor.buffer = buffer
    data = write_weights(tensor, weights, form)
    model.tree.buffers[buffer] = schema.BufferT(data=data)


def _restore_constant(
    model: Model, source: Source, buffer: int, weights: np.ndarray
) -> None:
    """Fills the constant that packed weights came from."""
    tensors = model.subgraphs[source.subgraph].tensors
    constant = tensors[source.constant]
    fits = constant.type in WEIGHT_TYPES and tensor_shape(constant) == weights.shape
    if constant.type not in FLOAT_TYPES:
        scale = getattr(constant.quantization, "scale", None)
        fits = fits and scale is not None and len(scale) in (1, len(weights))
    elif source.weights is not None:
        fits = False
    if not fits:
        raise ConversionError(
            f"the source of weights {text(tensors[source.tensor].name)!r} must be "
            f"weights of shape {list(weights.shape)}, received tensor type "
            f"{constant.type} of shape {list(tensor_shape(constant))}"
        )
    tensors[source.tensor].buffer = 0
    # One that something else reads was left where it was.
    if model.data(constant) is None:
        form = source.decoders[0].form if source.decoders else None
        _store(model, constant, buffer, weights, form)


def _restore_decoders(model: Model, source: Source) -> list[schema.OperatorT]:
    """Returns the operators that decode packed weights' constant."""
    outputs = [decoder.input for decoder in source.decoders[1:]] + [source.tensor]
    return [
        schema.OperatorT(
            opcodeIndex=operator_code(model, decoder.code, _VERSIONS[decoder.code]),
            inputs=np.array([decoder.input], np.int32),
            outputs=np.array([output], np.int32),
            builtinOptionsType=_OPTIONS[decoder.code][0],
            builtinOptions=_OPTIONS[decoder.code][1](),
        )
        for decoder, output in zip(source.decoders, outputs, strict=True)
    ]


def _restore_dynamic_range(model: Model, source: Source, users: list[Layer]) -> None:
    """Lets layers read their int8 weights again, by operators that can."""
    subgraph = model.subgraphs[source.subgraph]
    scales = len(subgraph.tensors[source.constant].quantization.scale)
    for user in users:
        operator = subgraph.operators[user.operator]
        operator.inputs = np.array(operator.inputs, np.int32)
        operator.inputs[1] = source.constant
        if isinstance(user.options, options.ConvOptions):
            code, version = _BUILTIN.CONV_2D, 5 if scales > 1 else 2
        else:
            code = _BUILTIN.FULLY_CONNECTED
            version = 12 if scales > 1 else 9 if user.options.asymmetric_inputs else 3
        operator.opcodeIndex = operator_code(model, code, version)


def _drop_payload_tensors(model: Model, sources: Iterable[Source]) -> None:
    """Takes away the tensors that packing put behind all others."""
    added = {(s.subgraph, s.tensor) for s in sources if s.weights is not None}
    for index, subgraph in enumerate(model.subgraphs):
        while (index, len(subgraph.tensors) - 1) in added:
            subgraph.tensors.pop()


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
    if not isinstance(layer.options, options.ConvOptions):
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
    model: Model, tensor: int, users: list[Layer], matrix: np.ndarray
) -> np.ndarray:
    """Makes packed operators built-in ones again; returns weights in their shape."""
    subgraph = model.subgraphs[users[0].subgraph]
    stored = subgraph.tensors[tensor]
    shapes = {dense_shape(user, matrix) for user in users}
    if len(shapes) > 1:
        raise ConversionError(
            f"layer {users[0].name!r}: its payload is used with shapes {shapes}"
        )
    readers = [op for op in subgraph.operators if tensor in list(op.inputs)]
    if len(readers) > len(users):
        raise ConversionError(
            f"layer {users[0].name!r}: its payload is read by another operator too"
        )
    shape = shapes.pop()
    stored.shape = np.array(shape, np.int32)
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
                asymmetricQuantizeInputs=bool(packed.asymmetric_inputs),
            )
            no_bias = len(operator.inputs) < 3 or operator.inputs[2] < 0
            code = _BUILTIN.FULLY_CONNECTED
            version = 6 if no_bias else 5 if packed.keep_num_dims else 1
        operator.opcodeIndex = operator_code(model, code, version)
    return matrix.reshape(shape)


def _restore_sum(model: Model, layer: Layer) -> schema.OperatorT:
    """Gives a convolution its own output again; returns the ADD it took over."""
    conv = model.subgraphs[layer.subgraph].operators[layer.operator]
    add = schema.OperatorT(
        opcodeIndex=operator_code(model, _BUILTIN.ADD, 1),
        inputs=np.array([layer.options.own_output, layer.residual], np.int32),
        outputs=conv.outputs,
        builtinOptionsType=schema.BuiltinOptions.AddOptions,
        builtinOptions=schema.AddOptionsT(
            fusedActivationFunction=conv.builtinOptions.fusedActivationFunction
        ),
    )
    conv.builtinOptions.fusedActivationFunction = 0
    conv.inputs = np.array([i for i in conv.inputs[:3] if i >= 0], np.int32)
    conv.outputs = np.array([layer.options.own_output], np.int32)
    return add
