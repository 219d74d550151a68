# SPDX-License-Identifier: Apache-2.0
"""The training phases: under the penalty, under the mask, towards levels."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from tfrewprune.pipeline.collapse import CollapseWatch
from tfrewprune.pipeline.distillation import Teacher, taught_by
from tfrewprune.pipeline.prune import first_cut
from tfrewprune.pipeline.steering import phase_callbacks
from tfrewprune.quantization import Stage
from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.attachment import (
    apply_masks,
    attach,
    check_method,
    detach_penalty,
)
from tfrewprune.wrappers.callbacks import Reweight, SparsityLogger
from tfrewprune.wrappers.leveled import attach_levels
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.selection import check_budget
from tfrewprune.wrappers.targets import hooked_kernels


def reweighted_train(
    model: keras.Model,
    recipe: Recipe,
    x=None,
    y=None,
    callbacks=None,
    *,
    first_epoch: int = 0,
    teacher: Teacher | keras.Model | None = None,
    **fit,
) -> keras.callbacks.History:
    """Trains under the recipe's method, so that groups empty themselves or go.

    Plain `model.fit` with callbacks: `Reweight`, `SparsityLogger`, `CollapseWatch`, and
    as the recipe needs it `StrengthControl` or `GradualPrune`. The penalties are those
    of `recipe`, whatever the model carried before (see `attach`).

    Args:
        model: A built and compiled model.
        recipe: What to remove, by which method, for how long.
        x: As in `fit`: arrays, a `tf.data.Dataset`, a `PyDataset`, ...
        y: As in `fit`.
        callbacks: More callbacks; their logs hold `sparsity`, `rate`, `penalty`
            and `strength`.
        first_epoch: Number of the first epoch, where epochs count on from an earlier
            phase; `epochs` then is that of the last.
        teacher: A model whose outputs the training follows beside the labels, or a
            `Teacher` that says how much.
        **fit: Passed to `fit`; `epochs` overrides `recipe.reweighted_epochs`.

    Returns:
        The history of `fit`; its attribute `collapsed` tells the layers that lost
        everything, by epoch.

    Raises:
        ValueError: The model is not compiled or not built, there is no data, or the
            recipe does not fit.
        TypeError: An argument that `fit` does not take.
    """
    check_compiled(model, "reweighted_train")
    check_data(x, "reweighted_train")
    check_fit_arguments(model, fit, "reweighted_train")
    check_trainable(model, recipe)
    watch = CollapseWatch(recipe)
    ours = [Reweight(recipe.refreshes, first_epoch), *phase_callbacks(recipe)]
    for clock in ours[1:]:
        clock.first_epoch = first_epoch
    ours += [SparsityLogger(), watch]
    span = (first_epoch, recipe.reweighted_epochs)
    with taught_by(model, teacher):
        first_cut(model, recipe)
        attach(model, recipe)
        history = _fit(model, x, y, [*ours, *(callbacks or [])], *span, fit)
    history.collapsed = watch.collapsed
    return history


def masked_retrain(
    model: keras.Model,
    recipe: Recipe,
    x=None,
    y=None,
    callbacks=None,
    *,
    first_epoch: int = 0,
    teacher: Teacher | keras.Model | None = None,
    **fit,
) -> keras.callbacks.History:
    """Trains the surviving weights of a hard-pruned model; the others stay 0.0.

    Args:
        model: A compiled model after `hard_prune`.
        recipe: Gives the number of epochs.
        x: As in `fit`.
        y: As in `fit`.
        callbacks: More callbacks; they see `sparsity` and `rate` in the logs.
        first_epoch: As in `reweighted_train`.
        teacher: As in `reweighted_train`.
        **fit: Passed to `fit`; `epochs` overrides `recipe.retrain_epochs`.

    Returns:
        The history of `fit`.

    Raises:
        ValueError: The model is not compiled or carries no mask, or there is no data.
        TypeError: An argument that `fit` does not take.
    """
    check_compiled(model, "masked_retrain")
    check_data(x, "masked_retrain")
    check_fit_arguments(model, fit, "masked_retrain")
    masks = [target.mask for target in hooked_kernels(model) if target.mask]
    if all(mask.groups is None for mask in masks):
        raise ValueError(
            "masked_retrain: the model carries no mask. Call hard_prune(model, recipe) "
            "first; after strip() the mask is gone. A subclassed model, an attention "
            "layer and most custom layers come from a .keras file without: call "
            "attach(model, recipe) and model.load_weights(file), or "
            "mask_zeros(model, recipe)."
        )
    # The logs of all phases have the same columns.
    counts = [SparsityLogger(), CollapseWatch(recipe, tell=False)]
    span = (first_epoch, recipe.retrain_epochs)
    with taught_by(model, teacher):
        detach_penalty(model)
        history = _fit(model, x, y, [*counts, *(callbacks or [])], *span, fit)
    apply_masks(model)
    return history


def levels_train(
    model: keras.Model,
    stage: Stage,
    x=None,
    y=None,
    callbacks=None,
    *,
    first_epoch: int = 0,
    teacher: Teacher | keras.Model | None = None,
    **fit,
) -> keras.callbacks.History:
    """Trains one stage of a quantization; afterwards its layers lie on their levels.

    Those of an `"admm"` stage do so after the rounds that follow it.

    Args:
        model: A compiled model.
        stage: One of `Quantization.stages`, in their order.
        x: As in `fit`.
        y: As in `fit`.
        callbacks: More callbacks.
        first_epoch: As in `reweighted_train`.
        teacher: As in `reweighted_train`.
        **fit: Passed to `fit`; `epochs` overrides the stage's.

    Returns:
        The history of `fit`.

    Raises:
        ValueError: The model is not compiled, there is no data, or the quantization
            does not fit.
        TypeError: An argument that `fit` does not take.
    """
    check_compiled(model, "levels_train")
    check_data(x, "levels_train")
    check_fit_arguments(model, fit, "levels_train")
    ours = [Reweight(stage.refreshes, first_epoch), SparsityLogger()]
    span = (first_epoch, stage.epochs)
    with taught_by(model, teacher):
        attach_levels(model, stage)
        return _fit(model, x, y, [*ours, *(callbacks or [])], *span, fit)


def _fit(
    model: keras.Model, x, y, callbacks: list, first: int, epochs: int, fit: dict
) -> keras.callbacks.History:
    """`model.fit` over so many epochs from `first` on, where `fit` says no others."""
    model._initial_epoch = None  # BackupAndRestore left it there in an earlier fit
    fit = {"initial_epoch": first, "epochs": first + epochs, **fit}
    return model.fit(x, y, callbacks=callbacks, **fit)


def check_compiled(model: keras.Model, caller: str) -> None:
    """Refuses a model without loss and optimizer, in the words of the caller."""
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"{caller}: the model is not compiled. Call model.compile(optimizer=..., "
            "loss=..., metrics=[...]) first."
        )


def check_trainable(model: keras.Model, recipe: Recipe) -> None:
    """Refuses a recipe that training under its method would, before any change.

    Raises:
        ValueError: As `resolve`, `check_budget` and `check_method`.
    """
    targets = resolve(model, recipe)
    check_budget(targets, recipe)
    check_method(targets, recipe.method)


def check_fit_arguments(model: keras.Model, fit: dict[str, Any], caller: str) -> None:
    """Refuses what `model.fit` does not take, in the words of the caller.

    Args:
        model: A model.
        fit: Arguments by name.
        caller: Name of the function that was called.
    """
    taken = inspect.signature(model.fit).parameters
    if any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        return
    for name in set(fit) - set(taken):
        raise TypeError(
            f"{caller}: model.fit takes no argument {name!r}. Expected any of "
            f"{', '.join(taken)}. Received: {name}={fit[name]!r}"
        )


def check_data(x, caller: str, otherwise: str = "") -> None:
    """Refuses to train without data, in the words of the caller.

    Args:
        x: Training data.
        caller: Name of the function that was called.
        otherwise: What else the caller would accept.
    """
    if x is None:
        raise ValueError(
            f"{caller}: no training data. Expected x (and y) as in model.fit"
            f"{otherwise}. Received: x=None"
        )
