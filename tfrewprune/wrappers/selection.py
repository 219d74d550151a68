# SPDX-License-Identifier: Apache-2.0
"""Which groups survive: by a rate of their own, a common budget, or a threshold."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tfrewprune.recipe import Recipe
from tfrewprune.structures import Structure
from tfrewprune.wrappers.kernels import macs_per_weight
from tfrewprune.wrappers.targets import Target

#: What the user should know, by `Target.path_key`.
Notes = defaultdict[tuple, list[str]]
Kernels = dict[tuple, np.ndarray]
Masks = dict[tuple, np.ndarray]


def select_groups(
    targets: list[Target],
    kernels: Kernels,
    recipe: Recipe,
    notes: Notes,
    comparable: bool = False,
) -> Masks:
    """Chooses the groups that each kernel keeps.

    Args:
        targets: The kernels to prune.
        kernels: Their weights, (positions, channels, outputs) each.
        recipe: Rates, budget or threshold.
        notes: Gets what is not as asked for.
        comparable: Whether a budget may compare what is in `kernels` across layers as
            it is, such as roots of what each weight costs in the loss. Else they are
            compared by `lamp_scores`.

    Returns:
        A boolean group mask a kernel. Groups that are zero already are not kept.
    """
    masks: Masks = {}
    budgeted: list[Target] = []
    for target in targets:
        kernel, key = kernels[target.path_key], target.path_key
        fixed = target.structure.fixed_rate(target.shape)
        asked = target.rule.rate or recipe.rate
        if fixed is not None and asked is not None and asked != fixed:
            notes[key].append(f"the structure alone decides its rate, {fixed:g}")
        if target.rule.rate is not None:
            masks[key] = _by_rate(target, kernel, target.rule.rate, recipe, notes)
        elif recipe.rate is not None:
            budgeted.append(target)
        else:
            masks[key] = _by_threshold(target, kernel, recipe, notes)
        if target.note is not None:
            notes[key].append(target.note)
    if budgeted:
        masks.update(_by_budget(budgeted, kernels, recipe, notes, comparable))
    return {
        target.path_key: _without_zero_groups(
            target, kernels[target.path_key], masks[target.path_key], recipe, notes
        )
        for target in targets
    }


def weight_cost(target: Target, recipe: Recipe) -> float:
    """What a weight of a kernel costs in the recipe's budget.

    Raises:
        ValueError: A budget of MACs, and the kernel's are not known.
    """
    if recipe.budget == "weights":
        return 1.0
    return float(macs_per_weight(target.layer, target.spec))


def check_budget(targets: list[Target], recipe: Recipe) -> None:
    """Refuses a budget that cannot be counted, before any time is spent.

    Raises:
        ValueError: As `weight_cost`.
    """
    for target in targets:
        if target.reason is None and target.rule.rate is None and recipe.rate:
            weight_cost(target, recipe)


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


def _by_rate(
    target: Target, kernel: np.ndarray, rate: float, recipe: Recipe, notes: Notes
) -> np.ndarray:
    structure, shape = target.structure, target.shape
    energy, allowed = np.square(kernel), shape.weights / rate
    keep = structure.choose(energy, allowed, recipe.minimum_groups)
    asked = structure.choose(energy, allowed)
    if keep.sum() > asked.sum():
        notes[target.path_key].append(
            f"rate {rate:g} would keep {asked.sum()} of {keep.size} groups; kept "
            f"{keep.sum()} (minimum_groups={recipe.minimum_groups})"
        )
    elif (kept := structure.kept(keep, shape)) > allowed * (1 + 1e-9):
        if structure.fixed_rate(shape) is None:
            notes[target.path_key].append(
                f"the structure keeps no fewer than {kept:,} weights at rate {rate:g}"
            )
    return keep


def _by_threshold(
    target: Target, kernel: np.ndarray, recipe: Recipe, notes: Notes
) -> np.ndarray:
    given = recipe.threshold
    threshold = recipe.method.threshold if given is None else given
    structure, shape = target.structure, target.shape
    rms, minimum = structure.rms(kernel, shape), recipe.minimum_groups
    above = structure.above(rms, shape, threshold)
    if above.sum() < minimum:
        keep = structure.select(rms, shape, structure.kept(above, shape), minimum)
        notes[target.path_key].append(
            f"only {above.sum()} of {above.size} groups have rms >= {threshold:g}; "
            f"kept {keep.sum()} (minimum_groups={minimum})"
        )
        return keep
    if structure.kept(above, shape) == shape.weights:
        notes[target.path_key].append(
            f"no group has rms < {threshold:g}: nothing removed"
        )
    return above


def _by_budget(
    targets: list[Target],
    kernels: Kernels,
    recipe: Recipe,
    notes: Notes,
    comparable: bool,
) -> Masks:
    """Keeps the best groups of all targets together within the budget.

    All groups are ranked together, those first that a kernel must keep, then by score
    per cost; the longest beginning of that ranking survives whose cost fits.
    """
    scores, cost_of_weight, ranking = [], [], []
    for target in targets:
        structure, shape = target.structure, target.shape
        rms = structure.scores(kernels[target.path_key], shape)
        cost = weight_cost(target, recipe)
        must = structure.select(rms, shape, 0, recipe.minimum_groups)
        energy = np.square(np.maximum(rms, 0))
        worth = energy if comparable else lamp_scores(energy)
        scores.append(rms)
        cost_of_weight.append(cost)
        ranking.append(np.where(must, np.inf, worth / cost).ravel())
    order = np.argsort(-np.concatenate(ranking), kind="stable")
    ranks = np.empty(order.size, np.int64)
    ranks[order] = np.arange(order.size)
    ranks = np.split(ranks, np.cumsum([len(part) for part in ranking])[:-1])

    def first(count: int) -> Masks:
        return {
            target.path_key: (rank < count).reshape(score.shape)
            for target, rank, score in zip(targets, ranks, scores, strict=True)
        }

    def kept(target: Target, score: np.ndarray, mask: np.ndarray) -> int:
        structure, shape = target.structure, target.shape
        weights = structure.kept(mask, shape)
        if structure.partition and type(structure).select is Structure.select:
            return weights
        # What such a structure makes of an allowance is its own affair.
        least = recipe.minimum_groups
        return structure.kept(structure.select(score, shape, weights, least), shape)

    def cost(masks: Masks) -> float:
        return sum(
            kept(target, score, masks[target.path_key]) * each
            for target, score, each in zip(targets, scores, cost_of_weight, strict=True)
        )

    dense = sum(
        target.shape.weights * each
        for target, each in zip(targets, cost_of_weight, strict=True)
    )
    budget = dense / recipe.rate * (1 + 1e-12)
    required = int(sum(np.isposinf(part).sum() for part in ranking))
    low, high = required, order.size  # the most groups whose cost fits lie between
    if cost(first(required)) > budget:
        high = required
        for target in targets:
            notes[target.path_key].append(
                f"minimum_groups={recipe.minimum_groups} alone exceeds the budget of "
                f"rate {recipe.rate:g}"
            )
    while low < high:
        middle = (low + high + 1) // 2
        if cost(first(middle)) <= budget:
            low = middle
        else:
            high = middle - 1
    chosen = first(low)
    return {
        target.path_key: target.structure.select(
            score,
            target.shape,
            target.structure.kept(chosen[target.path_key], target.shape),
            recipe.minimum_groups,
        )
        for target, score in zip(targets, scores, strict=True)
    }


def _without_zero_groups(
    target: Target, kernel: np.ndarray, mask: np.ndarray, recipe: Recipe, notes: Notes
) -> np.ndarray:
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
