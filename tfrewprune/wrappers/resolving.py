# SPDX-License-Identifier: Apache-2.0
"""Recipe + model -> the kernels to prune, and the reason for every layer left dense."""

from __future__ import annotations

import dataclasses
import functools

import keras

from tfrewprune.left_dense import (
    FIRST,
    LAST,
    check_rules,
    first_that,
    no_layer,
    why_dense,
)
from tfrewprune.payload.cost import AnyCost
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Structure
from tfrewprune.wrappers.kernels import KernelSpec, output_layers
from tfrewprune.wrappers.targets import Target, all_kernels, expected_gain


def resolve(
    model: keras.Layer, recipe: Recipe, costs: AnyCost | None = None
) -> list[Target]:
    """What the recipe means for each layer of the model.

    Args:
        model: A model, or a layer with layers inside.
        recipe: Its rules tell what is pruned.
        costs: Predicts which layers gain; None is the cost model of this machine.

    Raises:
        ValueError: A rule matches no layer, is shadowed by the rules before it, or the
            recipe leaves nothing to prune.
    """
    units = [rule.structure.unit for rule in recipe.rules if not rule.skip]
    # Units that are larger than a matrix come first: they take their matrices along.
    units = sorted(dict.fromkeys([*units, "matrix"]), key="matrix".__eq__)
    targets = all_kernels(model, units)
    check_rules(recipe, targets, _applies, functools.partial(_nothing, targets))
    skipped = _ends(model, targets, recipe)
    outputs = {id(layer) for layer in output_layers(model)}
    resolved = _taken_along(
        [_apply(target, recipe, skipped, outputs, costs) for target in targets]
    )
    if all(target.reason is not None for target in resolved):
        reasons = "\n".join(f"  {t.label}: {t.reason}" for t in resolved)
        raise ValueError(
            "The recipe leaves no layer to prune:\n" + (reasons or "  no layers")
        )
    return resolved


def _taken_along(targets: list[Target]) -> list[Target]:
    """Leaves out units that nothing prunes, and matrices that larger units hold."""
    holders = {
        id(part.variable(target.layer)): target
        for target in targets
        if target.reason is None and target.spec.unit != "matrix"
        for part in target.spec.parts
    }
    kept = []
    for target in targets:
        if target.spec is not None and target.spec.unit != "matrix":
            meant = target.rule is not None and not target.rule.skip
            kept += [target] if meant else []
        elif target.spec is not None and id(target.variable) in holders:
            holder = holders[id(target.variable)]
            reason = f"pruned with the {holder.spec.label} of {holder.path}"
            kept.append(dataclasses.replace(target, rule=None, reason=reason))
        else:
            kept.append(target)
    return kept


def _applies(rule: Rule, target: Target) -> bool:
    spec = target.spec or KernelSpec()
    return (rule.skip or rule.structure.unit == spec.unit) and rule.matches(
        target.layer.name, target.path, target.kinds, spec.label
    )


def _apply(
    target: Target,
    recipe: Recipe,
    skipped: dict[int, str],
    outputs: set[int],
    costs: AnyCost | None,
) -> Target:
    rule = first_that(_applies, recipe, target)
    reason, note = target.reason, None
    if reason is None:
        exact = rule is not None and (
            rule.names(target.layer.name, target.path)
            or rule.means(target.path, target.kinds_around)
        )
        if rule is not None and not rule.skip and not target.spec.packed:
            note = (
                f"no packed operator for {type(target.layer).__name__}: its zeros save "
                "neither bytes nor time in a converted model"
            )
            if not (exact or rule.means(target.path, target.kinds)):
                reason = f"{note}; a rule by its exact name or kind prunes it"
        else:
            reason = _why_dense(target, rule, recipe, exact, skipped, costs)
    if reason is not None:
        return dataclasses.replace(target, rule=rule, reason=reason)
    structure = rule.structure
    if id(target.layer) in outputs:
        structure = structure.at_output()
    structure = _fitted(target, structure)
    rule = recipe.settled(rule.replace(structure=structure), target.shape)
    return dataclasses.replace(target, rule=rule, note=note)


def _why_dense(
    target: Target,
    rule: Rule | None,
    recipe: Recipe,
    exact: bool,
    skipped: dict[int, str],
    costs: AnyCost | None,
) -> str | None:
    end = skipped.get(id(target.layer))
    recurrent = isinstance(target.around, keras.layers.RNN)
    if recurrent and rule is not None and end is None:
        exact = exact or rule.means(target.path, target.kinds)

    def gain_at(rate: float) -> float | None:
        if recurrent:  # they run packed whatever they gain
            return None
        return expected_gain(target, rule.structure, rate, costs)

    weights = target.shape.weights
    return why_dense(rule, recipe, weights, gain_at, exact=exact, end=end)


def _fitted(target: Target, structure: Structure) -> Structure:
    """The structure for one kernel: as settled by penalty or mask, else settled now."""
    for hook in (target.mask, target.penalty):
        if hook is not None and hook.structure.settles(structure):
            return hook.structure
    return structure.fitted(target.values())


def _ends(model: keras.Layer, targets: list[Target], recipe: Recipe) -> dict[int, str]:
    """Layers that patterns leave alone: first convolution, output Dense layers."""
    kernels = [target for target in targets if target.reason is None]
    skipped = {}
    if recipe.skip_first:
        first = next((t for t in targets if hasattr(t.layer, "kernel_size")), None)
        if first is not None:
            skipped[id(first.layer)] = FIRST
    if recipe.skip_last and kernels:
        last = [kernels[-1].layer, *output_layers(model)]
        for layer in last:
            if isinstance(layer, keras.layers.Dense):
                skipped[id(layer)] = LAST
    return skipped


def _nothing(targets: list[Target], rule: Rule) -> str:
    """What a rule that matches nothing might have meant."""
    named = [
        target
        for target in targets
        if rule.replace(weights=None).matches(
            target.layer.name, target.path, target.kinds
        )
    ]
    if named and not rule.skip and rule.structure.unit != "matrix":
        return (
            f"no layer with {rule.structure.unit}, which {rule.structure} removes: "
            f"{', '.join(dict.fromkeys(target.path for target in named))}."
        )
    if named and rule.weights is not None:
        labels = dict.fromkeys(t.spec.label for t in named if t.spec is not None)
        return f"no weights of its layers. They have: {', '.join(labels) or 'none'}."
    return no_layer(target.path for target in targets)
