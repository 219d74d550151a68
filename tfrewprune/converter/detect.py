# SPDX-License-Identifier: Apache-2.0
"""Finds the layers of a model that could be packed, and says why others cannot.

Nothing is changed and no weight is read here: a layer is described by where its
weights are. A weight tensor may be a float32 constant, or come out of DENSIFY and
DEQUANTIZE operators that decode a constant at start-up.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter import densify, options
from tfrewprune.converter.flatbuffer import (
    Model,
    index_list,
    tensor_shape,
    tensor_signature,
    text,
)

_OPERATOR_NAMES = {
    code: name
    for name, code in vars(schema.BuiltinOperator).items()
    if isinstance(code, int)
}
_TYPE_NAMES = {
    code: name
    for name, code in vars(schema.TensorType).items()
    if isinstance(code, int)
}
_ACTIVATION_NAMES = {
    code: name
    for name, code in vars(schema.ActivationFunctionType).items()
    if isinstance(code, int)
}
_BUILTIN = schema.BuiltinOperator
_FLOAT32 = schema.TensorType.FLOAT32
_CONTROL_DEPENDENCIES = "model_control_dependencies"
# What LiteRT's float kernels apply; they ignore or refuse TANH and SIGN_BIT.
ACTIVATIONS = (0, 1, 2, 3)


@dataclass(frozen=True)
class WeightSource:
    """The constant behind a weight tensor.

    Attributes:
        tensor: Index of the constant tensor in its subgraph.
        decoders: Indices of the DENSIFY and DEQUANTIZE operators between the
            constant and the layer, in order.
    """

    tensor: int
    decoders: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layer:
    """A CONV_2D, FULLY_CONNECTED or relative, packed, packable or not.

    Attributes:
        subgraph: Index of its subgraph.
        operator: Index of its operator in the subgraph.
        name: Name of the layer, from its output tensor.
        op: TFLite's operator name, or the name of the packed operator.
        weight: Index of the weight tensor, -1 when there is none.
        weight_shape: Shape of the weights, ``[O, kh, kw, I]`` or ``[O, K]``.
        source: Where the weights are; None when they are not constant.
        options: What the packed operator needs; None when it cannot be packed.
        reason: Why the layer cannot be packed; None when it can, or is packed.
        residual: Tensor that a packed convolution adds to its output; None mostly.
    """

    subgraph: int
    operator: int
    name: str
    op: str
    weight: int
    weight_shape: tuple[int, ...]
    source: WeightSource | None
    options: options.ConvOptions | options.FullyConnectedOptions | None
    reason: str | None
    residual: int | None = None

    @property
    def packed(self) -> bool:
        return self.op in options.OPERATORS


def operator_name(model: Model, operator: schema.OperatorT) -> str:
    """Returns TFLite's name of an operator, or a custom operator's own name."""
    custom = model.custom_code(operator)
    if custom is not None:
        return custom
    code = model.builtin_code(operator)
    return _OPERATOR_NAMES.get(code, f"operator {code}")


def model_numbers_operators(model: Model) -> bool:
    """Returns whether the model refers to operators by number: none may go then."""
    names = {text(entry.name) for entry in model.tree.metadata or ()}
    return _CONTROL_DEPENDENCIES in names


def find_layers(model: Model) -> list[Layer]:
    """Returns every layer with a weight matrix, in execution order.

    Args:
        model: Any model, dense or already packed.

    Returns:
        Layers of all subgraphs; those that cannot be packed carry the reason.
    """
    layers = []
    for index, subgraph in enumerate(model.subgraphs):
        finder = _Finder(model, index, subgraph)
        for number, operator in enumerate(subgraph.operators or ()):
            op = operator_name(model, operator)
            if op in _DESCRIBE:
                layers.append(finder.describe(number, operator, op))
    return layers


class _Skip(Exception):
    """Carries the reason why a layer cannot be packed."""


class _Finder:
    def __init__(self, model: Model, index: int, subgraph: schema.SubGraphT):
        self.model = model
        self.index = index
        self.subgraph = subgraph
        self.tensors = subgraph.tensors or []
        self.writers: dict[int, list[int]] = defaultdict(list)
        for number, operator in enumerate(subgraph.operators or ()):
            for tensor in operator.outputs if operator.outputs is not None else ():
                self.writers[int(tensor)].append(number)

    def describe(self, number: int, operator: schema.OperatorT, op: str) -> Layer:
        inputs, outputs = index_list(operator.inputs), index_list(operator.outputs)
        residual = None
        named = outputs[:1]
        if op == options.CONV_2D and len(inputs) == 4 and inputs[3] >= 0:
            residual = inputs.pop()
            named = index_list(operator.intermediates)[:1]  # its output before the sum
        name = text(self.tensors[named[0]].name) if named else ""
        name = name.split(";")[0] or f"{op} {self.index}:{number}"
        weight = inputs[1] if len(inputs) > 1 else -1
        shape: tuple[int, ...] = ()
        source = packed_options = reason = None
        try:
            if residual is not None and not named:
                raise _Skip(
                    "expected a convolution with a residual to name the tensor it had "
                    "before the sum as its intermediate, received none"
                )
            if weight < 0 or len(outputs) != 1 or not 2 <= len(inputs) <= 3:
                raise _Skip(
                    "expected an activation, weights and at most one bias, received "
                    f"{len(inputs)} inputs and {len(outputs)} outputs"
                )
            if op in options.OPERATORS:
                source = WeightSource(weight)
                packed_options = _DESCRIBE[op](self, operator, inputs, outputs)
            else:
                shape = tensor_shape(self.tensors[weight])
                packed_options = _DESCRIBE[op](self, operator, inputs, outputs)
                self.check_bias(inputs, shape)
                source = self.weight_source(weight)
        except _Skip as skip:
            reason = str(skip)
        return Layer(
            self.index,
            number,
            name,
            op,
            weight,
            shape,
            source,
            packed_options,
            reason,
            residual,
        )

    def type_of(self, tensor: int) -> str:
        code = self.tensors[tensor].type
        return _TYPE_NAMES.get(code, f"type {code}")

    def check_float(self, what: str, tensor: int) -> None:
        if self.tensors[tensor].type != _FLOAT32:
            raise _Skip(f"{what} is {self.type_of(tensor)}, only FLOAT32 is packed")

    def check_bias(self, inputs: list[int], shape: tuple[int, ...]) -> None:
        if len(inputs) < 3 or inputs[2] < 0:
            return
        self.check_float("bias", inputs[2])
        received = tensor_shape(self.tensors[inputs[2]])
        if int(np.prod(received)) != shape[0]:
            raise _Skip(f"bias has shape {list(received)}, expected [{shape[0]}]")

    def weight_source(self, weight: int) -> WeightSource:
        """Follows DENSIFY and DEQUANTIZE back to the constant."""
        decoders: list[int] = []
        tensor = weight
        while True:
            writers = self.writers.get(tensor, [])
            stored = self.tensors[tensor]
            if not writers:
                break
            operator = self.subgraph.operators[writers[0]]
            code = self.model.builtin_code(operator)
            known = code in (_BUILTIN.DENSIFY, _BUILTIN.DEQUANTIZE)
            inputs = [] if operator.inputs is None else operator.inputs
            if len(writers) > 1 or not known or len(inputs) != 1 or len(decoders) > 1:
                raise _Skip("weights are computed, not constant")
            decoders.insert(0, writers[0])
            tensor = int(inputs[0])
            if tensor < 0:
                raise _Skip("weights are computed, not constant")
        if stored.isVariable:
            raise _Skip("weights are a variable, not constant")
        if decoders and model_numbers_operators(self.model):
            raise _Skip(
                "weights are decoded by operators that cannot be removed: the model's "
                "control dependencies number its operators"
            )
        if self.model.data(stored) is None:
            if stored.externalBuffer:
                raise _Skip("weights are in an external file")
            raise _Skip("weights are not constant")
        if stored.type not in densify.FLOAT_TYPES:
            raise _Skip(
                f"weights are {self.type_of(tensor)}, only FLOAT32 and FLOAT16 "
                "are packed"
            )
        if stored.type != _FLOAT32 and not decoders:
            raise _Skip(f"weights are {self.type_of(tensor)} without DEQUANTIZE")
        if tensor_shape(stored) != tensor_shape(self.tensors[weight]):
            raise _Skip(
                f"weights have shape {list(tensor_shape(stored))} before and "
                f"{list(tensor_shape(self.tensors[weight]))} after decoding"
            )
        return WeightSource(tensor, tuple(decoders))

    def activation(self, code: int) -> int:
        if code not in ACTIVATIONS:
            name = _ACTIVATION_NAMES.get(code, f"activation {code}")
            raise _Skip(
                f"fused activation {name} is not applied by LiteRT's own float "
                "operator, so that nothing can be verified against it"
            )
        return code

    def conv(
        self, operator: schema.OperatorT, inputs: list[int], outputs: list[int]
    ) -> options.ConvOptions:
        conv = operator.builtinOptions
        if not isinstance(conv, schema.Conv2DOptionsT):
            raise _Skip("the operator carries no Conv2DOptions")
        self.check_float("activation", inputs[0])
        self.check_float("output", outputs[0])
        shape = tensor_shape(self.tensors[inputs[1]])
        received = tensor_signature(self.tensors[inputs[0]])
        if len(shape) != 4 or min(shape) < 1:
            raise _Skip(
                f"weights have shape {list(shape)}, expected [O, kh, kw, I] without 0"
            )
        if len(received) != 4 or received[3] < 1:
            raise _Skip(
                f"activation has shape {list(received)}, expected [N, H, W, {shape[3]}]"
            )
        if received[3] != shape[3]:
            raise _Skip(
                f"grouped convolution: {received[3]} input channels, filters over "
                f"{shape[3]}"
            )
        steps = (conv.strideH, conv.strideW, conv.dilationHFactor, conv.dilationWFactor)
        if min(steps) < 1:
            raise _Skip(f"strides and dilations must be at least 1, received {steps}")
        if conv.padding not in (0, 1):
            raise _Skip(f"padding must be SAME or VALID, received {conv.padding}")
        if conv.quantizedBiasType:
            raise _Skip("a quantized bias type is set on a float convolution")
        return options.ConvOptions(
            self.activation(conv.fusedActivationFunction),
            *shape[1:],
            *steps,
            conv.padding,
        )

    def fully_connected(
        self, operator: schema.OperatorT, inputs: list[int], outputs: list[int]
    ) -> options.FullyConnectedOptions:
        dense = operator.builtinOptions
        if not isinstance(dense, schema.FullyConnectedOptionsT):
            raise _Skip("the operator carries no FullyConnectedOptions")
        self.check_float("activation", inputs[0])
        self.check_float("output", outputs[0])
        shape = tensor_shape(self.tensors[inputs[1]])
        received = tensor_signature(self.tensors[inputs[0]])
        if len(shape) != 2 or min(shape) < 1:
            raise _Skip(f"weights have shape {list(shape)}, expected [O, K] without 0")
        if dense.keepNumDims and (not received or received[-1] != shape[1]):
            raise _Skip(
                f"activation has shape {list(received)}, expected {shape[1]} last"
            )
        if dense.weightsFormat:
            raise _Skip("weights are stored shuffled (SHUFFLED4x16INT8)")
        if dense.asymmetricQuantizeInputs or dense.quantizedBiasType:
            raise _Skip("options of a quantized layer are set on a float layer")
        return options.FullyConnectedOptions(
            self.activation(dense.fusedActivationFunction), int(dense.keepNumDims)
        )

    def packed(
        self, operator: schema.OperatorT, inputs: list[int], outputs: list[int]
    ) -> options.ConvOptions | options.FullyConnectedOptions:
        data = operator.customOptions
        name = self.model.custom_code(operator)
        return options.decode(name, b"" if data is None else bytes(bytearray(data)))

    def depthwise(
        self, operator: schema.OperatorT, inputs: list[int], outputs: list[int]
    ) -> None:
        raise _Skip("depthwise convolutions are not packed")

    def transposed(
        self, operator: schema.OperatorT, inputs: list[int], outputs: list[int]
    ) -> None:
        raise _Skip("transposed convolutions are not packed")


_DESCRIBE = {
    "CONV_2D": _Finder.conv,
    "FULLY_CONNECTED": _Finder.fully_connected,
    "DEPTHWISE_CONV_2D": _Finder.depthwise,
    "TRANSPOSE_CONV": _Finder.transposed,
    options.CONV_2D: _Finder.packed,
    options.FULLY_CONNECTED: _Finder.packed,
}
