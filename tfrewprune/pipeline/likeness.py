# SPDX-License-Identifier: Apache-2.0
"""Filters that are alike side by side, before anything is pruned."""

from __future__ import annotations

import keras
import numpy as np

from tfrewprune.channels.units import Units
from tfrewprune.recipe import Recipe
from tfrewprune.shrinking.arrangement import find_arrangement
from tfrewprune.shrinking.products import Product
from tfrewprune.shrinking.reading import read
from tfrewprune.structures.likeness import in_bands, like_order
from tfrewprune.wrappers.graph import is_functional
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.targets import Target, hooked_kernels


def arrange(model: keras.Model, recipe: Recipe) -> list[str]:
    """Moves filters so that those that share columns in a structure are alike.

    Structures such as `Block(16, 1)` remove a column from 16 neighbouring filters at
    once, so neighbours should have their large weights in the same columns. The
    channels between two layers have no order of their own: filters move, what reads
    them follows, and the model computes what it did. Layers that write into one
    residual sum share one order, chosen for all of them. It costs nothing at run time.

    Channels stay where they are that the outputs of the model or layers that are not
    understood read (see `shrink`), that layers make of which some groups are gone
    already (bands would lose what they have in common), in models whose graph is not
    known, and in models with masks or penalties in place.

    Args:
        model: A built model; its weights are changed in place. The state of its
            optimizer is not: compile it again.
        recipe: Which layers are pruned in which structure.

    Returns:
        Names of the layers whose filters have moved.

    Example:

    >>> moved = arrange(model, Recipe(rate=8))
    """
    targets = [t for step in recipe.steps for t in resolve(model, step)]
    chosen: dict[int, Target] = {}  # by layer; of several steps the first one counts
    for target in targets:
        if target.reason is None and in_bands(target.structure, target.shape):
            chosen.setdefault(id(target.layer), target)
    if not chosen or hooked_kernels(model):
        return []
    return _moved(model, chosen)


def _moved(model: keras.Model, chosen: dict[int, Target]) -> list[str]:
    if not is_functional(model):
        return []

    def order(products: list[Product], count: int) -> np.ndarray:
        keys = [id(product.layer) for product in products]
        targets = [chosen[key] for key in keys if key in chosen]
        return like_order([(t.kernel(), t.structure) for t in targets], count)

    units = Units()
    passages, _ = read(model, units, bypass=False)
    names = []
    for inner in {id(p.layer): p.layer for p in passages}.values():
        if isinstance(inner, keras.Model):
            names += _moved(inner, chosen)
    arrangement = find_arrangement(passages, units, order)
    return names if arrangement is None else names + arrangement.move(passages)
