# SPDX-License-Identifier: Apache-2.0
"""What an optimizer knows about a weight: the one place that reads its internals."""

from __future__ import annotations

import keras
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
    """Running mean of a weight's squared gradient: float32, shaped like the weight.

    Corrected for its start at zero, as Adam's step is. In a step it is that step's, as
    a constraint sees it: after the update, before the steps are counted.

    Returns:
        None where the optimizer keeps none (SGD), or not yet.
    """
    moments = getattr(optimizer, "_velocities", None)  # Adam and its relatives
    if not moments or not trains(optimizer, variable):
        return None
    moment = moments[optimizer._get_variable_index(variable)]
    moment = ops.cast(ops.convert_to_tensor(moment), "float32")
    decay = getattr(optimizer, "beta_2", None)
    if decay is None:  # RMSprop does not correct
        return moment
    count = ops.cast(optimizer.iterations, "float32") + 1
    return moment / (1 - ops.power(ops.cast(decay, "float32"), count))


def measure_of(optimizer: keras.optimizers.Optimizer, variable: keras.Variable):
    """What the optimizer divides a weight's gradient by, besides the learning rate.

    The root of its second moment, a tensor; for SGD 1 - momentum, a number, as a
    steady gradient moves the weight 1 / (1 - momentum) times as far.
    """
    moment = second_moment(optimizer, variable)
    if moment is not None:
        return ops.sqrt(moment) + EPSILON
    return 1.0 - (getattr(optimizer, "momentum", None) or 0.0)


def reach(optimizer: keras.optimizers.Optimizer, pull: float) -> float:
    """How far a step carries a weight on which nothing but `pull`, a gradient, acts.

    So far do weights jump about zero when a penalty holds them there.
    """
    rate = _rate(optimizer)
    if getattr(optimizer, "_velocities", None):
        return rate  # whatever the gradient
    return rate * pull / (1.0 - (getattr(optimizer, "momentum", None) or 0.0))


def step_of_gradient(optimizer: keras.optimizers.Optimizer) -> float | None:
    """How far a gradient of 1 carries a weight in the first step.

    Returns:
        None where steps depend on more than the gradient: all optimizers but SGD.
    """
    if not isinstance(optimizer, keras.optimizers.SGD):
        return None
    return _rate(optimizer)


def _rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate as it is now, also of a schedule."""
    return float(ops.convert_to_numpy(optimizer.learning_rate))
