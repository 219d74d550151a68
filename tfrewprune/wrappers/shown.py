# SPDX-License-Identifier: Apache-2.0
"""Masks that a compiled step on JAX can see change.

Keras' trainer on JAX passes constraints nothing but the optimizer's variables; any
other mask is a constant of the step, and a new one compiles the step anew. While masks
change every few steps the optimizer therefore holds them. Not for longer: it would save
them with its own variables, and a file would not load into an optimizer without.
"""

from __future__ import annotations

import keras

from tfrewprune.wrappers.moments import inner_optimizer
from tfrewprune.wrappers.steps import holders
from tfrewprune.wrappers.targets import Target, hooked_kernels


def show_masks(model: keras.Model) -> None:
    """Has the model's optimizer hold the masks; idempotent, nothing but on JAX."""
    optimizer = inner_optimizer(model)
    if keras.backend.backend() != "jax" or optimizer is None:
        return
    if not optimizer.built:
        model.optimizer.build(model.trainable_variables)
    for variable in _masks(hooked_kernels(model)):
        if not _holds(optimizer, variable):
            optimizer._track_variable(variable)


def hide_masks(model: keras.Model) -> None:
    """Takes the masks from the optimizer again; steps are compiled anew."""
    optimizer = inner_optimizer(model)
    if keras.backend.backend() != "jax" or optimizer is None:
        return
    for variable in _masks(hooked_kernels(model)):
        if _holds(optimizer, variable):
            optimizer._tracker.untrack(variable)


def unseen(model: keras.Model, targets: list[Target]) -> list[Target]:
    """The kernels whose masks some compiled step would not see change."""
    if keras.backend.backend() != "jax":
        return []
    models = [model, *holders(owner for target in targets for owner in target.owners)]
    optimizers = [
        inner_optimizer(found)
        for found in models
        if getattr(found, "train_function", None) is not None
    ]
    return [
        target
        for target in targets
        if not all(
            optimizer is not None and _holds(optimizer, variable)
            for optimizer in optimizers
            for variable in _masks([target])
        )
    ]


def _masks(targets: list[Target]) -> list[keras.Variable]:
    found = [mask.variable for target in targets for _, mask in target.masks]
    return [variable for variable in found if variable is not None]


def _holds(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    return any(held is variable for held in optimizer.variables)
