# SPDX-License-Identifier: Apache-2.0
"""Hard pruning: choose which groups survive, set the mask, zero the rest."""

from __future__ import annotations

import warnings
from collections import defaultdict

import keras
import numpy as np
from keras import ops

from tfrewprune.pipeline.summary import LayerRow, layer_row
from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.attachment import apply_masks, detach_penalty, set_mask
from tfrewprune.wrappers.kernels import macs_per_weight
from tfrewprune.wrappers.steps import rebuild_steps, synchronize
from tfrewprune.wrappers.targets import Target, resolve

#: Groups with a smaller rms are removed where neither a rate nor a threshold is given.
AUTOMATIC_THRESHOLD = 1e-3

#: What the user should know, by `Target.path_key`.
Notes = defaultdict[tuple, list[str]]


def hard_prune(model: keras.Model, recipe: Recipe) -> list[LayerRow]:
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

    Returns:
        One `LayerRow` a layer; `note` reports what was not as asked for.

    Raises:
        ValueError: NaN or infinite weights; a recipe that names no layer; no rate for a
            method without a penalty; a MACs budget without fixed shapes.

    Warns:
        UserWarning: Nothing was removed; or a penalty had no effect on the training
            that went before.
    """
    targets = resolve(model, recipe)
    chosen = [target for target in targets if target.reason is None]
    synchronize(target.layer for target in chosen)
    check_finite(model)
    kernels = {target.path_key: target.kernel() for target in chosen}
    notes: Notes = defaultdict(list)
    masks: dict[tuple, np.ndarray] = {}
    budgeted: list[Target] = []
    for target in chosen:
        kernel, key = kernels[target.path_key], target.path_key
        if target.rule.rate is not None:
            masks[key] = _by_rate(target, kernel, target.rule.rate, recipe, notes)
        elif recipe.rate is not None:
            budgeted.append(target)
        else:
            masks[key] = _by_threshold(target, kernel, recipe, notes)
        if target.note is not None:
            notes[key].append(target.note)
    if budgeted:
        masks.update(_by_budget(budgeted, kernels, recipe, notes))
    for target in chosen:
        kernel, key = kernels[target.path_key], target.path_key
        masks[key] = _without_zero_groups(target, kernel, masks[key], recipe, notes)
    _check_penalties(chosen, notes)
    unseen = [t.layer for t in chosen if set_mask(model, t, masks[t.path_key])]
    apply_masks(model)
    rebuild_steps(unseen)
    detach_penalty(model)
    rows = [
        layer_row(
            target, "; ".join(notes[target.path_key]) or None if target.spec else None
        )
        for target in targets
    ]
    if all(row.kept == row.weights for row in rows if row.reason is None):
        warnings.warn(
            "hard_prune removed nothing. Give the rules or the recipe a `rate` "
            "(Recipe(rate=8)), a larger `threshold`, or train longer under a larger "
            "`strength`.",
            stacklevel=2,
        )
    return rows


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


def _without_zero_groups(target, kernel, mask, recipe, notes: Notes) -> np.ndarray:
    """Groups that are zero already stay removed, whatever the rate would allow."""
    alive = target.structure.surviving_groups(kernel)
    idle = int((mask & ~alive).sum())
    if not idle:
        return mask
    if not alive.any():
        notes[target.path_key].append("all weights are zero already")
        return mask
    notes[target.path_key].append(
        f"{idle} of the {int(mask.sum())} groups it could keep are zero already"
    )
    enough = int((mask & alive).sum()) >= recipe.minimum_groups
    return mask & alive if enough else mask


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
    if moved and not any(penalty.felt for penalty in moved):
        warnings.warn(
            "The weights have changed since attach(), but no training step has asked "
            "for the gradient of a penalty: the loop leaves out `sum(model.losses)`, "
            "or its step was traced before attach().",
            stacklevel=3,
        )
    elif any(p.method.refreshed and p.felt and p.refreshes <= 1 for p in moved):
        warnings.warn(
            "The penalty weights were never refreshed during training. Add the "
            "callback Reweight(), or call its on_epoch_begin and on_train_batch_begin "
            "in a loop of your own.",
            stacklevel=3,
        )
    for target in targets:
        if penalties and target.penalty is None:
            if target.mask is None or target.mask.groups is None:
                notes[target.path_key].append("had no penalty: cut by magnitude alone")


def lamp_scores(energy: np.ndarray) -> np.ndarray:
    """Layer-adaptive score of every group: its share of the energy not larger-ranked.

    score_g = e_g / sum of e_h over all groups h with e_h >= e_g (ties in C order). The
    best group of a kernel scores 1, so a global ranking does not empty a kernel while
    others have more than one group left, and a kernel's scale does not matter. Source:
    Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021,
    section 3, with groups in place of weights.

    Args:
        energy: Mean square of every group.
    """
    flat = np.asarray(energy, np.float64).ravel()
    order = np.argsort(-flat, kind="stable")
    running = np.cumsum(flat[order])
    scores = np.zeros_like(flat)
    scores[order] = np.divide(
        flat[order], running, out=np.zeros_like(flat), where=running > 0
    )
    return scores.reshape(np.shape(energy))


def _by_rate(target, kernel, rate, recipe, notes: Notes) -> np.ndarray:
    """The groups of largest rms for as long as their weights fit into 1 / rate."""
    structure, shape = target.structure, target.shape
    rms = structure.rms(kernel, shape)
    order = np.argsort(-rms, axis=None, kind="stable")
    weights = np.cumsum(structure.group_sizes(shape).ravel()[order])
    allowed = shape.weights / rate * (1 + 1e-9)
    asked = int(np.searchsorted(weights, allowed, side="right"))
    keep = min(rms.size, max(asked, recipe.minimum_groups))
    if keep > asked:
        notes[target.path_key].append(
            f"rate {rate:g} would keep {asked} of {rms.size} groups; kept {keep} "
            f"(minimum_groups={recipe.minimum_groups})"
        )
    return structure.select(rms, shape, keep)


def _by_threshold(target, kernel, recipe, notes: Notes) -> np.ndarray:
    threshold = AUTOMATIC_THRESHOLD if recipe.threshold is None else recipe.threshold
    structure, shape = target.structure, target.shape
    rms = structure.rms(kernel, shape)
    count, above = rms.size, int((rms >= threshold).sum())
    keep = min(count, max(above, recipe.minimum_groups))
    if keep > above:
        notes[target.path_key].append(
            f"only {above} of {count} groups have rms >= {threshold:g}; kept {keep} "
            f"(minimum_groups={recipe.minimum_groups})"
        )
    elif keep == count:
        notes[target.path_key].append(
            f"no group has rms < {threshold:g}: nothing removed"
        )
    return structure.select(rms, shape, keep)


def _by_budget(targets, kernels, recipe, notes: Notes) -> dict[tuple, np.ndarray]:
    """Keeps the best groups of all targets together within the budget.

    The groups each kernel must keep come first; then groups enter in order of score per
    cost for as long as the budget holds them.
    """
    scores, costs, owners, required = [], [], [], []
    for index, target in enumerate(targets):
        structure, shape = target.structure, target.shape
        rms = structure.rms(kernels[target.path_key], shape)
        per_weight = 1.0
        if recipe.budget == "macs":
            per_weight = float(macs_per_weight(target.layer, target.spec.layout))
        cost = structure.group_sizes(shape).ravel() * per_weight
        score = lamp_scores(np.square(rms)).ravel() / per_weight
        first = np.argsort(-rms, axis=None, kind="stable")[: recipe.minimum_groups]
        must = np.zeros(rms.size, bool)
        must[first] = True
        scores.append(score)
        costs.append(cost)
        required.append(must)
        owners.append(np.full(rms.size, index))
    score, cost = np.concatenate(scores), np.concatenate(costs)
    must, owner = np.concatenate(required), np.concatenate(owners)
    order = np.lexsort((np.arange(score.size), -score, ~must))
    spent = np.cumsum(cost[order])
    kept = np.zeros(score.size, bool)
    kept[order] = (spent <= cost.sum() / recipe.rate * (1 + 1e-12)) | must[order]
    if cost[must].sum() > cost.sum() / recipe.rate:
        for target in targets:
            notes[target.path_key].append(
                f"minimum_groups={recipe.minimum_groups} alone exceeds the budget of "
                f"rate {recipe.rate:g}"
            )
    masks = {}
    for index, target in enumerate(targets):
        rms = target.structure.rms(kernels[target.path_key], target.shape)
        keep = int(kept[owner == index].sum())
        masks[target.path_key] = target.structure.select(rms, target.shape, keep)
    return masks
