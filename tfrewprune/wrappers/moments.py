# SPDX-License-Identifier: Apache-2.0
"""What an optimizer knows about a weight: the one place that reads its internals."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

#: Adam's default; keeps the measure of a weight without gradient above zero.
EPSILON = 1e-7


def inner_optimizer(model: keras.Model) -> keras.optimizers.Optimizer | None:
    """The optimizer that moves the weights, inside one that scales the loss."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def trains(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether it is built for the weight."""
    return optimizer.built and (
        optimizer._var_key(variable) in optimizer._trainable_variables_indices
    )


def second_moment(optimizer: keras.optimizers.Optimizer, variable: keras.Variable):
    """Mean of a weight's squared gradient: float32, shaped like the weight.

    Corrected for its start, as Adam's step is. In a step it is that step's, as a
    constraint sees it: after the update, before the steps are counted.

    Returns:
        None where the optimizer keeps none (SGD, Lion, Muon of matrices), or not yet.
    """
    for name, mean_square in MEAN_SQUARES.items():
        kept = _kept(optimizer, name, variable)
        if kept is not None:
            return mean_square(optimizer, kept)
    return None


def gradient_scale(optimizer: keras.optimizers.Optimizer, variable: keras.Variable):
    """Usual size of a weight's gradient: a tensor, of one number where no more is kept.

    Of optimizers that keep nothing but the mean gradient, whose direction alone they
    follow, its root mean square.

    Returns:
        None where the optimizer keeps none (SGD), or not yet.
    """
    moment = second_moment(optimizer, variable)
    if moment is not None:
        return ops.sqrt(moment)
    kind = _kind(optimizer)
    if kind == "Lion":
        decay, weight = optimizer.beta_2, 1.0
        mean = _kept(optimizer, "_momentums", variable)
    elif kind == "Muon":
        decay, weight = optimizer.momentum, 1.0 - optimizer.momentum
        mean = _kept(optimizer, "momentums", variable)
    else:
        return None
    if mean is None:
        return None
    return _rms(mean) * weight / _seen(optimizer, decay)


def measure_of(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable, weights
):
    """What the optimizer divides a weight's gradient by, besides the learning rate.

    The root of Adam's second moment, a tensor like the weights; where there is no more
    one number for all of them: for SGD 1 - momentum, as a steady gradient moves a
    weight 1 / (1 - momentum) times as far.

    Args:
        optimizer: One that is built.
        variable: The weights.
        weights: Their value, which a constraint on JAX does not find in `variable`.
    """
    scale = gradient_scale(optimizer, variable)
    stride = _stride(optimizer, variable, weights)
    return 1.0 / stride if scale is None else (scale + EPSILON) / stride


def reach(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable, pull: float
) -> float:
    """How far a step carries a weight on which nothing but `pull`, a gradient, acts.

    So far do weights jump about zero when a penalty holds them there.
    """
    rate = _rate(optimizer)
    sums = _kept(optimizer, "_accumulators", variable)
    if sums is not None:
        return rate * pull / math.hypot(_number(ops.sqrt(sums)), pull)
    stride = rate * _number(_stride(optimizer, variable, variable.value))
    if gradient_scale(optimizer, variable) is None:
        return stride * pull
    return stride  # whatever the gradient


def step_of_gradient(optimizer: keras.optimizers.Optimizer) -> float | None:
    """How far a gradient of 1 carries a weight in the first step.

    Returns:
        None where steps depend on more than the gradient: all optimizers but SGD.
    """
    if not isinstance(optimizer, keras.optimizers.SGD):
        return None
    return _rate(optimizer)


def _running(optimizer, kept):
    decay = getattr(optimizer, "beta_2", getattr(optimizer, "adam_beta_2", None))
    return kept if decay is None else kept / _seen(optimizer, decay)


def _mean_of_sum(optimizer, kept):
    gradients = ops.maximum(kept - optimizer.initial_accumulator_value, 0.0)
    return gradients / _count(optimizer)


#: What optimizers keep of a weight's gradient, and the mean square that it tells.
MEAN_SQUARES: dict[str, Callable] = {
    "_velocities": _running,  # Adam and its relatives, RMSprop
    "adam_velocities": _running,  # Muon, of all but matrices
    "_u": lambda _, kept: ops.square(kept),  # Adamax: the largest of late
    "_v": lambda _, kept: kept,  # Adafactor
    "_accumulated_grads": lambda _, kept: kept,  # Adadelta
    "_accumulators": _mean_of_sum,  # Adagrad, Ftrl
}


def _adadelta(optimizer, variable, weights):
    return ops.sqrt(
        _kept(optimizer, "_accumulated_delta_vars", variable) + optimizer.epsilon
    )


def _adafactor(optimizer, variable, weights):
    rate = ops.cast(optimizer.learning_rate, "float32")
    most = 1.0 / (rate * ops.sqrt(_count(optimizer)))
    return ops.maximum(optimizer.epsilon_2, _rms(weights)) * ops.minimum(1.0, most)


def _of_sum(optimizer, variable, weights):
    sums = _kept(optimizer, "_accumulators", variable)
    return (gradient_scale(optimizer, variable) + EPSILON) / ops.sqrt(sums)


def _muon(optimizer, variable, weights):
    if _kept(optimizer, "adam_velocities", variable) is not None:
        return optimizer.adam_lr_ratio
    return optimizer.rms_rate or max(variable.shape) ** -0.5  # rms of an orthogonal one


#: Learning rates that a step carries a weight whose gradient is as usual, where not 1.
STRIDES: dict[str, Callable] = {
    "Adadelta": _adadelta,
    "Adafactor": _adafactor,
    "Adagrad": _of_sum,
    "Ftrl": _of_sum,
    "Lamb": lambda optimizer, variable, weights: _rms(weights),
    "Muon": _muon,
}


def _stride(optimizer, variable, weights):
    """What `STRIDES` says, and how much further momentum carries a weight."""
    kind = _kind(optimizer)
    if kind in STRIDES and trains(optimizer, variable):
        return STRIDES[kind](optimizer, variable, weights)
    return 1.0 / (1.0 - (getattr(optimizer, "momentum", None) or 0.0))


def _kind(optimizer: keras.optimizers.Optimizer) -> str:
    """Name of the optimizer's class, by which no version of Keras lacks one."""
    names = [parent.__name__ for parent in type(optimizer).__mro__]
    return next((name for name in names if name in (*STRIDES, "Lion")), names[0])


def _kept(optimizer, name: str, variable: keras.Variable):
    """What the optimizer keeps of a weight under a name, float32; None if nothing."""
    kept = getattr(optimizer, name, None)
    if not kept or not trains(optimizer, variable):
        return None
    value = kept[optimizer._get_variable_index(variable)]
    return None if value is None else ops.cast(ops.convert_to_tensor(value), "float32")


def _count(optimizer):
    """The present step, from 1."""
    return ops.cast(optimizer.iterations, "float32") + 1


def _seen(optimizer, decay):
    """Share of its end that a running mean, which starts at zero, has come to."""
    return 1 - ops.power(ops.cast(decay, "float32"), _count(optimizer))


def _rms(tensor):
    return ops.sqrt(ops.mean(ops.square(ops.cast(tensor, "float32"))))


def _number(tensor) -> float:
    return float(np.mean(ops.convert_to_numpy(tensor)))


def _rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate as it is now, also of a schedule."""
    return float(ops.convert_to_numpy(optimizer.learning_rate))
