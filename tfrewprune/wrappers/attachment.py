# SPDX-License-Identifier: Apache-2.0
"""Penalty and mask on a model's own variables, without cloning it."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
from keras import ops

from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.regularizer import regularizer_for
from tfrewprune.wrappers.targets import Target, hooked_kernels, resolve


def attach(model: keras.Model, recipe: Recipe) -> list[Target]:
    """Puts the recipe's penalty on a built model, in place.

    Works on every kind of model and nesting, Sequential, functional and subclassed: the
    penalty becomes `variable.regularizer`, nothing else of the model changes, and its
    optimizer stays valid. Layer names, `.keras` files and `load_weights` are as before.
    Saved to `.keras`, the penalty (and after `hard_prune` the mask) comes back with the
    layers' configs; the penalty weights alpha are recomputed from the weights. Use
    `wrap` instead to have alpha saved too.

    Args:
        model: A built `keras.Model`.
        recipe: What to penalize.

    Returns:
        One `Target` a kernel, with the reason for each one left dense.

    Raises:
        ValueError: The recipe names no layer, or leaves nothing to prune.
    """
    targets = resolve(model, recipe)
    for target in targets:
        if target.reason is None:
            attach_target(model, target, recipe)
    reset_functions(model)
    return targets


def attach_target(model: keras.Model, target: Target, recipe: Recipe) -> None:
    """Puts the recipe's penalty on one kernel."""
    existing = target.variable.regularizer
    if target.penalty is not None:
        existing = target.penalty.existing
    if not recipe.method.penalized:
        target.spec.set_regularizer(target.layer, existing)
        return
    strength = target.rule.strength
    regularizer = regularizer_for(
        recipe.method,
        target.rule.structure,
        recipe.strength if strength is None else strength,
        target.spec.layout,
        existing,
    )
    with variable_scope(model):
        regularizer.refresh(target.variable.value)
    target.spec.set_regularizer(target.layer, regularizer)


def detach_penalty(model: keras.Model) -> None:
    """Takes the penalties off again; masks stay."""
    for target in hooked_kernels(model):
        if target.penalty is not None:
            target.spec.set_regularizer(target.layer, target.penalty.existing)
    reset_functions(model)


def detach_mask(model: keras.Model) -> None:
    """Takes the masks off again, after a last application; penalties stay."""
    apply_masks(model)
    for target in hooked_kernels(model):
        if target.mask is not None:
            target.spec.set_constraint(target.layer, target.mask.existing)
    reset_functions(model)


def apply_masks(model: keras.Model) -> None:
    """Sets every masked weight to exactly 0.0 now.

    The optimizer does it after each update. Weights that are written by anything else
    (an exponential moving average at the end of training, `set_weights`) need this.
    """
    for target in hooked_kernels(model):
        if target.mask is not None:
            mask = target.mask.weight_mask(target.variable.shape)
            weights = ops.convert_to_numpy(target.variable.value)
            if (weights[~mask] != 0).any():
                target.variable.assign(np.where(mask, weights, np.zeros_like(weights)))


def reset_functions(model: keras.Model) -> None:
    """Makes the model trace its training and test steps anew.

    Penalties and masks are part of the traced steps; steps compiled before a change
    would go on without it.
    """
    for name in ("train_function", "test_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)


def variable_scope(model: keras.Model):
    """Context in which variables are created that the model's step reads."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()
