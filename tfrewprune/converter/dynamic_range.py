# SPDX-License-Identifier: Apache-2.0
"""Dynamic-range layers: int8 weights, float activations.

LiteRT's kernels for them round the activations to int8 on every call; ours compute in
float32 with the weights that the integers stand for. Models are therefore compared with
those weights as floats, not with LiteRT's rounding.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import (
    Model,
    read_model,
    tensor_shape,
    write_model,
)

_BUILTIN = schema.BuiltinOperator
_TYPE = schema.TensorType
_OPERATORS = (
    _BUILTIN.CONV_2D,
    _BUILTIN.DEPTHWISE_CONV_2D,
    _BUILTIN.FULLY_CONNECTED,
)


def is_dynamic_range(
    model: Model, subgraph: schema.SubGraphT, operator: schema.OperatorT
) -> bool:
    """Returns whether an operator has constant int8 weights and float activations."""
    if model.builtin_code(operator) not in _OPERATORS or len(operator.inputs) < 2:
        return False
    activation, weights = (subgraph.tensors[i] for i in operator.inputs[:2])
    return (
        activation.type == _TYPE.FLOAT32
        and weights.type == _TYPE.INT8
        and weights.sparsity is None
        and weights.quantization is not None
        and weights.quantization.scale is not None
        and model.data(weights) is not None
    )


def in_float(content: bytes) -> bytes:
    """Returns a model with the weights of its dynamic-range layers as floats.

    Args:
        content: Any `.tflite` model, dense or packed.

    Returns:
        The model; `content` itself where no layer changes.
    """
    model = read_model(content)
    changed = False
    for subgraph in model.subgraphs:
        floats: dict[int, int] = {}
        for operator in subgraph.operators:
            if not is_dynamic_range(model, subgraph, operator):
                continue
            changed = True
            weights = int(operator.inputs[1])
            if weights not in floats:
                floats[weights] = _append_floats(model, subgraph, weights)
            inputs = np.array(operator.inputs, np.int32)
            inputs[1] = floats[weights]
            operator.inputs = inputs
            if model.builtin_code(operator) == _BUILTIN.FULLY_CONNECTED:
                operator.builtinOptions.asymmetricQuantizeInputs = False
    return write_model(model) if changed else content


def _append_floats(model: Model, subgraph: schema.SubGraphT, weights: int) -> int:
    tensor = subgraph.tensors[weights]
    quantization = tensor.quantization
    shape = tensor_shape(tensor)
    along = [1] * len(shape)
    if len(quantization.scale) > 1:
        along[quantization.quantizedDimension] = -1
    scale = np.asarray(quantization.scale, np.float32).reshape(along)
    zero = quantization.zeroPoint
    zero = np.float32(0) if zero is None else np.float32(zero).reshape(along)
    integers = model.data(tensor).view(np.int8).reshape(shape)
    floats = (integers.astype(np.float32) - zero) * scale
    model.tree.buffers.append(
        schema.BufferT(data=np.ascontiguousarray(floats).reshape(-1).view(np.uint8))
    )
    subgraph.tensors.append(
        schema.TensorT(
            shape=tensor.shape,
            type=_TYPE.FLOAT32,
            buffer=len(model.tree.buffers) - 1,
            name=tensor.name,
            hasRank=tensor.hasRank,
        )
    )
    return len(subgraph.tensors) - 1
