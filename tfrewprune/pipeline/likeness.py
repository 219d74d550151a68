# SPDX-License-Identifier: Apache-2.0
"""Filters that are alike side by side, before anything is pruned."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np

from tfrewprune.recipe import Recipe
from tfrewprune.shrinking.arrangement import find_arrangement
from tfrewprune.shrinking.graph import is_functional
from tfrewprune.shrinking.products import Product
from tfrewprune.shrinking.reading import read
from tfrewprune.shrinking.signals import Units
from tfrewprune.structures import matrix_from_kernel
from tfrewprune.structures.likeness import order_by_likeness
from tfrewprune.wrappers.targets import Target, hooked_kernels, resolve


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
        if target.reason is None and _in_bands(target):
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
        if any(map(_is_cut, targets)):
            return np.arange(count)
        return _like_order(targets, count)

    units = Units()
    passages, _ = read(model, units, bypass=False)
    names = []
    for inner in {id(p.layer): p.layer for p in passages}.values():
        if isinstance(inner, keras.Model):
            names += _moved(inner, chosen)
    arrangement = find_arrangement(passages, units, order)
    return names if arrangement is None else names + arrangement.move(passages)


def _in_bands(target: Target) -> bool:
    """Whether some but not all outputs share what survives, in a given order."""
    fixed = getattr(target.structure, "cluster", False)
    together = target.structure.rows_alike(target.shape)
    return not fixed and 1 < together < target.shape.outputs


def _is_cut(target: Target) -> bool:
    """Whether groups are gone of some outputs that others still have."""
    structure, shape = target.structure, target.shape
    alive = structure.mask(structure.surviving_groups(target.kernel()), shape)
    alive = alive.reshape(shape.columns, shape.outputs)
    return bool((alive.any(axis=1) & ~alive.all(axis=1)).any())


def _like_order(targets: Iterable[Target], count: int) -> np.ndarray:
    """Outputs in an order in which neighbours are alike in all matrices together."""
    energies, rows = [], 1
    for target in targets:
        energy = np.square(matrix_from_kernel(target.kernel()), dtype=np.float32)
        energies.append(energy / max(float(energy.sum()), 1e-30))
        rows = max(rows, target.structure.rows_alike(target.shape))
    if not energies:
        return np.arange(count)
    return np.array(order_by_likeness(np.concatenate(energies, axis=1), rows))
