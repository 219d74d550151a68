# SPDX-License-Identifier: Apache-2.0
"""Weights on paths that lead nowhere, and the constants that such paths carry."""

from __future__ import annotations

import keras
import numpy as np

from tfrewprune.channels.units import Units
from tfrewprune.shrinking.constants import add, place_of
from tfrewprune.shrinking.passages import Passage
from tfrewprune.shrinking.products import Product, Separable
from tfrewprune.shrinking.reading import read
from tfrewprune.shrinking.selection import Selection, select
from tfrewprune.wrappers.attachment import set_masks
from tfrewprune.wrappers.graph import is_functional
from tfrewprune.wrappers.targets import Target


def mask_dead_paths(model: keras.Model, targets: list[Target]) -> None:
    """Masks what no output depends on: filters nobody reads, channels that are empty.

    The constant that an empty filter gives goes into the biases, or means of batch
    normalizations, behind it; where neither can hold it, its path stays. At padded
    edges that is an approximation: train after it. Models whose graph does not tell
    what they compute are left as they are. A group of the structure goes when all of
    its weights are dead, so that no mask changes its structure. Source: unused path
    removal, Ma et al., arXiv 1905.00136.

    Args:
        model: A model with masks; it is changed in place.
        targets: Kernels that may lose weights, with the structures of their masks.
    """
    if not is_functional(model):
        return
    units = Units()
    passages, outputs = read(model, units, edges=False, bypass=False)
    selection = select(passages, outputs, units, merge=False)
    products = {id(p.layer): p for p in passages if _has_one_matrix(p)}
    calls = [passage.call for passage in passages]
    masks, chosen = {}, []
    for target in targets:
        product = products.get(id(target.layer))
        if product is None or target.spec.unit != "matrix":
            continue
        live, carries = _live(product, selection)
        groups = _groups(target, live)
        shift = _lost(product, target.structure.mask(groups, target.shape))
        if shift.any():
            place = place_of(product.layer, calls, model.outputs)
            if place is None:
                groups = _groups(target, live | carries)
            else:
                add(place, shift)
        masks[target.path_key] = groups
        chosen.append(target)
    set_masks(model, chosen, masks)


def _has_one_matrix(passage: Passage) -> bool:
    return isinstance(passage, Product) and not isinstance(passage, Separable)


def _live(product: Product, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
    """Boolean (channels, outputs): what is on a path, and what adds constants."""
    inputs, outputs = (
        np.isin(np.arange(len(signal.units)), selection.kept(signal))
        for signal in (product.signal, product.outputs[0])
    )
    carries = _constants(product) != 0
    # Whoever reads a constant may keep it, though it is on no path; nobody the others.
    read = outputs | np.isfinite(product.outputs[0].value)
    return inputs[:, None] & outputs, carries[:, None] & read


def _groups(target: Target, live: np.ndarray) -> np.ndarray:
    return target.structure.surviving_groups(np.where(live, target.values(), 0))


def _lost(product: Product, mask: np.ndarray) -> np.ndarray:
    """What each output loses as constants with the weights outside a mask."""
    removed = np.where(mask, 0, product.kernel).sum(axis=0, dtype=np.float64)
    return _constants(product) @ removed


def _constants(product: Product) -> np.ndarray:
    """What each channel is where a bias can hold what it adds, else 0."""
    return np.where(product.foldable, np.nan_to_num(product.signal.value), 0.0)
