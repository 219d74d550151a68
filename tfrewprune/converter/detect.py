# SPDX-License-Identifier: Apache-2.0
"""Finds every operator with weights, and says why those that are not packed cannot be.

Nothing is changed and no weight is read here: a layer is described by where its
weights are. A weight tensor may be a float32 constant, an int8 constant with scales
(dynamic range: activations are float), or come out of DENSIFY and DEQUANTIZE operators
that decode a constant at start-up.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter import densify, options
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    OPERATOR_NAMES,
    Model,
    index_list,
    tensor_shape,
    tensor_signature,
    text,
)
from tfrewprune.converter.layer import Layer, WeightSource
from tfrewprune.converter.reasons import SkipReason
from tfrewprune.converter.recurrent import sequence_lstm
from tfrewprune.converter.recurrent.loops import WEIGHTS
from tfrewprune.converter.recurrent.recognise import Loop, find_loops
from tfrewprune.converter.recurrent.view import View

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
_INT8 = schema.TensorType.INT8
_CONTROL_DEPENDENCIES = "model_control_dependencies"
DECODERS = (_BUILTIN.DENSIFY, _BUILTIN.DEQUANTIZE)
# Constants of other types are sizes, indices, truth values and text.
_WEIGHT_TYPES = {
    getattr(schema.TensorType, name)
    for name in ("FLOAT32", "FLOAT16", "FLOAT64", "INT8", "UINT8", "INT16", "INT4")
}
_RECURRENT = "recurrent operators are not packed"
_WHOLE = "no matrix of it is packed by itself: convert packs the layer as a whole"
_TABLE = "tables that are looked up are not packed"
_TRANSPOSED = "transposed convolutions are not packed"
_NEVER_PACKED = {
    "DEPTHWISE_CONV_2D": "depthwise convolutions are not packed",
    "TRANSPOSE_CONV": _TRANSPOSED,
    "CONV_3D": "3D convolutions are not packed",
    "CONV_3D_TRANSPOSE": _TRANSPOSED,
    "BATCH_MATMUL": "batched products are not packed",
    "GATHER": _TABLE,
    "GATHER_ND": _TABLE,
    "EMBEDDING_LOOKUP": _TABLE,
    "EMBEDDING_LOOKUP_SPARSE": _TABLE,
    "LSTM": _RECURRENT,
    "RNN": _RECURRENT,
    "SVDF": _RECURRENT,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _RECURRENT,
    "BIDIRECTIONAL_SEQUENCE_RNN": _RECURRENT,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _RECURRENT,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _RECURRENT,
}
"""Sentences for operators whose constants are weights whatever their shape is."""
# What they hold are states, whose constants are what these begin with.
_STATES = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")
# What LiteRT's float kernels apply; they ignore or refuse TANH and SIGN_BIT.
ACTIVATIONS = (0, 1, 2, 3)


def operator_name(model: Model, operator: schema.OperatorT) -> str:
    """Returns TFLite's name of an operator, or a custom operator's own name."""
    custom = model.custom_code(operator)
    if custom is not None:
        return custom
    code = model.builtin_code(operator)
    return OPERATOR_NAMES.get(code, f"operator {code}")


def model_numbers_operators(model: Model) -> bool:
    """Returns whether the model refers to operators by number: none may go then."""
    names = {text(entry.name) for entry in model.tree.metadata or ()}
    return _CONTROL_DEPENDENCIES in names


def find_layers(model: Model) -> list[Layer]:
    """Returns every operator with weights, in execution order.

    Weights are what a convolution or fully connected operator multiplies with, and the
    constants of other operators that are more than a vector.

    Args:
        model: Any model, dense or already packed.

    Returns:
        Layers of all subgraphs; those that cannot be packed carry the reason.
    """
    layers = []
    loops = {} if model_numbers_operators(model) else _products(model)
    # Their states may begin with constants, which are no weights.
    whole = {id(loop.operators[-1]) for loop in loops.values()}
    for index, subgraph in enumerate(model.subgraphs):
        finder = _Finder(model, index, subgraph)
        for number, operator in enumerate(subgraph.operators or ()):
            op = operator_name(model, operator)
            if op in options.RECURRENT:
                layers += finder.describe_recurrent(number, operator, op)
            elif op in _DESCRIBE:
                layer = finder.describe(number, operator, op)
                layers.append(replace(layer, loop=loops.get(id(operator))))
            elif model.builtin_code(operator) not in DECODERS and (
                id(operator) not in whole
            ):
                layers += finder.describe_other(number, operator, op)
    return layers


def _products(model: Model) -> dict[int, Loop]:
    """The products of recurrent layers that can be packed, by their operators."""
    found = {}
    for loop in find_loops(model):
        for index, operator in loop.products:
            finder = _Finder(model, index, model.subgraphs[index])
            layer = finder.describe(0, operator, "FULLY_CONNECTED")
            if layer.reason is not None or layer.source.decoders:
                break
            if finder.tensors[layer.source.tensor].type != _FLOAT32:
                break
        else:
            found |= {id(operator): loop for _, operator in loop.products}
    return found


class _Skip(Exception):
    """Carries the reason why a layer cannot be packed, and the sentence."""

    def __init__(self, reason: str, skip: SkipReason = SkipReason.UNSUPPORTED):
        super().__init__(reason)
        self.skip = skip


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
        if op == options.CONV_2D and len(inputs) == 4 and inputs[3] >= 0:
            residual = inputs.pop()
        weight = inputs[1] if len(inputs) > 1 else -1
        shape: tuple[int, ...] = ()
        named = outputs[:1]
        source = packed_options = skip = reason = None
        try:
            if weight < 0 or len(outputs) != 1 or not 2 <= len(inputs) <= 3:
                raise _Skip(
                    "expected an activation, weights and at most one bias, received "
                    f"{len(inputs)} inputs and {len(outputs)} outputs"
                )
            if op in options.OPERATORS:
                source = WeightSource(weight)
                packed_options = _DESCRIBE[op](self, operator, inputs, outputs)
                if residual is not None:
                    named = [self.output_before_sum(packed_options)]
            else:
                shape = tensor_shape(self.tensors[weight])
                packed_options = _DESCRIBE[op](self, operator, inputs, outputs)
                self.check_bias(inputs, shape)
                source = self.weight_source(weight)
        except _Skip as found:
            skip, reason = found.skip, str(found)
        return Layer(
            self.index,
            number,
            self.name(named, op, number),
            op,
            weight,
            shape,
            source,
            packed_options,
            skip,
            reason,
            residual,
        )

    def describe_recurrent(
        self, number: int, operator: schema.OperatorT, op: str
    ) -> list[Layer]:
        """Describes a packed recurrent operator: a layer for each of its matrices."""
        inputs, outputs = index_list(operator.inputs), index_list(operator.outputs)
        skip = reason = found = None
        weights = [tensor for tensor in inputs[1:4] if tensor >= 0]
        try:
            found = self.packed(operator, inputs, outputs)
            wanted = found.results
            matrices = 2 + (found.kind == found.GRU and not found.reset_after)
            if (len(inputs), len(outputs), len(weights)) != (9, wanted, matrices):
                raise _Skip(
                    f"expected 9 inputs, {matrices} of them payloads, and {wanted} "
                    f"outputs, received {len(inputs)}, {len(weights)} and "
                    f"{len(outputs)}"
                )
        except _Skip as error:
            skip, reason = error.skip, str(error)
        except ConversionError as error:
            skip, reason = SkipReason.DAMAGED, str(error)
        return [
            Layer(
                *(self.index, number),
                self.name([tensor], op, number).removesuffix(WEIGHTS),
                *(op, tensor, ()),
                WeightSource(tensor),
                *(found, skip, reason),
            )
            for tensor in weights or [-1]
        ]

    def describe_other(
        self, number: int, operator: schema.OperatorT, op: str
    ) -> list[Layer]:
        """Describes an operator that is never packed; nothing if it has no weights."""
        if op in _STATES:
            return []
        least = 1 if op in _NEVER_PACKED else 2
        found: dict[int, WeightSource] = {}
        for tensor in index_list(operator.inputs):
            source = self.constant(tensor)
            if source is None:
                continue
            stored = self.tensors[source.tensor]
            shape = tensor_shape(stored)
            if (
                stored.type in _WEIGHT_TYPES
                and len(shape) > 1
                and sum(length > 1 for length in shape) >= least
            ):
                found.setdefault(tensor, source)
        if not found:
            return []
        weight = max(found, key=lambda i: np.prod(tensor_shape(self.tensors[i])))
        reason = _NEVER_PACKED.get(op, f"{op} is not packed")
        if op == sequence_lstm.OPERATOR:
            view = View(self.model, self.subgraph)
            whole = _RECURRENT if model_numbers_operators(self.model) else _WHOLE
            reason = sequence_lstm.refusal(view, operator) or whole
        return [
            Layer(
                *(self.index, number),
                self.name(index_list(operator.outputs)[:1], op, number),
                op,
                weight,
                tensor_shape(self.tensors[weight]),
                found.pop(weight),
                None,
                SkipReason.OPERATOR,
                reason,
                more_sources=tuple(found.values()),
            )
        ]

    def name(self, named: list[int], op: str, number: int) -> str:
        name = text(self.tensors[named[0]].name) if named else ""
        return name.split(";")[0] or f"{op} {self.index}:{number}"

    def constant(self, tensor: int) -> WeightSource | None:
        """The constant behind any input of an operator, if there is one."""
        if tensor < 0:
            return None
        try:
            return self.decoded_constant(tensor)
        except _Skip:
            return None

    def type_of(self, tensor: int) -> str:
        code = self.tensors[tensor].type
        return _TYPE_NAMES.get(code, f"type {code}")

    def check_float(self, what: str, tensor: int) -> None:
        if self.tensors[tensor].type != _FLOAT32:
            raise _Skip(
                f"{what} is {self.type_of(tensor)}, only FLOAT32 is packed",
                SkipReason.TYPE,
            )

    def check_bias(self, inputs: list[int], shape: tuple[int, ...]) -> None:
        if len(inputs) < 3 or inputs[2] < 0:
            return
        self.check_float("bias", inputs[2])
        received = tensor_shape(self.tensors[inputs[2]])
        if int(np.prod(received)) != shape[0]:
            raise _Skip(f"bias has shape {list(received)}, expected [{shape[0]}]")

    def weight_source(self, weight: int) -> WeightSource:
        """Where the weights of a layer are, if they can be packed from there."""
        source = self.decoded_constant(weight)
        stored = self.tensors[source.tensor]
        if source.decoders and model_numbers_operators(self.model):
            raise _Skip(
                "weights are decoded by operators that cannot be removed: the model's "
                "control dependencies number its operators",
            )
        if stored.type not in densify.WEIGHT_TYPES:
            raise _Skip(
                f"weights are {self.type_of(source.tensor)}, only FLOAT32, FLOAT16 and "
                "INT8 are packed",
                SkipReason.TYPE,
            )
        if stored.type == _INT8:
            self.check_scale(stored)
        elif stored.type != _FLOAT32 and not source.decoders:
            raise _Skip(
                f"weights are {self.type_of(source.tensor)} without DEQUANTIZE",
                SkipReason.TYPE,
            )
        if tensor_shape(stored) != tensor_shape(self.tensors[weight]):
            raise _Skip(
                f"weights have shape {list(tensor_shape(stored))} before and "
                f"{list(tensor_shape(self.tensors[weight]))} after decoding",
            )
        return source

    def check_scale(self, stored: schema.TensorT) -> None:
        """Integers must be a scale, or one of each output, away from the weights."""
        given = stored.quantization
        if stored.sparsity is not None:
            raise _Skip("weights are sparse INT8", SkipReason.TYPE)
        if given is None or given.scale is None:
            raise _Skip("weights are INT8 without a scale", SkipReason.TYPE)
        scale = np.asarray(given.scale)
        rows = tensor_shape(stored)[0]
        if len(scale) not in (1, rows) or (len(scale) > 1 and given.quantizedDimension):
            raise _Skip(
                f"weights have {len(scale)} scales along dimension "
                f"{given.quantizedDimension}, expected 1, or {rows} along dimension 0",
                SkipReason.TYPE,
            )
        if given.zeroPoint is not None and np.any(given.zeroPoint):
            raise _Skip("the zero of INT8 weights is not 0", SkipReason.TYPE)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise _Skip("a scale of INT8 weights is not above 0", SkipReason.TYPE)

    def decoded_constant(self, tensor: int) -> WeightSource:
        """Follows DENSIFY and DEQUANTIZE back to the constant."""
        decoders: list[int] = []
        while True:
            writers = self.writers.get(tensor, [])
            if not writers:
                break
            operator = self.subgraph.operators[writers[0]]
            known = self.model.builtin_code(operator) in DECODERS
            inputs = [] if operator.inputs is None else operator.inputs
            if (
                len(writers) > 1
                or not known
                or len(inputs) != 1
                or len(decoders) > 1
                or int(inputs[0]) < 0
            ):
                raise _Skip(
                    "weights are computed, not constant", SkipReason.NOT_CONSTANT
                )
            decoders.insert(0, writers[0])
            tensor = int(inputs[0])
        stored = self.tensors[tensor]
        if stored.isVariable:
            raise _Skip("weights are a variable, not constant", SkipReason.NOT_CONSTANT)
        if self.model.data(stored) is None:
            where = "in an external file" if stored.externalBuffer else "not constant"
            raise _Skip(f"weights are {where}", SkipReason.NOT_CONSTANT)
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
            raise _Skip(
                "a quantized bias type is set on a float convolution", SkipReason.TYPE
            )
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
        dynamic = self.tensors[inputs[1]].type == _INT8
        if dense.quantizedBiasType or (dense.asymmetricQuantizeInputs and not dynamic):
            raise _Skip(
                "options of a quantized layer are set on a float layer", SkipReason.TYPE
            )
        return options.FullyConnectedOptions(
            self.activation(dense.fusedActivationFunction),
            int(dense.keepNumDims),
            int(dense.asymmetricQuantizeInputs),
        )

    def output_before_sum(self, packed: options.ConvOptions) -> int:
        if packed.own_output is None or packed.own_output >= len(self.tensors):
            raise _Skip(
                "expected the options of a convolution with a residual to name the "
                f"tensor it wrote before the sum, one of {len(self.tensors)}, received "
                f"{packed.own_output}"
            )
        return packed.own_output

    def packed(
        self, operator: schema.OperatorT, inputs: list[int], outputs: list[int]
    ) -> options.Options:
        data = operator.customOptions
        name = self.model.custom_code(operator)
        return options.decode(name, b"" if data is None else bytes(bytearray(data)))


_DESCRIBE = {
    "CONV_2D": _Finder.conv,
    "FULLY_CONNECTED": _Finder.fully_connected,
    options.CONV_2D: _Finder.packed,
    options.FULLY_CONNECTED: _Finder.packed,
}
