# SPDX-License-Identifier: Apache-2.0
"""How channels pass a layer that multiplies them by no matrix.

A passage tells which channels of its inputs and its output are the same unit, what a
constant becomes on the way, and how the layer looks with fewer channels. `products` has
those of layers with a weight matrix, `reading` chooses the passage of a call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tfrewprune.channels.units import Units
from tfrewprune.shrinking.signals import Signal
from tfrewprune.wrappers.graph import Call

#: Config and weights of a layer; None for weights that stay.
Narrow = tuple[dict[str, Any], list[np.ndarray]]
#: The channels of a signal that stay.
Kept = Callable[[Signal], np.ndarray]

_ELEMENTWISE = (
    *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid"),
    *("hard_silu", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish"),
    *("relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus"),
    *("softsign", "sparse_plus", "squareplus", "tanh", "tanh_shrink", "threshold"),
)
ELEMENTWISE = {getattr(keras.activations, name) for name in _ELEMENTWISE}
"""Activations that treat every channel by itself."""

MERGES = {
    "Add": lambda values: np.sum(values, axis=0),
    "Subtract": lambda values: values[0] - values[1],
    "Multiply": lambda values: np.prod(values, axis=0),
    "Average": lambda values: np.mean(values, axis=0),
    "Maximum": lambda values: np.max(values, axis=0),
    "Minimum": lambda values: np.min(values, axis=0),
}


class NotUnderstood(Exception):
    """A layer that is left as it is; the message is the reason."""


@dataclasses.dataclass
class Passage:
    """One call, its channels in and out.

    Attributes:
        call: The call.
        inputs: The channels of its inputs.
        outputs: Those of its outputs.
        reason: Why it stays as it is; None where its channels may go.
        edges: Units to why a constant did not pass as one.
    """

    call: Call
    inputs: list[Signal]
    outputs: list[Signal] = dataclasses.field(default_factory=list)
    reason: str | None = None
    edges: dict[int, str] = dataclasses.field(default_factory=dict)

    @property
    def layer(self) -> Any:
        return self.call.operation

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the first input, with the batch."""
        return tuple(self.call.inputs[0].shape)

    def narrowed(self, kept: Kept) -> Narrow | None:
        """Config and weights with the channels that stay; None: as it is."""
        return None

    def needs(self, needed: list[np.ndarray]) -> list[np.ndarray]:
        """Which channels of the inputs matter to those of the outputs that do.

        Args:
            needed: Boolean by channel, of each output.
        """
        return [np.ones(len(signal.units), bool) for signal in self.inputs]

    def emptied(self, kept: Kept) -> Narrow | None:
        """The same with zeros in place of the channels that go; None: as it is."""
        return None

    @property
    def sources(self) -> tuple[keras.KerasTensor, ...]:
        """The tensors that it is computed from."""
        return self.call.inputs

    def varying(self, needed: list[np.ndarray]) -> np.ndarray:
        """The channels of the one output that matter and are no constants."""
        return needed[0] & np.isnan(self.outputs[0].value)

    def blocks(self, signal: Signal, channels: np.ndarray, why: str) -> None:
        """Notes that something made constants of channels differ by position."""
        self.edges.update((int(unit), why) for unit in signal.units[channels])


def opaque(call: Call, inputs: list[Signal], units: Units, reason: str) -> Passage:
    """A layer that stays as it is, with all channels in and out."""
    passage = Passage(call, inputs, reason=reason)
    for signal in inputs:
        units.pin(signal.units, f"read by {call.operation.name}: {reason}")
    passage.outputs = [
        whole(tensor, units, f"from {call.operation.name}: {reason}")
        for tensor in call.outputs
    ]
    return passage


def whole(tensor: keras.KerasTensor, units: Units, reason: str) -> Signal:
    """A tensor of which no channel may go."""
    axis = max(len(tensor.shape) - 1, 0)
    count = tensor.shape[axis] if tensor.shape else 1
    signal = _varying(axis, units.new(count or 0))
    units.pin(signal.units, reason)
    return signal


def _varying(axis: int, units: np.ndarray) -> Signal:
    return Signal(axis, units, np.full(len(units), np.nan))


def applied(function: Callable, value: np.ndarray) -> np.ndarray:
    """An elementwise function of constants; NaN stays NaN."""
    known = np.isfinite(value)
    result = np.full(len(value), np.nan)
    if known.any():
        given = ops.convert_to_tensor(value[known], "float32")
        result[known] = ops.convert_to_numpy(function(given))
    return result


def check_elementwise(activation: Callable | None, name: str) -> None:
    """Refuses activations that mix channels, or may.

    Raises:
        NotUnderstood: Such as softmax, or a function of the user's.
    """
    if activation is not None and activation not in ELEMENTWISE:
        label = getattr(activation, "__name__", type(activation).__name__)
        raise NotUnderstood(f"{name} {label} may mix channels")


class Through(Passage):
    """Every channel by itself, with no weights a channel."""

    @classmethod
    def of(
        cls,
        call: Call,
        inputs: list[Signal],
        units: Units,
        change: Callable[[np.ndarray], np.ndarray] = lambda value: value,
        pads: str | None = None,
    ) -> Through:
        """A passage of one input.

        Args:
            call: The call.
            inputs: Its one input.
            units: All units.
            change: What becomes of a constant.
            pads: Why constants other than 0 are none any more; None: they are.
        """
        (signal,) = inputs
        passage = cls(call, inputs)
        value = change(signal.value)
        if pads is not None:
            lost = np.isfinite(value) & (value != 0)
            passage.blocks(signal, lost, pads)
            value = np.where(lost, np.nan, value)
        axis = signal.axis
        if len(call.outputs[0].shape) == 2:  # after a global pooling
            axis = 1
        passage.outputs = [Signal(axis, signal.units, value)]
        return passage

    def needs(self, needed: list[np.ndarray]) -> list[np.ndarray]:
        return [self.varying(needed)]


class Vectors(Through):
    """A layer with weights a channel: batch normalization, PReLU."""

    def narrowed(self, kept: Kept) -> Narrow:
        (signal,) = self.inputs
        channels = kept(signal)
        count = len(signal.units)
        weights = [
            array[..., channels] if array.shape[-1:] == (count,) else array
            for array in self.layer.get_weights()
        ]
        return self.layer.get_config(), weights


class Together(Passage):
    """Several inputs, channel by channel: a residual sum, a gate's product."""

    @classmethod
    def of(
        cls, call: Call, inputs: list[Signal], units: Units, merge: Callable
    ) -> Together:
        ranks = {len(tensor.shape) for tensor in call.inputs}
        axes = {signal.axis for signal in inputs}
        if len(ranks) > 1 or len(axes) > 1:
            raise NotUnderstood("its inputs have channels on different axes")
        count = max(len(signal.units) for signal in inputs)
        wide = [signal for signal in inputs if len(signal.units) == count]
        values = []
        for signal in inputs:
            if len(signal.units) == count:
                values.append(signal.value)
                units.join(wide[0].units, signal.units)
            else:
                units.pin(signal.units, f"{call.operation.name} spreads it to others")
                values.append(np.broadcast_to(signal.value, count))
        value = merge(np.array(values))
        if merge is MERGES["Multiply"]:
            value = np.where((np.array(values) == 0).any(axis=0), 0.0, value)
        passage = cls(call, inputs)
        passage.outputs = [Signal(wide[0].axis, wide[0].units, value)]
        return passage

    def needs(self, needed: list[np.ndarray]) -> list[np.ndarray]:
        varying = self.varying(needed)
        return [
            varying
            if len(signal.units) == len(varying)
            else np.full(len(signal.units), varying.any())
            for signal in self.inputs
        ]


class Plus(Through):
    """A sum of which one input varies: that input plus constants.

    The other branches go whole, such as a residual block without a path.

    Attributes:
        number: Which input varies.
        offset: What the others add to each channel.
    """

    number = 0
    offset = np.zeros(0)

    @classmethod
    def found(
        cls, call: Call, inputs: list[Signal], units: Units, merge: Callable
    ) -> Plus | None:
        """This passage of a merge, or None where it is no such sum."""
        varying = [n for n, s in enumerate(inputs) if np.isnan(s.value).any()]
        shapes = {tuple(tensor.shape) for tensor in call.inputs}
        alike = len(varying) == len(shapes) == 1 and merge is MERGES["Add"]
        if not alike or len(inputs) == 1:
            return None
        (number,) = varying
        if inputs[number].axis != len(call.inputs[0].shape) - 1:
            return None
        offset = np.sum([s.value for s in inputs if s is not inputs[number]], axis=0)
        passage = cls.of(call, [inputs[number]], units, lambda value: value + offset)
        passage.number, passage.offset = number, offset
        return passage

    @property
    def sources(self) -> tuple[keras.KerasTensor, ...]:
        return (self.call.inputs[self.number],)


def alike(values: np.ndarray) -> np.ndarray:
    """Constants that are the same in all inputs, as they lie side by side in space."""
    return np.where((values == values[0]).all(axis=0), values[0], np.nan)


class Beside(Passage):
    """Channels of several inputs one after the other."""

    @classmethod
    def of(cls, call: Call, inputs: list[Signal], units: Units) -> Passage:
        axis = call.operation.axis % len(call.outputs[0].shape)
        axes = {signal.axis for signal in inputs}
        if axes != {axis}:
            return Together.of(call, inputs, units, alike)
        passage = cls(call, inputs)
        numbers = np.concatenate([signal.units for signal in inputs])
        value = np.concatenate([signal.value for signal in inputs])
        passage.outputs = [Signal(axis, numbers, value)]
        return passage

    def needs(self, needed: list[np.ndarray]) -> list[np.ndarray]:
        cuts = np.cumsum([len(signal.units) for signal in self.inputs])
        return np.split(self.varying(needed), cuts[:-1])


@dataclasses.dataclass
class Reshaped(Passage):
    """The same numbers under another shape: Flatten, Reshape.

    Attributes:
        order: The input's channel of each of the output's.
    """

    order: np.ndarray | None = None

    @classmethod
    def of(cls, call: Call, inputs: list[Signal], units: Units) -> Reshaped:
        (signal,) = inputs
        shape, target = call.inputs[0].shape[1:], call.outputs[0].shape[1:]
        if None in shape or None in target:
            raise NotUnderstood(f"its shapes are not fixed: {shape} to {target}")
        if getattr(call.operation, "_channels_first", False):
            raise NotUnderstood("it moves channels to another axis")
        spread = [1] * len(shape)
        spread[signal.axis - 1] = len(signal.units)

        def place(channels: np.ndarray) -> np.ndarray:
            full = np.broadcast_to(channels.reshape(spread), shape)
            return full.reshape(-1, target[-1] if target else 1)

        numbers = place(np.arange(len(signal.units)))
        if (numbers != numbers[0]).any():
            raise NotUnderstood("its last axis mixes channels and positions")
        passage = cls(call, inputs)
        passage.order = order = numbers[0]
        passage.outputs = [
            Signal(len(target), signal.units[order], signal.value[order])
        ]
        return passage

    def needs(self, needed: list[np.ndarray]) -> list[np.ndarray]:
        count = len(self.inputs[0].units)
        return [np.isin(np.arange(count), self.order[self.varying(needed)])]

    def narrowed(self, kept: Kept) -> Narrow | None:
        config = self.layer.get_config()
        if "target_shape" not in config:
            return None
        target = list(self.call.outputs[0].shape[1:])
        target[-1] = len(kept(self.outputs[0]))
        return {**config, "target_shape": target}, []
