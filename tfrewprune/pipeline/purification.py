# SPDX-License-Identifier: Apache-2.0
"""Network purification: what a cut has left nearly empty goes, with all dead paths."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tfrewprune.pipeline.dead_paths import mask_dead_paths
from tfrewprune.pipeline.summary import layer_row
from tfrewprune.recipe import Recipe
from tfrewprune.rows import LayerRow
from tfrewprune.structures import Unstructured
from tfrewprune.wrappers.attachment import set_masks
from tfrewprune.wrappers.resolving import resolve

#: Share of a unit's weights that are zero already.
EMPTINESS = 0.5


def purify(
    model: keras.Model,
    recipe: Recipe,
    *,
    importance: float = 0.1,
    emptiness: float = EMPTINESS,
) -> list[LayerRow]:
    """Removes filters and channels that a cut has left nearly empty, and dead paths.

    Network purification of Ma et al., "ResNet Can Be Pruned 60x" (arXiv 1905.00136): a
    filter or input channel goes if a large share of it is zero already and what remains
    of it is small. Their thresholds are numbers for one network; here the remainder is
    compared with the layer's own filters and channels. After that, in functional
    models, filters that nobody reads are masked too, and so are channels whose filter
    is empty; the constant that such a filter gives goes into the biases, or means of
    batch normalizations, behind it. At padded edges that is an approximation: train
    after it. `shrink` then removes all of it physically.

    Args:
        model: A model after `hard_prune`; it is changed in place.
        recipe: Which layers; its rates do not count.
        importance: What remains is small if its norm is at most so many times the
            median of those of the layer.
        emptiness: Share of a filter's or channel's weights that must be zero already.

    Returns:
        One `LayerRow` a layer.

    Raises:
        ValueError: Arguments out of range; a recipe that names no layer.

    Example:

    >>> hard_prune(model, recipe)
    >>> purify(model, recipe, importance=0.2)
    >>> masked_retrain(model, recipe, x, y)
    >>> small = shrink(model).model
    """
    for name, value in (("importance", importance), ("emptiness", emptiness)):
        if not 0 <= value <= 1:
            raise ValueError(
                f"purify: `{name}` must be between 0 and 1. Received: {value!r}"
            )
    targets = resolve(model, recipe)
    chosen = {
        target.path_key: dataclasses.replace(
            target, rule=target.rule.replace(structure=Unstructured(), skip=False)
        )
        for target in targets
        if target.reason is None and target.spec.unit == "matrix"
    }
    keep = {
        key: nearly_full(target.kernel(), importance, emptiness)
        for key, target in chosen.items()
    }
    _mask(model, chosen, keep)
    mask_dead_paths(model, list(chosen.values()))
    return [layer_row(target) for target in targets]


def nearly_full(kernel: np.ndarray, importance: float, emptiness: float) -> np.ndarray:
    """Which weights are of filters and channels that are neither empty nor small.

    Args:
        kernel: (positions, channels, outputs).
        importance: As for `purify`.
        emptiness: As for `purify`.

    Returns:
        Boolean of the kernel's shape. The largest filter and channel stay in any case.
    """
    keep = np.ones(kernel.shape, bool)
    for axes in ((0, 1), (0, 2)):  # filters, then channels
        norms = np.sqrt(np.square(kernel).sum(axis=axes, keepdims=True))
        empty = (kernel == 0).mean(axis=axes, keepdims=True)
        alive = norms > 0
        if not alive.any():
            continue
        small = norms <= importance * np.median(norms[alive])
        keep &= ~(small & (empty >= emptiness)) | (norms == norms.max())
    return keep


def _mask(model: keras.Model, chosen: dict, keep: dict) -> None:
    single = Unstructured()
    groups = {
        key: single.surviving_groups(np.where(keep[key], chosen[key].values(), 0))
        for key in keep
    }
    set_masks(model, [chosen[key] for key in keep], groups)
