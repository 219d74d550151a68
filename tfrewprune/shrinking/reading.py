# SPDX-License-Identifier: Apache-2.0
"""What each call of a model does with channels; what is not understood stays."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from tfrewprune.channels.units import Units
from tfrewprune.shrinking.passages import (
    MERGES,
    Beside,
    NotUnderstood,
    Passage,
    Plus,
    Reshaped,
    Through,
    Together,
    Vectors,
    applied,
    check_elementwise,
    opaque,
    whole,
)
from tfrewprune.shrinking.products import PRODUCTS
from tfrewprune.shrinking.signals import Signal
from tfrewprune.wrappers.graph import Call, calls_of, is_functional

layers = keras.layers


def _named(*names: str) -> tuple[type, ...]:
    """The layer classes of these names, of ranks 1 to 3 where a name ends in `ND`."""
    found = []
    for name in names:
        ranks = "123" if name.endswith("ND") else ""
        labels = [f"{name[:-2]}{rank}D" for rank in ranks] or [name]
        found += [getattr(layers, x) for x in labels if hasattr(layers, x)]
    return tuple(found)


_SAME = _named(
    *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout"),
    *("GaussianNoise", "Identity", "SpatialDropoutND"),
)
_SPATIAL = _named(
    *("AveragePoolingND", "MaxPoolingND", "GlobalAveragePoolingND"),
    *("GlobalMaxPoolingND", "CroppingND", "UpSamplingND"),
)
_PADDING = _named("ZeroPaddingND")
_FUNCTIONS = _named("ReLU", "LeakyReLU", "ELU")
_OPERATORS = {
    name.title().replace("_", ""): getattr(ops, name)
    for name in (
        *("relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "elu", "leaky_relu"),
        *("softplus", "hard_sigmoid", "hard_silu", "abs", "square", "exp", "negative"),
    )
    if getattr(ops, name, None) is not None
}


def read(
    model: keras.Model, units: Units, edges: bool = True, bypass: bool = True
) -> tuple[list[Passage], list[Signal]]:
    """The passages of a functional model in the order of execution.

    Args:
        model: A built functional or Sequential model.
        units: Gets the numbers of all channels.
        edges: Whether padding ends a constant. False takes what is a constant inside
            for one everywhere.
        bypass: Whether sums may lose the branches that are constants.

    Returns:
        The passages, and the channels of the model's outputs.
    """
    signals = {
        id(tensor): whole(tensor, units, "input of the model")
        for tensor in model.inputs
    }
    passages = []
    for call in calls_of(model):
        given = [signals[id(tensor)] for tensor in call.inputs]
        passage = _passage(call, given, units, edges, bypass)
        for tensor, signal in zip(call.outputs, passage.outputs, strict=True):
            signals[id(tensor)] = signal
        passages.append(passage)
    outputs = [signals[id(tensor)] for tensor in model.outputs]
    for signal in outputs:
        units.pin(signal.units, "output of the model")
    return passages, outputs


def _passage(
    call: Call, inputs: list[Signal], units: Units, edges: bool, bypass: bool
) -> Passage:
    try:
        if call.times > 1 and getattr(call.operation, "weights", None):
            raise NotUnderstood(f"called {call.times} times by the model")
        if len(call.outputs) != 1 or None in [
            tensor.shape[signal.axis] if tensor.shape else None
            for tensor, signal in zip(call.inputs, inputs, strict=True)
        ]:
            raise NotUnderstood("its channels cannot be followed")
        merge = _merge(call)
        if merge is not None:
            # A layer of several sums cannot give way to one of them.
            alone = bypass and call.times == 1
            sum_of_one = Plus.found(call, inputs, units, merge) if alone else None
            return sum_of_one or Together.of(call, inputs, units, merge)
        if isinstance(call.operation, keras.Layer):
            return _layer(call, inputs, units, edges)
        return _operator(call, inputs, units)
    except NotUnderstood as reason:
        return opaque(call, inputs, units, str(reason))


def _merge(call: Call) -> Callable | None:
    """What a call does to several tensors channel by channel; None for others."""
    kind = type(call.operation)
    if kind.__name__ not in MERGES or len(call.inputs) < 2:
        return None
    layer = kind is getattr(layers, kind.__name__)
    operator = kind.__module__.startswith("keras.src.ops") and len(call.inputs) == 2
    return MERGES[kind.__name__] if layer or operator else None


def _layer(call: Call, inputs: list[Signal], units: Units, edges: bool) -> Passage:
    layer, kind = call.operation, type(call.operation)
    if isinstance(layer, keras.Model) and is_functional(layer):
        # Shrunk by itself; its inputs and outputs stay.
        raise NotUnderstood("a model inside")
    if kind is layers.Concatenate:
        return Beside.of(call, inputs, units)
    if len(inputs) != 1:
        raise NotUnderstood(f"{kind.__name__} of {len(inputs)} inputs")
    if call.kwargs.get("training"):
        raise NotUnderstood("called as in training")
    if kind in PRODUCTS:
        return PRODUCTS[kind](call, inputs, units, edges)
    if kind is layers.Reshape and call.times > 1:
        raise NotUnderstood(f"called {call.times} times by the model")
    if kind in (layers.Flatten, layers.Reshape):
        return Reshaped.of(call, inputs, units)
    if kind in _SAME:
        return Through.of(call, inputs, units)
    if kind in _SPATIAL + _PADDING:
        axis = 1 if getattr(layer, "data_format", "") == "channels_first" else -1
        if inputs[0].axis != axis % len(call.inputs[0].shape):
            raise NotUnderstood("it reads channels along another axis")
        pads = f"{layer.name} puts zeros around it"
        pads = pads if edges and kind in _PADDING else None
        return Through.of(call, inputs, units, pads=pads)
    if kind is layers.Activation:
        check_elementwise(layer.activation, "activation")
        return Through.of(call, inputs, units, _constant(layer.activation))
    if kind in _FUNCTIONS:
        return Through.of(call, inputs, units, _constant(layer))
    if kind is layers.Rescaling and np.ndim(layer.scale) == np.ndim(layer.offset) == 0:
        return Through.of(call, inputs, units, _constant(layer))
    if kind is layers.BatchNormalization:
        return Vectors.of(call, inputs, units, _normalized(layer, inputs[0], call))
    if kind is layers.PReLU:
        return Vectors.of(call, inputs, units, _parametric(layer, inputs[0], call))
    raise NotUnderstood(f"layer class {kind.__name__} is not known to shrink")


def _operator(call: Call, inputs: list[Signal], units: Units) -> Passage:
    name = type(call.operation).__name__
    ours = type(call.operation).__module__.startswith("keras.src.ops")
    if ours and name in MERGES and len(call.args) == 2 and not call.kwargs:
        other = next(a for a in call.args if not isinstance(a, keras.KerasTensor))
        if np.ndim(other) == 0:
            return Through.of(call, inputs, units, _with_number(call, name))
    if ours and name in _OPERATORS and len(inputs) == 1:
        return Through.of(call, inputs, units, _constant(call.operation))
    raise NotUnderstood(f"operator {name} is not known to shrink")


def _constant(function: Callable) -> Callable[[np.ndarray], np.ndarray]:
    return lambda value: applied(function, value)


def _with_number(call: Call, name: str) -> Callable[[np.ndarray], np.ndarray]:
    def change(value: np.ndarray) -> np.ndarray:
        sides = [
            value
            if isinstance(side, keras.KerasTensor)
            else np.full(len(value), float(ops.convert_to_numpy(side)))
            for side in call.args
        ]
        return MERGES[name](np.array(sides))

    return change


def _normalized(
    layer: keras.layers.BatchNormalization, signal: Signal, call: Call
) -> Callable[[np.ndarray], np.ndarray]:
    if layer.axis % len(call.inputs[0].shape) != signal.axis:
        raise NotUnderstood("it normalizes another axis than that of the channels")
    values = {
        name: ops.convert_to_numpy(getattr(layer, name).value).astype(np.float64)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
        if getattr(layer, name, None) is not None
    }
    scale = values.get("gamma", 1.0) / np.sqrt(
        values["moving_variance"] + layer.epsilon
    )
    shift = values.get("beta", 0.0) - values["moving_mean"] * scale
    # A scale of 0 makes a constant of whatever comes.
    return lambda value: np.where(scale == 0, shift, value * scale + shift)


def _parametric(
    layer: keras.layers.PReLU, signal: Signal, call: Call
) -> Callable[[np.ndarray], np.ndarray]:
    alpha = ops.convert_to_numpy(layer.alpha.value)
    rank = len(call.inputs[0].shape)
    if signal.axis != rank - 1 or alpha.shape[-1] != len(signal.units):
        raise NotUnderstood("its slopes are not one a channel")
    flat = alpha.reshape(-1, alpha.shape[-1])
    slope = np.where((flat == flat[0]).all(axis=0), flat[0], np.nan)
    return lambda value: np.where(value >= 0, value, value * slope)
