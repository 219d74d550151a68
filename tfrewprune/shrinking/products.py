# SPDX-License-Identifier: Apache-2.0
"""Layers that multiply channels by a matrix, and depthwise ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from tfrewprune.channels.units import Units
from tfrewprune.shrinking.passages import (
    ELEMENTWISE,
    Kept,
    Narrow,
    NotUnderstood,
    Passage,
    applied,
    check_elementwise,
)
from tfrewprune.shrinking.signals import Signal
from tfrewprune.wrappers.graph import Call

layers = keras.layers

#: Array, channels that stay, axis -> array without the others, or with zeros there.
Cut = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def _numpy(variable: keras.Variable, dtype: type = np.float64) -> np.ndarray:
    return ops.convert_to_numpy(variable.value).astype(dtype)


def _empty(array: np.ndarray, channels: np.ndarray, axis: int) -> np.ndarray:
    """Zeros but for some channels."""
    result, moved = np.zeros_like(array), np.moveaxis(array, axis, 0)
    np.moveaxis(result, axis, 0)[channels] = moved[channels]
    return result


def sees_padding(layer: keras.Layer, shape: tuple[int | None, ...]) -> bool:
    """Whether zeros around the input enter some of a convolution's outputs."""
    if getattr(layer, "padding", "valid") == "valid":
        return False
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    spatial = shape[2:] if first else shape[1:-1]
    for extent, kernel, stride, dilation in zip(
        *(spatial, layer.kernel_size, layer.strides, layer.dilation_rate), strict=True
    ):
        reach = (kernel - 1) * dilation + 1
        if reach == 1:
            continue
        if extent is None or layer.padding == "causal":
            return True
        if (math.ceil(extent / stride) - 1) * stride + reach > extent:
            return True
    return False


class Product(Passage):
    """A layer whose outputs are sums over all its inputs' channels.

    Attributes:
        kernel: (positions, inputs, outputs), float32.
        bias: Of each output before the activation; zeros where there is none.
        even: Whether each output sees all kernel positions everywhere, so that a
            constant input adds a constant: no padding, no transposed strides.
        folds: Channels that go to what becomes of their constant: (channel, the
            channel that carries it on or None for the bias, factor).
    """

    merges = True
    """Whether one constant channel can take over what others add."""

    def __init__(
        self, call: Call, inputs: list[Signal], units: Units, edges: bool = True
    ):
        super().__init__(call, inputs)
        layer = call.operation
        _check_state(layer)
        self.kernel = self._kernel()
        self.bias = np.zeros(self.kernel.shape[2])
        if layer.use_bias:
            self.bias = _numpy(layer.bias)
        self.even = self._even(edges)
        self.folds: list[tuple[int, int | None, float]] = []
        self.outputs = [
            Signal(
                _channel_axis(call, self.signal),
                units.new(len(self.bias)),
                self._value(self.bias),
            )
        ]
        try:
            check_elementwise(layer.activation, "activation")
        except NotUnderstood as reason:
            units.pin(self.outputs[0].units, str(reason))

    @property
    def signal(self) -> Signal:
        """The channels that it reads."""
        return self.inputs[0]

    @functools.cached_property
    def reads(self) -> np.ndarray:
        """Boolean (inputs, outputs): where some weight is not 0."""
        return self.kernel.any(axis=0)

    @property
    def foldable(self) -> np.ndarray:
        """Boolean (inputs): whether a channel adds nothing but to the bias."""
        value = self.signal.value
        return np.isfinite(value) if self.even else value == 0

    def needs(self, needed: list[np.ndarray]) -> list[np.ndarray]:
        outputs = needed[0]
        if self.layer.activation not in ELEMENTWISE:
            outputs = np.full(len(outputs), outputs.any())
        return [self.reads[:, outputs].any(axis=1) & ~self.foldable]

    def _kernel(self) -> np.ndarray:
        kernel = _numpy(self.layer.kernel, np.float32)
        return kernel.reshape(-1, *kernel.shape[-2:])

    def _even(self, edges: bool) -> bool:
        return not edges or not sees_padding(self.layer, self.shape)

    def _value(self, bias: np.ndarray) -> np.ndarray:
        """What each output is where it is the same everywhere, else NaN."""
        known = np.where(self.foldable, np.nan_to_num(self.signal.value), 0.0)
        value = bias + self._of_constants(known)
        value[self.reads[~self.foldable].any(axis=0)] = np.nan
        if self.layer.activation not in ELEMENTWISE:
            return np.full(len(value), np.nan)
        return applied(self.layer.activation, value)

    def _of_constants(self, constants: np.ndarray) -> np.ndarray:
        """What inputs that are constants add to each output, in float64."""
        there = np.flatnonzero(constants)
        sums = self.kernel[:, there].sum(axis=0, dtype=np.float64)
        return constants[there] @ sums

    def settled_bias(self) -> np.ndarray:
        """The bias with the constants of the channels that go."""
        constants = np.zeros(len(self.signal.units))
        for channel, carrier, value in self.folds:
            if carrier is None:
                constants[channel] = value
        return self.bias + self._of_constants(constants)

    def settled_kernel(self, kernel: np.ndarray, axis: int) -> np.ndarray:
        """A weight tensor in which carriers took over what other constants add."""
        kernel = np.moveaxis(kernel, axis, 0)
        rows: dict[int, np.ndarray] = {}
        for channel, carrier, factor in self.folds:
            if carrier is not None:
                row = rows.setdefault(carrier, kernel[carrier].astype(np.float64))
                row += factor * kernel[channel]
        for carrier, row in rows.items():
            kernel[carrier] = row
        return np.moveaxis(kernel, 0, axis)

    def narrowed(self, kept: Kept) -> Narrow:
        config, weights = self._cut(kept, np.take)
        config["units" if "units" in config else "filters"] = len(kept(self.outputs[0]))
        return config, weights

    def emptied(self, kept: Kept) -> Narrow:
        return self._cut(kept, _empty)

    def _cut(self, kept: Kept, cut: Cut) -> Narrow:
        config, outputs = self.layer.get_config(), kept(self.outputs[0])
        weights = self._kernels(kept(self.signal), outputs, cut)
        bias = cut(self.settled_bias(), outputs, 0)
        if self.layer.use_bias or bias.any():
            config["use_bias"] = True
            weights.append(bias)
        return config, weights

    def _kernels(
        self, inputs: np.ndarray, outputs: np.ndarray, cut: Cut
    ) -> list[np.ndarray]:
        kernel = self.settled_kernel(self.layer.get_weights()[0], -2)
        return [cut(cut(kernel, inputs, -2), outputs, -1)]


class Transposed(Product):
    """A transposed convolution: kernels are (positions, output, input)."""

    def _kernel(self) -> np.ndarray:
        kernel = _numpy(self.layer.kernel, np.float32)
        return kernel.reshape(-1, *kernel.shape[-2:]).transpose(0, 2, 1)

    def _even(self, edges: bool) -> bool:
        # Strides give every output weights of its own, inside as well as at edges.
        extents = self.layer.strides + (self.layer.kernel_size if edges else ())
        return set(extents) == {1}

    def _kernels(
        self, inputs: np.ndarray, outputs: np.ndarray, cut: Cut
    ) -> list[np.ndarray]:
        kernel = self.settled_kernel(self.layer.get_weights()[0], -1)
        return [cut(cut(kernel, inputs, -1), outputs, -2)]


class Separable(Product):
    """A depthwise and a pointwise convolution in one layer."""

    merges = False

    def _kernel(self) -> np.ndarray:
        depthwise = _numpy(self.layer.depthwise_kernel, np.float32)
        depthwise = depthwise.reshape(-1, *depthwise.shape[-2:])
        pointwise = _numpy(self.layer.pointwise_kernel, np.float32)
        pointwise = pointwise.reshape(*depthwise.shape[1:], -1)
        return np.einsum("pcm,cmo->pco", depthwise, pointwise)

    def _kernels(
        self, inputs: np.ndarray, outputs: np.ndarray, cut: Cut
    ) -> list[np.ndarray]:
        depthwise, pointwise = self.layer.get_weights()[:2]
        multiplier = depthwise.shape[-1]
        middle = (inputs[:, None] * multiplier + np.arange(multiplier)).ravel()
        return [
            cut(depthwise, inputs, -2),
            cut(cut(pointwise, middle, -2), outputs, -1),
        ]


class Depthwise(Passage):
    """Every output reads one channel; output c * multiplier + m is of channel c."""

    def __init__(
        self, call: Call, inputs: list[Signal], units: Units, edges: bool = True
    ):
        super().__init__(call, inputs)
        layer, (signal,) = call.operation, inputs
        _check_state(layer)
        check_elementwise(layer.activation, "activation")
        _channel_axis(call, signal)
        kernel = _numpy(layer.kernel)
        multiplier = kernel.shape[-1]
        kernel = kernel.reshape(-1, kernel.shape[-2] * multiplier)
        given, numbers = (
            np.repeat(array, multiplier) for array in (signal.value, signal.units)
        )
        value = np.where(kernel.any(axis=0), given * kernel.sum(axis=0), 0.0)
        if edges and sees_padding(layer, self.shape):
            lost = np.isfinite(value) & (value != 0)
            value[lost] = np.nan
            self.blocks(signal, lost.reshape(-1, multiplier).any(axis=1), edge(layer))
        if layer.use_bias:
            value = value + _numpy(layer.bias)
        value = applied(layer.activation, value)
        self.outputs = [Signal(signal.axis, numbers, value)]

    def needs(self, needed: list[np.ndarray]) -> list[np.ndarray]:
        count = len(self.inputs[0].units)
        return [self.varying(needed).reshape(count, -1).any(axis=1)]

    def narrowed(self, kept: Kept) -> Narrow:
        kernel, *bias = self.layer.get_weights()
        narrow = [kernel[..., kept(self.inputs[0]), :]]
        narrow += [array[kept(self.outputs[0])] for array in bias]
        return self.layer.get_config(), narrow


def edge(layer: keras.Layer) -> str:
    """Why a layer makes a constant differ by position."""
    how = getattr(layer, "padding", "valid")
    return f"{layer.name} sees where its constant ends (padding={how!r})"


def _channel_axis(call: Call, signal: Signal) -> int:
    rank = len(call.outputs[0].shape)
    first = getattr(call.operation, "data_format", None) == "channels_first"
    axis = 1 if first else rank - 1
    if signal.axis != axis:
        raise NotUnderstood("it reads channels along another axis")
    return axis


def _check_state(layer: keras.Layer) -> None:
    if getattr(layer, "quantization_mode", None) is not None:
        raise NotUnderstood("quantized already")
    if getattr(layer, "lora_enabled", False):
        raise NotUnderstood("LoRA is enabled")
    if getattr(layer, "groups", 1) not in (1, None):
        raise NotUnderstood("grouped convolution")


PRODUCTS: dict[type, type[Product]] = {
    layers.Dense: Product,
    layers.Conv1D: Product,
    layers.Conv2D: Product,
    layers.Conv3D: Product,
    layers.Conv1DTranspose: Transposed,
    layers.Conv2DTranspose: Transposed,
    layers.Conv3DTranspose: Transposed,
    layers.SeparableConv1D: Separable,
    layers.SeparableConv2D: Separable,
    layers.DepthwiseConv1D: Depthwise,
    layers.DepthwiseConv2D: Depthwise,
}
"""Classes with a passage of their own; subclasses may compute something else."""
