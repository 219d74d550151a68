# SPDX-License-Identifier: Apache-2.0
"""Published settings by name: a structure, a method and their constants.

    >>> import tfrewprune as trp
    >>> trp.recipes.names()[0]
    'unified-reweighted'
    >>> recipe = trp.recipes.get("blk-rew", rate=4, retrain_epochs=20)

A recipe here is what a paper or its authors' code says, as far as it carries over to
another model. Three things do not, and are ours in every recipe:

- **Strength.** Published penalty strengths belong to one network and optimizer. With a
  rate, the strength of a reweighted penalty follows that rate during training.
- **Rates of layers.** Papers set them by hand or uniformly. Here one rate is a budget
  over all pruned layers, and each layer's share is found.
- **Epochs.** Papers train for hundreds. The lengths here keep the proportion of the
  phases; more epochs in that proportion are better.

Optimizer and learning rate are the model's own, also the periodic ones of the published
ADMM schedules, for which Keras has a schedule (see `tfrewprune.methods.ADMM`).
`describe(name).origins` tells for each constant where it comes from.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrewprune.recipe import Recipe
from tfrewprune.recipes.constrained import CONSTRAINED
from tfrewprune.recipes.named import NamedRecipe
from tfrewprune.recipes.penalized import PENALIZED
from tfrewprune.structures import Structure

_RECIPES = {**PENALIZED, **CONSTRAINED}


def names() -> tuple[str, ...]:
    """The names that `get` knows."""
    return tuple(_RECIPES)


def describe(name: str) -> NamedRecipe:
    """The recipe of a name with its source and the origin of every constant.

    Raises:
        ValueError: There is no such recipe.
    """
    if name not in _RECIPES:
        raise ValueError(f"Unknown recipe {name!r}. Expected one of {list(names())}.")
    return _RECIPES[name]


def get(
    name: str,
    rate: float | None = None,
    *,
    match: str | tuple[str, ...] | list[str] = "*",
    structure: Structure | dict | str | None = None,
    **changes: Any,
) -> Recipe:
    """A named recipe, ready for `compress`.

    Args:
        name: One of `names()`.
        rate: Dense / kept weights over all pruned layers; None for the recipe's own,
            see `describe(name).origins["rate"]`.
        match: The layers that are pruned, as in `Rule`. `"*"` takes all that can run
            packed and gain by it, but the first convolution and the classifiers.
        structure: In place of the recipe's own, as in `Rule`; not where two steps have
            a structure each.
        **changes: Other arguments of `Recipe`, such as `retrain_epochs`, of each step.
            A `threshold` or `constraints` replaces the recipe's own rate; a
            `quantization` its own, None leaves it out.

    Raises:
        ValueError: There is no such recipe or argument, or the values do not fit.

    Example:

    >>> get("patdnn", rate=6, match="conv*").rate
    6
    """
    named = describe(name)
    steps = named.recipe.steps
    known = {field.name for field in dataclasses.fields(Recipe)} - {"rules", "then"}
    if unknown := sorted(set(changes) - known):
        raise ValueError(
            f"Unknown changes to recipe {name!r}: {unknown}. Expected `match`, "
            f"`structure` or some of {sorted(known)}."
        )
    open_rate = [n for n in ("threshold", "constraints") if changes.get(n) is not None]
    structures = {step.rules[0].structure for step in steps}
    if (len(steps) > 1 and open_rate) or (len(structures) > 1 and structure):
        raise ValueError(
            f"Recipe {name!r} has {len(steps)} steps: it takes a rate, which it shares "
            "among them, and keeps its structures. Received: "
            f"structure={structure!r}, {changes}"
        )
    if rate is not None:
        rates = named.rates(rate)
    elif open_rate:
        rates = (None,)
    else:
        rates = [step.rate for step in steps]
    result = None
    for step, share in reversed(list(zip(steps, rates, strict=True))):
        (rule,) = step.rules
        rule = dataclasses.replace(
            rule,
            match=rule.match if match == "*" else match,
            structure=rule.structure if structure is None else structure,
        )
        settled = {"threshold": None} if rate is not None or open_rate else {}
        arguments = {**settled, "rate": share, **changes}
        if result is not None:  # only the last step has levels
            arguments.pop("quantization", None)
        result = step.replace(rules=(rule,), then=result, **arguments)
    return result
