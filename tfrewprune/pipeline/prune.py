# SPDX-License-Identifier: Apache-2.0
"""Hard pruning: choose which groups survive, set the mask, zero the rest."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import keras
import numpy as np
from keras import ops

from tfrewprune.calibration.recovery import Recovery
from tfrewprune.caller import warn_caller
from tfrewprune.methods import Magnitude
from tfrewprune.pipeline.summary import layer_row
from tfrewprune.recipe import Recipe
from tfrewprune.rows import LayerRow
from tfrewprune.wrappers.attachment import detach_penalty, set_masks
from tfrewprune.wrappers.moments import inner_optimizer
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.selection import Kernels, Masks, Notes, select_groups
from tfrewprune.wrappers.steps import synchronize
from tfrewprune.wrappers.targets import Target

#: Share of the energy, sum w^2, that a cut keeps at least where a penalty has emptied
#: what it removes: 0.87 to 1.00 under all of Keras' optimizers. Where the penalty did
#: nothing a fourth of the weights keeps 0.35 to 0.5.
ENERGY = 0.7


def hard_prune(
    model: keras.Model,
    recipe: Recipe,
    *,
    data: Any = None,
    refit: bool = True,
    batch_norm: bool = False,
) -> list[LayerRow]:
    """Removes groups as the recipe says: sets masks, zeroes weights, drops penalties.

    Which groups a kernel keeps is decided by its rule's `rate` (the kernel's groups of
    largest rms), else by the recipe's `rate` as a budget over the remaining kernels
    together, else by the `threshold` on the rms, so that the strength of the preceding
    penalty decides. A budget compares groups of different kernels by their LAMP score
    (`lamp_scores`); with `budget="macs"` by score per multiplication saved.

    From then on every training step keeps the removed weights at exactly 0.0.

    Args:
        model: A built model; `attach`ed, `wrap`ped or plain.
        recipe: What to remove.
        data: Unlabelled inputs, 100 to 1,000, with which to make up for the cut; None
            leaves it as it is. An array, a list or dict of arrays, a `.npy` or `.npz`
            file, or a data set of batches.
        refit: With `data`: what is left of each kernel, and its bias, is set by least
            squares so that its outputs come nearest to the dense ones. That is worth
            more than any criterion: 12 % to 74 % on a ResNet-8 at 2x.
        batch_norm: With `data`: moving means and variances follow the cut. For a cut
            without a refit; after one they are a point worse than left alone.

    Returns:
        One `LayerRow` a layer; `note` reports what was not as asked for.

    Raises:
        ValueError: Data that do not fit the model; NaN or infinite weights; a recipe
            that names no layer; no rate for a method without a penalty; a MACs budget
            without fixed shapes.

    Warns:
        UserWarning: Nothing was removed; a penalty had no effect on the training
            that went before, or the cut takes much that it did not empty.
    """
    targets = resolve(model, recipe)
    chosen = [target for target in targets if target.reason is None]
    synchronize(target.layer for target in chosen)
    check_finite(model)
    kernels = {target.path_key: target.kernel() for target in chosen}
    notes: Notes = defaultdict(list)
    masks = select_groups(targets, kernels, recipe, notes)
    _check_penalties(chosen, notes)
    _check_emptied(chosen, kernels, masks, notes)
    _check_scores(model, chosen, recipe, notes)
    recovery = None
    if data is not None and (refit or batch_norm):
        recovery = Recovery(model, targets, data)
    set_masks(model, chosen, masks)
    detach_penalty(model)
    if recovery is not None and refit:
        for key, remark in recovery.refit().items():
            notes[key].append(remark)
    if recovery is not None and batch_norm:
        recovery.adapt_normalizations()
    rows = [
        layer_row(
            target, "; ".join(notes[target.path_key]) or None if target.spec else None
        )
        for target in targets
    ]
    if all(row.kept == row.weights for row in rows if row.reason is None):
        warn_caller(
            "hard_prune removed nothing. Give the rules or the recipe a `rate` "
            "(Recipe(rate=8)), a larger `threshold`, or train longer under a larger "
            "`strength`.",
        )
    return rows


def first_cut(model: keras.Model, recipe: Recipe) -> None:
    """Cuts a model to `recipe.start_rate` by magnitude, before a method takes over.

    Rules of a smaller rate are cut to theirs. A model that is cut further stays as it
    is.
    """
    start = recipe.start_rate
    if start == 1:
        return
    rules = [
        rule
        if rule.rate is None
        else dataclasses.replace(rule, rate=min(rule.rate, start))
        for rule in recipe.rules
    ]
    cut = recipe.replace(
        rules=rules,
        rate=start,
        start_rate=1,
        threshold=None,
        constraints=None,
        method=Magnitude(),
    )
    hard_prune(model, cut)


def mask_zeros(model: keras.Model, recipe: Recipe) -> list[LayerRow]:
    """Masks the groups that are zero already, so that training keeps them so.

    For `masked_retrain` of a model that was pruned elsewhere: by `prune_one_shot`, in
    an earlier session, with another library.

    Args:
        model: A built model.
        recipe: Which layers, and by which structures; rates do not count.

    Returns:
        One `LayerRow` a layer.

    Raises:
        ValueError: A recipe that names no layer; NaN weights.

    Example:

    >>> result = prune_one_shot(model, images, rate=2)
    >>> mask_zeros(result.model, result.recipe)
    >>> result.model.compile("adam", "sparse_categorical_crossentropy")
    >>> masked_retrain(result.model, result.recipe, x, y)
    """
    targets = resolve(model, recipe)
    chosen = [target for target in targets if target.reason is None]
    synchronize(target.layer for target in chosen)
    check_finite(model)
    masks = {
        target.path_key: target.structure.surviving_groups(target.kernel())
        for target in chosen
    }
    set_masks(model, chosen, masks)
    return [layer_row(target) for target in targets]


def check_finite(model: keras.Model) -> None:
    """Refuses a model with NaN or infinite weights, pruned layers or not.

    Raises:
        ValueError: Names the variables.
    """
    broken = []
    for variable in model.weights:
        if keras.backend.is_float_dtype(variable.dtype):
            values = ops.convert_to_numpy(variable.value).astype(np.float64)
            if count := int(values.size - np.isfinite(values).sum()):
                broken.append(f"{variable.path} ({count} of {values.size})")
    if broken:
        raise ValueError(
            f"The model has NaN or infinite weights: {', '.join(broken)}. Restore a "
            "good checkpoint or lower the learning rate before pruning."
        )


def _check_emptied(
    targets: list[Target], kernels: Kernels, masks: Masks, notes: Notes
) -> None:
    """Tells of groups that training under a penalty should have emptied, and has not.

    Without a word a phase that did nothing looks like one that did: the rate is met.
    """
    cut = left = 0
    before = after = 0.0
    for target in targets:
        penalty, kernel = target.penalty, kernels[target.path_key]
        if penalty is None or not (penalty.felt and penalty.strength):
            continue
        structure, shape, keep = target.structure, target.shape, masks[target.path_key]
        rms = structure.rms(kernel, shape)
        full = ~keep & structure.left(rms, shape, penalty.method.negligible)
        energy = np.square(kernel)
        share = energy[structure.mask(keep, shape)].sum() / max(energy.sum(), 1e-30)
        cut, left = cut + (~keep).sum(), left + full.sum()
        before, after = before + energy.sum(), after + share * energy.sum()
        if share < ENERGY:
            notes[target.path_key].append(
                f"{full.sum()} of the {(~keep).sum()} groups that were cut were not "
                f"empty ({100 * share:.0f} % of the energy kept)"
            )
    if after < ENERGY * before:
        warn_caller(
            f"{left} of the {cut} groups that were cut were not empty "
            f"({100 * after / before:.0f} % of the energy kept): training under the "
            "penalty has not emptied what the rate removes. Train longer before the "
            "cut, with a larger learning rate, or ask for a lower rate."
        )


def _check_scores(
    model: keras.Model, targets: list[Target], recipe: Recipe, notes: Notes
) -> None:
    """Notes kernels of a budget for which the optimizer that trained knows no score."""
    optimizer = inner_optimizer(model)
    fisher = recipe.method.gradual and recipe.method.score == "fisher"
    if not fisher or optimizer is None or not optimizer.built:
        return
    shared = [target for target in targets if target.rule.rate is None]
    if any(target.squared_gradient(optimizer) is None for target in shared):
        for target in shared:
            notes[target.path_key].append(
                f"{type(optimizer).__name__} keeps no second moment of each weight's "
                'gradient: score="fisher" was "lamp"'
            )


def _check_penalties(targets: list[Target], notes: Notes) -> None:
    """Warns of penalties that had no effect; notes layers that had none at all."""
    penalties = [t.penalty for t in targets if t.penalty is not None]
    moved = [
        t.penalty
        for t in targets
        if t.penalty is not None
        and t.penalty.strength
        and t.penalty.moved(t.variable.value)
    ]
    if moved and not any(penalty.felt or penalty.reported for penalty in moved):
        warn_caller(
            "The weights have changed since attach(), but no training step has asked "
            "for the gradient of a penalty: the loop leaves out `sum(model.losses)`, "
            "or its step was traced before attach().",
        )
    elif any(p.state and p.felt and p.refreshes <= 1 for p in moved):
        warn_caller(
            "The penalty weights were never refreshed during training. Add the "
            "callback Reweight(), or call its on_epoch_begin and on_train_batch_begin "
            "in a loop of your own.",
        )
    for target in targets:
        if penalties and target.penalty is None:
            if target.mask is None or target.mask.groups is None:
                notes[target.path_key].append("had no penalty: cut by magnitude alone")
