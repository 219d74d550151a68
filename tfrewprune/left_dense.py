# SPDX-License-Identifier: Apache-2.0
"""Why a recipe leaves a layer dense, of Keras or of a `.tflite` file alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from tfrewprune.recipe import TYPICAL_RATE, Recipe
from tfrewprune.rule import Rule

FIRST = "first convolution (skip_first=True)"
LAST = "last classifier (skip_last=True)"

Layer = TypeVar("Layer")


def why_dense(
    rule: Rule | None,
    recipe: Recipe,
    weights: int,
    gain_at: Callable[[float], float | None],
    *,
    exact: bool,
    end: str | None,
) -> str | None:
    """The reason why a layer stays dense; None where it is pruned.

    Args:
        rule: The first rule that matches it, if any does.
        recipe: Where the rule is from.
        weights: Number of the layer's weights.
        gain_at: Rate -> how many times faster than dense; None if that is not known.
        exact: Whether the rule says the layer letter by letter. A pattern means what
            pays, a name means this layer.
        end: `FIRST` or `LAST`, if the layer is one of these.
    """
    if rule is None:
        return "no rule matches"
    if rule.skip:
        return f"left dense by rule {rule.match!r}"
    if exact:
        return None
    if end is not None:
        return end
    if weights < recipe.minimum_weights:
        return f"small: {weights} weights < {recipe.minimum_weights}"
    rate = rule.rate or recipe.rate or TYPICAL_RATE
    gain = gain_at(rate)
    if gain is not None and gain <= 1:
        return f"dense is faster at {rate:g}x (predicted gain {gain:.2f}x)"
    return None


def first_that(
    applies: Callable[[Rule, Layer], bool], recipe: Recipe, layer: Layer
) -> Rule | None:
    """The rule that counts for a layer: the first one that applies."""
    return next((rule for rule in recipe.rules if applies(rule, layer)), None)


def check_rules(
    recipe: Recipe,
    layers: Sequence[Layer],
    applies: Callable[[Rule, Layer], bool],
    nothing: Callable[[Rule], str],
) -> None:
    """Refuses rules that count for no layer.

    Args:
        recipe: The rules.
        layers: All that they might be meant for.
        applies: Whether a rule is meant for one of them.
        nothing: What to say of a rule that is meant for none, after "matches".

    Raises:
        ValueError: A rule matches no layer, or the rules before it all of its layers.
    """
    winners = [id(first_that(applies, recipe, layer)) for layer in layers]
    for rule in recipe.rules:
        if id(rule) in winners:
            continue
        if any(applies(rule, layer) for layer in layers):
            raise ValueError(
                f"Rule {rule} never applies: earlier rules match all of its "
                "layers. Put the more specific rule first."
            )
        raise ValueError(f"Rule {rule} matches {nothing(rule)}")


def no_layer(paths: Iterable[str]) -> str:
    """What a rule matches that means none of these layers, for `check_rules`."""
    names = ", ".join(dict.fromkeys(paths))
    return f"no layer. Layers with weights: {names or 'none (is the model built?)'}."
