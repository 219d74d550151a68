# SPDX-License-Identifier: Apache-2.0
"""Which structure each layer gets, and at which rate: by rule, or by loss and cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfrewprune.oneshot.losses import LossTable, allocate
from tfrewprune.payload.cost import AnyCost
from tfrewprune.recipe import TYPICAL_RATE, Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Structure, Unstructured
from tfrewprune.wrappers.budget import Budget
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.resources import cost_curve
from tfrewprune.wrappers.targets import Target, expected_gain

#: From the finest, which costs least accuracy, to the coarsest, which runs fastest.
STRUCTURES = (Unstructured(), Block(4, 1), Block(8, 1), Block(16, 1))

#: Rates that are tried of each layer.
RATES = (1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)

#: Losses by layer path, structure and rate.
Losses = Mapping[str, Mapping[Structure, Mapping[float, float]]]


def map_by_rule(
    model: keras.Model,
    recipe: Recipe,
    structures: Sequence[Structure] = STRUCTURES,
    tolerance: float = 0.1,
) -> Recipe:
    """Gives each layer the finest structure that runs nearly as fast as the fastest.

    Finer structures lose less accuracy at the same rate, coarser ones run faster. Which
    is how much faster depends on the layer: a wide layer over many pixels is as fast in
    bands of 4 rows as in 16, a matrix times a vector is not. The rule of Li et al.,
    "Automatic Mapping of the Best-Suited DNN Pruning Schemes for Real-Time Mobile
    Acceleration" (TODAES 2022, arXiv 2111.11581): the smallest block whose latency is
    within a tolerance of the structured limit; with the cost model for a table.

    Args:
        model: A built model.
        recipe: Layers, rates and the rest; its structures do not count.
        structures: Candidates, the finest first.
        tolerance: How much slower than the fastest candidate is near enough.

    Returns:
        The recipe with a rule for each pruned layer.

    Raises:
        ValueError: No candidates, or nothing to prune.

    Example:

    >>> recipe = map_by_rule(model, Recipe(rate=8))
    """
    _check(structures)
    rules = []
    for target in _pruned(model, recipe):
        rate = target.rule.rate or recipe.rate or TYPICAL_RATE
        chosen = finest(target, rate, structures, tolerance)
        rules.append(_rule(target, chosen, target.rule.rate))
    return recipe.replace(rules=_with_others(rules, recipe))


def finest(
    target: Target,
    rate: float,
    structures: Sequence[Structure] = STRUCTURES,
    tolerance: float = 0.1,
    costs: AnyCost | None = None,
) -> Structure:
    """The first of the structures that runs nearly as fast as the fastest of them.

    Args:
        target: A kernel.
        rate: Dense / kept weights.
        structures: As in `map_by_rule`.
        tolerance: As in `map_by_rule`.
        costs: Predicts times; None is the cost model of this machine.
    """
    gains = [
        (structure, expected_gain(target, structure, rate, costs) or 1.0)
        for structure in structures
    ]
    fastest = max(gain for _, gain in gains)
    return next(s for s, gain in gains if gain * (1 + tolerance) >= fastest)


def map_by_loss(
    model: keras.Model,
    recipe: Recipe,
    structures: Sequence[Structure] = STRUCTURES,
    rates: Sequence[float] = RATES,
    losses: Losses | None = None,
) -> Recipe:
    """Gives each layer the structure and rate that lose least within the budget.

    Every layer may have each structure at each rate, or stay dense; the choice has the
    least sum of losses found whose costs keep to the recipe's constraints, or to its
    rate (`allocate`).

    Args:
        model: A built, trained model.
        recipe: Layers and constraints, or a rate; its structures do not count.
        structures: Candidates. With one, only rates are chosen.
        rates: Candidates.
        losses: What each choice loses, in one measure for all layers, such as the error
            of the layer's outputs on calibration data. None takes the share of the
            layer's energy that is removed, which needs no data.

    Returns:
        The recipe with a rule for each pruned layer that has its structure and rate,
        and without the budget that they keep to.

    Raises:
        Infeasible: No choice keeps to the constraints.
        ValueError: No candidates, nothing to prune, or a layer that `losses` lacks.

    Example:

    >>> recipe = map_by_loss(model, Recipe(constraints={"latency_ms": 3.0}))
    """
    _check(structures)
    targets = resolve(model, recipe)
    budget = Budget.of(targets, recipe)
    limits = {limit.name: limit for limit in budget.limits}
    options, tables = [], []
    for target in budget.targets:
        found = None if losses is None else _losses_of(target, losses)
        made = _options(target, list(limits), recipe, structures, rates, found)
        options.append(made)
        tables.append(
            LossTable(
                target.label,
                tuple(option.kept for option in made),
                tuple(option.loss for option in made),
                {name: tuple(o.cost[name] for o in made) for name in limits},
            )
        )
    empty = {
        name: sum(curve.empty for curve in limit.curves.values())
        for name, limit in limits.items()
    }
    chosen = allocate(
        tables,
        {name: limit.limit for name, limit in limits.items()},
        {name: limit.fixed - empty[name] for name, limit in limits.items()},
    )
    rules = []
    for target, made, index in zip(budget.targets, options, chosen, strict=True):
        option = made[index]
        if option.structure is None:
            rules.append(Rule(target.path, weights=target.spec.name, skip=True))
        else:
            rules.append(_rule(target, option.structure, option.rate))
    for target in targets:
        if target.reason is None and target.rule.rate is not None:
            rules.append(_rule(target, target.rule.structure, target.rule.rate))
    return recipe.replace(rules=rules, rate=None, constraints=None)


@dataclasses.dataclass(frozen=True)
class _Option:
    """One way to prune a layer; without a structure the dense layer."""

    structure: Structure | None
    rate: float
    kept: int
    loss: float
    cost: dict[str, float]


def _options(
    target: Target,
    names: list[str],
    recipe: Recipe,
    structures: Sequence[Structure],
    rates: Sequence[float],
    found: Mapping[Structure, Mapping[float, float]] | None,
) -> list[_Option]:
    """All ways to prune a layer, the one that loses least first."""
    weights, kernel = target.shape.weights, target.kernel()
    energy = np.square(kernel)
    dense = {name: cost_curve(name, target, recipe.layer_ms).dense for name in names}
    options = [_Option(None, 1.0, weights, 0.0, dense)]
    for structure in structures:
        fitted = structure.fitted(kernel)
        rule = dataclasses.replace(target.rule, structure=fitted)
        like = dataclasses.replace(target, rule=rule)
        curves = {name: cost_curve(name, like, recipe.layer_ms) for name in names}
        known = None if found is None else found.get(structure, {})
        for rate in sorted(rates if known is None else known):
            keep = fitted.choose(energy, weights / rate)
            kept = fitted.kept(keep, target.shape)
            if known is None:
                left = energy[fitted.mask(keep, target.shape)].sum()
                loss = float(1 - left / max(energy.sum(), 1e-30))
            else:
                loss = known[rate]
            cost = {name: curve(kept) for name, curve in curves.items()}
            options.append(_Option(structure, rate, kept, loss, cost))
    return sorted(options, key=lambda option: (option.loss, option.rate))


def _losses_of(target: Target, losses: Losses) -> Mapping:
    if target.label not in losses:
        raise ValueError(
            f"`losses` has no entry for layer {target.label!r}. Received: "
            f"{sorted(losses)}"
        )
    return losses[target.label]


def _pruned(model: keras.Model, recipe: Recipe) -> list[Target]:
    return [target for target in resolve(model, recipe) if target.reason is None]


def _rule(target: Target, structure: Structure, rate: float | None) -> Rule:
    """The kernel's rule, for it alone."""
    return target.rule.replace(
        match=target.path,
        kind=None,
        weights=target.spec.name,
        structure=structure,
        rate=rate,
    )


def _with_others(rules: list[Rule], recipe: Recipe) -> list[Rule]:
    """With the rules that leave layers dense."""
    return [*rules, *(rule for rule in recipe.rules if rule.skip)]


def _check(structures: Sequence[Structure]) -> None:
    if not structures or not all(isinstance(s, Structure) for s in structures):
        raise ValueError(
            "Argument `structures` must be a list of structures, the finest first. "
            f"Received: structures={structures!r}"
        )
