# SPDX-License-Identifier: Apache-2.0
"""The channels of a `.tflite` model's tensors, and filters in another order.

The channels between two layers have no order of their own: filters move, and what
reads them follows. Channels are the last axis of every tensor. Where an operator is not
known here, or its weights are no float constants, its inputs and outputs stay as they
are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.channels.order import Order, find_order
from tfrewprune.channels.units import Units
from tfrewprune.converter.densify import FLOAT_TYPES, read_weights, write_weights
from tfrewprune.converter.detect import DECODERS
from tfrewprune.converter.flatbuffer import (
    NUMPY_TYPES,
    Model,
    count_readers,
    drop_unused,
    index_list,
    read_model,
    tensor_shape,
    tensor_signature,
    write_model,
)

_BUILTIN = schema.BuiltinOperator
#: A number of each channel to another, whatever the channel.
_ELEMENTWISE = {
    getattr(_BUILTIN, name)
    for name in (
        *("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "ELU", "GELU"),
        *("LOGISTIC", "TANH", "HARD_SWISH", "ABS", "EXP", "LOG", "NEG", "SQRT"),
        *("RSQRT", "SQUARE", "SIN", "COS", "FLOOR", "CEIL", "ROUND"),
    )
}
#: Several inputs, broadcast.
_TOGETHER = {
    getattr(_BUILTIN, name)
    for name in (
        *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"),
        *("POW", "PRELU"),
    )
}
#: From the neighbours of a position, channel by channel.
_SPATIAL = {
    getattr(_BUILTIN, name)
    for name in (
        *("MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_BILINEAR"),
        "RESIZE_NEAREST_NEIGHBOR",
    )
}
_MEASURED = {_BUILTIN.SHAPE, _BUILTIN.RANK}  # whatever the channels hold
_PADDED = {_BUILTIN.PAD, _BUILTIN.PADV2, _BUILTIN.MIRROR_PAD}
_REDUCED = {_BUILTIN.MEAN, _BUILTIN.SUM, _BUILTIN.REDUCE_MAX, _BUILTIN.REDUCE_MIN}
_RESHAPED = {_BUILTIN.RESHAPE, _BUILTIN.SQUEEZE, _BUILTIN.EXPAND_DIMS}


class _NotUnderstood(Exception):
    """An operator is not what its kind usually is."""


def with_filters_moved(
    content: bytes, choose: Callable[[list[int], int], np.ndarray]
) -> bytes | None:
    """A model that computes the same with filters in another order.

    Args:
        content: A `.tflite` file; its first subgraph is moved.
        choose: Of the operators (numbers in the subgraph) that make a tensor and the
            number of its channels, their order; several write into one residual sum.

    Returns:
        The file; None where everything stays.

    Raises:
        ConversionError: The file is damaged.
    """
    model = read_model(content)
    channels = _Channels(model)
    order = find_order(channels.units, channels.seen, channels.writers, choose)
    if order is None:
        return None
    channels.move(order)
    drop_unused(model)
    return write_model(model)


class _Channels:
    """What is known of the channels of a model's first subgraph.

    Attributes:
        units: The numbers of all channels.
        seen: The channels of every tensor, and as operators see them.
        writers: (channels, operator that makes them).
    """

    def __init__(self, model: Model):
        self.units = Units()
        self.seen: list[np.ndarray] = []
        self.writers: list[tuple[np.ndarray, int]] = []
        self._model, self._graph = model, model.subgraphs[0]
        self._readers = count_readers(self._graph)
        self._of: dict[int, np.ndarray] = {}
        self._rows_of: dict[int, int] = {}  # of rows whose width only readers know
        self._moves: list[tuple[int, int, int, np.ndarray]] = []
        self._decoders = {
            int(operator.outputs[0]): number
            for number, operator in enumerate(self._graph.operators)
            if model.builtin_code(operator) in DECODERS and len(operator.outputs) == 1
        }
        for number in range(len(self._graph.operators)):
            self._read(number)
        for tensor in index_list(self._graph.outputs):
            if not self._is_constant(tensor):
                self.units.pin(self._channels(tensor), "an output of the model")

    def move(self, order: Order) -> None:
        """Writes all constants in the order."""
        for number, position, axis, channels in self._moves:
            places = order.of(channels)
            if not np.array_equal(places, np.arange(len(places))):
                self._move(number, position, axis, places)

    def _read(self, number: int) -> None:
        operator = self._graph.operators[number]
        outputs = index_list(operator.outputs)
        if all(self._is_constant(tensor) for tensor in outputs):
            return  # it decodes weights
        moves, writers = len(self._moves), len(self.writers)
        code = self._model.builtin_code(operator)
        if code == _BUILTIN.RESHAPE and self._width_of_rows(outputs[0]) is None:
            self._rows_of[outputs[0]] = int(operator.inputs[0])
            return
        try:
            if len(outputs) != 1:
                raise _NotUnderstood
            found = self._understood(number, code)
            if len(found) != self._width(outputs[0]):
                raise _NotUnderstood
            self._of[outputs[0]] = found
            self.seen.append(found)
        except _NotUnderstood:
            del self._moves[moves:], self.writers[writers:]
            for tensor in [] if code in _MEASURED else index_list(operator.inputs):
                if tensor >= 0 and not self._is_constant(tensor):
                    self.units.pin(self._channels(tensor), "read as it is")
            for tensor in outputs:
                self.units.pin(self._channels(tensor), "made as it is")

    def _understood(self, number: int, code: int) -> np.ndarray:
        """The channels of the one output of an operator."""
        inputs = index_list(self._graph.operators[number].inputs)
        if code in (_BUILTIN.CONV_2D, _BUILTIN.FULLY_CONNECTED):
            return self._product(number, inputs)
        if code == _BUILTIN.DEPTHWISE_CONV_2D:
            return self._depthwise(number, inputs)
        if code == _BUILTIN.CONCATENATION:
            return self._beside(number, inputs)
        if code in _TOGETHER:
            return self._together(number, inputs)
        if code in _RESHAPED:
            (output,) = index_list(self._graph.operators[number].outputs)
            return self._reshaped(inputs[0], self._width(output))
        if code in _PADDED and np.any(self._integers(inputs[1]).reshape(-1, 2)[-1]):
            raise _NotUnderstood
        if code in _REDUCED:
            rank = len(self._shape(inputs[0]))
            if any(axis % rank == rank - 1 for axis in self._integers(inputs[1])):
                raise _NotUnderstood
        if code in _ELEMENTWISE | _SPATIAL | _PADDED | _REDUCED:
            return self._channels(inputs[0])
        raise _NotUnderstood

    def _product(self, number: int, inputs: list[int]) -> np.ndarray:
        shape = self._float_constant(inputs[1])
        read = self._reshaped(self._rows_of.get(inputs[0], inputs[0]), shape[-1])
        made = self.units.new(shape[0])
        self._moves += [
            (number, 1, len(shape) - 1, read),
            (number, 1, 0, made),
            *self._bias(number, inputs, made),
        ]
        self.seen.append(read)
        self.writers.append((made, number))
        return made

    def _depthwise(self, number: int, inputs: list[int]) -> np.ndarray:
        shape, channels = self._float_constant(inputs[1]), self._channels(inputs[0])
        if shape[-1] % max(len(channels), 1):
            raise _NotUnderstood
        made = np.repeat(channels, shape[-1] // max(len(channels), 1))
        self._moves += [(number, 1, 3, made), *self._bias(number, inputs, made)]
        return made

    def _bias(
        self, number: int, inputs: list[int], made: np.ndarray
    ) -> list[tuple[int, int, int, np.ndarray]]:
        if len(inputs) < 3 or inputs[2] < 0:
            return []
        if self._float_constant(inputs[2]) != (len(made),):
            raise _NotUnderstood
        return [(number, 2, 0, made)]

    def _beside(self, number: int, inputs: list[int]) -> np.ndarray:
        options = self._graph.operators[number].builtinOptions
        if any(map(self._is_constant, inputs)) or options is None:
            raise _NotUnderstood
        axis = options.axis
        rank = len(self._shape(inputs[0]))
        channels = [self._channels(tensor) for tensor in inputs]
        if axis % rank == rank - 1:
            return np.concatenate(channels)
        return self._joined(channels)

    def _together(self, number: int, inputs: list[int]) -> np.ndarray:
        width = max(map(self._width, inputs))
        # What has one channel is the same for all of them.
        full = [n for n, tensor in enumerate(inputs) if self._width(tensor) != 1]
        if width == 1:
            full = list(range(len(inputs)))
        constants = [n for n in full if self._is_constant(inputs[n])]
        computed = [self._channels(inputs[n]) for n in full if n not in constants]
        if not computed or any(self._width(inputs[n]) != width for n in full):
            raise _NotUnderstood
        made = self._joined(computed)
        for n in constants:
            rank = len(self._float_constant(inputs[n]))
            self._moves.append((number, n, rank - 1, made))
        return made

    def _joined(self, channels: list[np.ndarray]) -> np.ndarray:
        first = channels[0]
        for other in channels[1:]:
            if len(other) != len(first):
                raise _NotUnderstood
            self.units.join(first, other)
        return first

    def _reshaped(self, tensor: int, width: int) -> np.ndarray:
        """The channels of a tensor, as they come in rows of `width`."""
        shape, channels = self._shape(tensor), self._channels(tensor)
        if width == len(channels):
            return channels
        if len(shape) > 2 and width == np.prod(shape[1:], dtype=np.int64):
            return np.tile(channels, width // max(len(channels), 1))
        raise _NotUnderstood

    def _channels(self, tensor: int) -> np.ndarray:
        if tensor in self._rows_of:  # its reader is none that says how wide they are
            self.units.pin(self._channels(self._rows_of[tensor]), "read as it is")
        if tensor not in self._of:  # an input, a variable
            self._of[tensor] = self.units.new(self._width(tensor))
            self.units.pin(self._of[tensor], "made as it is")
            self.seen.append(self._of[tensor])
        return self._of[tensor]

    def _shape(self, tensor: int) -> tuple[int, ...]:
        return tensor_shape(self._graph.tensors[tensor])

    def _width(self, tensor: int) -> int:
        shape = self._shape(tensor)
        return max(shape[-1], 0) if shape else 1

    def _width_of_rows(self, tensor: int) -> int | None:
        signature = tensor_signature(self._graph.tensors[tensor])
        return None if signature[-1:] == (-1,) else self._width(tensor)

    def _is_constant(self, tensor: int) -> bool:
        if tensor in self._decoders:
            decoder = self._graph.operators[self._decoders[tensor]]
            return self._is_constant(int(decoder.inputs[0]))
        return self._model.data(self._graph.tensors[tensor]) is not None

    def _integers(self, tensor: int) -> np.ndarray:
        stored = self._graph.tensors[tensor]
        data = self._model.data(stored)
        types = (schema.TensorType.INT32, schema.TensorType.INT64)
        if data is None or stored.type not in types:
            raise _NotUnderstood
        return data.view(NUMPY_TYPES[stored.type])

    def _float_constant(self, tensor: int) -> tuple[int, ...]:
        """The shape of a constant that can be written in another order."""
        shape = self._shape(tensor)
        while tensor in self._decoders:
            tensor = int(self._graph.operators[self._decoders[tensor]].inputs[0])
        stored = self._graph.tensors[tensor]
        known = stored.type in FLOAT_TYPES and stored.sparsity is None
        if self._model.data(stored) is None or not known or not shape:
            raise _NotUnderstood
        if tensor_shape(stored) != shape or tensor in index_list(self._graph.inputs):
            raise _NotUnderstood
        return shape

    def _move(self, number: int, position: int, axis: int, places: np.ndarray) -> None:
        """Gives an operator a constant of its own, in another order."""
        operator, tensors = self._graph.operators[number], self._graph.tensors
        read = source = int(operator.inputs[position])
        shared = False
        while source in self._decoders:
            shared |= self._readers[source] > 1
            decoder = self._graph.operators[self._decoders[source]]
            source = int(decoder.inputs[0])
        before = read_weights(self._model, tensors[source])
        after = np.take(before, places, axis)
        if np.array_equal(before, after):
            return
        stored = copy.copy(tensors[source])
        if source != read and not shared:
            operator, position = decoder, 0
        elif source != read:  # others go on reading what is decoded
            stored.type = schema.TensorType.FLOAT32
        data = write_weights(stored, after, None)
        stored.buffer = len(self._model.tree.buffers)
        self._model.tree.buffers.append(schema.BufferT(data=data))
        tensors.append(stored)
        inputs = index_list(operator.inputs)
        inputs[position] = len(tensors) - 1
        operator.inputs = np.array(inputs, np.int32)
