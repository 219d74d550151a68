# SPDX-License-Identifier: Apache-2.0
"""Which groups survive: by a rate of their own, a common budget, or a threshold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from tfrewprune.recipe import Recipe
from tfrewprune.structures import Structure
from tfrewprune.wrappers.budget import Budget
from tfrewprune.wrappers.targets import Target

#: Tries to find which of several limits is the scarce one.
TRIES = 8

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
    allowed: float = 1.0,
) -> Masks:
    """Chooses the groups that each kernel keeps.

    Args:
        targets: The kernels to prune; with constraints all that `resolve` returned.
        kernels: Their weights, (positions, channels, outputs) each.
        recipe: Rates, budget or threshold.
        notes: Gets what is not as asked for.
        comparable: Whether a budget may compare what is in `kernels` across layers as
            it is, such as roots of what each weight costs in the loss. Else they are
            compared by `lamp_scores`.
        allowed: How many times a budget may be used, on the way to it.

    Returns:
        A boolean group mask a kernel. Groups that are zero already are not kept.
    """
    masks: Masks = {}
    budgeted: list[Target] = []
    everything, targets = targets, [t for t in targets if t.reason is None]
    for target in targets:
        kernel, key = kernels[target.path_key], target.path_key
        fixed = target.structure.fixed_rate(target.shape)
        asked = target.rule.rate or recipe.rate
        if fixed is not None and asked is not None and asked != fixed:
            notes[key].append(f"the structure alone decides its rate, {fixed:g}")
        if target.rule.rate is not None:
            masks[key] = _by_rate(target, kernel, target.rule.rate, recipe, notes)
        elif recipe.rate is not None or recipe.constraints is not None:
            budgeted.append(target)
        else:
            masks[key] = _by_threshold(target, kernel, recipe, notes)
        if target.note is not None:
            notes[key].append(target.note)
    if budgeted:
        budget = Budget.of(everything, recipe)
        masks.update(_by_budget(budget, allowed, kernels, recipe, notes, comparable))
    return {
        target.path_key: _without_zero_groups(
            target, kernels[target.path_key], masks[target.path_key], recipe, notes
        )
        for target in targets
    }


def shares(targets: list[Target], recipe: Recipe) -> dict[tuple, float]:
    """Weights that each kernel may keep: by its own rate, or its part of the budget.

    A budget is shared out as `select_groups` does among the weights as they are now.

    Args:
        targets: What `resolve` returned.
        recipe: Rates and budget.

    Returns:
        Numbers of weights, at least 1, by `Target.path_key`.
    """
    pruned = [target for target in targets if target.reason is None]
    kernels = {target.path_key: target.kernel() for target in pruned}
    masks = select_groups(targets, kernels, recipe, defaultdict(list))
    return {
        target.path_key: target.shape.weights / target.rule.rate
        if target.rule.rate
        else max(1.0, target.kept(masks[target.path_key]))
        for target in pruned
    }


def check_budget(targets: list[Target], recipe: Recipe) -> None:
    """Refuses a budget that cannot be counted or kept, before any time is spent.

    Raises:
        ValueError: Which, and what it lacks.
    """
    if recipe.rate is None and recipe.constraints is None:
        return
    budget = Budget.of(targets, recipe)
    if recipe.constraints is not None:
        least = recipe.minimum_groups
        budget.check({t.path_key: _fewest(t, least) for t in budget.targets})


def _fewest(target: Target, least: int) -> int:
    """Weights of a kernel that are kept whatever the budget."""
    structure, shape = target.structure, target.shape
    scores = structure.scores(target.kernel(), shape)
    return target.kept(structure.select(scores, shape, 0, least))


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
    budget: Budget,
    allowed: float,
    kernels: Kernels,
    recipe: Recipe,
    notes: Notes,
    comparable: bool,
) -> Masks:
    """Keeps the best groups of all targets together within the budget.

    All groups are ranked together, those first that a kernel must keep, then by worth
    per cost; the longest beginning of that ranking survives whose cost fits. Where
    several limits hold, the ones with room to spare count less in the cost of another
    try, and the try that keeps most wins.
    """
    targets, least = budget.targets, recipe.minimum_groups
    scores, worths, musts = {}, {}, {}
    for target in targets:
        structure, shape, key = target.structure, target.shape, target.path_key
        scores[key] = structure.scores(kernels[key], shape)
        energy = np.square(np.maximum(scores[key], 0))
        worths[key] = energy if comparable else lamp_scores(energy)
        musts[key] = structure.select(scores[key], shape, 0, least)

    def final(masks: Masks) -> Masks:
        """What each structure makes of the number of weights it may keep."""
        return {
            t.path_key: t.structure.select(
                scores[t.path_key],
                t.shape,
                t.structure.kept(masks[t.path_key], t.shape),
                least,
            )
            for t in targets
        }

    def kept(masks: Masks) -> dict[tuple, int]:
        numbers = {}
        for target in targets:
            structure, mask = target.structure, masks[target.path_key]
            plain = type(structure).select is Structure.select
            if not (structure.partition and plain):
                # What such a structure makes of an allowance is its own affair.
                number = structure.kept(mask, target.shape)
                mask = structure.select(
                    scores[target.path_key], target.shape, number, least
                )
            numbers[target.path_key] = target.kept(mask)
        return numbers

    if budget.excess(kept(musts)) > allowed * (1 + 1e-9):
        if recipe.constraints is not None:
            budget.check(kept(musts))
        fixed = [t for t in targets if t.structure.fixed_rate(t.shape) is not None]
        settled = {t.path_key for t in fixed}
        numbers = kept(musts)
        alone = {key: numbers[key] if key in settled else 0 for key in numbers}
        rate = f"rate {recipe.rate:g}"
        cause = f"minimum_groups={least} alone exceeds the budget of {rate}"
        if budget.excess(alone) > allowed * (1 + 1e-9):
            names = ", ".join(target.label for target in fixed)
            cause = f"{rate} is not reached: the structure decides {names}"
        for target in targets:
            notes[target.path_key].append(cause)
        return final(musts)

    best, most = musts, -1.0
    emphasis = [1.0] * len(budget.limits)
    for _ in range(TRIES if len(emphasis) > 1 else 1):
        costs = budget.weight_costs(emphasis)
        ranking = [
            np.where(musts[t.path_key], np.inf, worths[t.path_key] / costs[t.path_key])
            for t in targets
        ]
        chosen = _longest_beginning(
            ranking,
            sum(int(mask.sum()) for mask in musts.values()),
            lambda parts: (
                budget.excess(kept(_by_key(targets, parts))) <= allowed * (1 + 1e-9)
            ),
        )
        masks = _by_key(targets, chosen)
        total = sum(_share(target, kernels, masks) for target in targets)
        if total > most:
            best, most = masks, total
        numbers = kept(masks)
        emphasis = [
            share * max(limit.excess(numbers) / allowed, 0.1)
            for share, limit in zip(emphasis, budget.limits, strict=True)
        ]
    return final(best)


def _by_key(targets: list[Target], masks: list[np.ndarray]) -> Masks:
    return {t.path_key: mask for t, mask in zip(targets, masks, strict=True)}


def _share(target: Target, kernels: Kernels, masks: Masks) -> float:
    """Share of a kernel's energy that is kept."""
    energy = np.square(kernels[target.path_key])
    mask = target.structure.mask(masks[target.path_key], target.shape)
    return float(energy[mask].sum() / max(energy.sum(), 1e-30))


def _longest_beginning(
    ranking: list[np.ndarray], required: int, fits: Callable[[list], bool]
) -> list[np.ndarray]:
    """Masks of the best entries of all arrays together: the most that fit.

    Args:
        ranking: Larger is better.
        required: Entries that are taken whether they fit or not.
        fits: Whether masks do; if some do, so do those with less.
    """
    order = np.argsort(-np.concatenate([r.ravel() for r in ranking]), kind="stable")
    ranks = np.empty(order.size, np.int64)
    ranks[order] = np.arange(order.size)
    ranks = np.split(ranks, np.cumsum([part.size for part in ranking])[:-1])

    def first(count: int) -> list[np.ndarray]:
        return [
            (rank < count).reshape(part.shape)
            for rank, part in zip(ranks, ranking, strict=True)
        ]

    low, high = required, order.size  # the most that fit lie between
    while low < high:
        middle = (low + high + 1) // 2
        if fits(first(middle)):
            low = middle
        else:
            high = middle - 1
    return first(low)


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
