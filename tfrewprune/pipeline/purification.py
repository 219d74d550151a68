# SPDX-License-Identifier: Apache-2.0
"""Network purification: what a cut has left nearly empty goes, with all dead paths."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from tfrewprune.pipeline.summary import layer_row
from tfrewprune.recipe import Recipe
from tfrewprune.rows import LayerRow
from tfrewprune.shrinking.graph import is_functional
from tfrewprune.shrinking.passages import Passage
from tfrewprune.shrinking.products import Product
from tfrewprune.shrinking.reading import read
from tfrewprune.shrinking.selection import select
from tfrewprune.shrinking.signals import Units
from tfrewprune.structures import Unstructured
from tfrewprune.wrappers.attachment import set_masks
from tfrewprune.wrappers.targets import Target, resolve

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
    if is_functional(model):
        _mask(model, chosen, _live(model, chosen))
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


def _live(model: keras.Model, chosen: dict[tuple, Target]) -> dict[tuple, np.ndarray]:
    """Which weights are on a path; constants of the others are moved on."""
    units = Units()
    passages, outputs = read(model, units, edges=False, bypass=False)
    selection = select(passages, outputs, units, merge=False)
    by_layer = {id(target.layer): key for key, target in chosen.items()}
    keep = {}
    for passage in passages:
        key = by_layer.get(id(passage.layer))
        if key is None or not isinstance(passage, Product):
            continue
        shape = chosen[key].values().shape
        if passage.kernel.shape != shape:  # of a separable convolution
            continue
        inputs, outputs = (
            np.isin(np.arange(len(signal.units)), selection.kept(signal))
            for signal in (passage.signal, passage.outputs[0])
        )
        shift = passage.settled_bias() - passage.bias
        if not _shifted(passage, shift, passages):
            inputs[:] = True  # the constants have no other place
        keep[key] = np.broadcast_to(inputs[:, None] & outputs, shape)
    return keep


def _shifted(passage: Product, shift: np.ndarray, passages: list[Passage]) -> bool:
    """Adds constants to a layer's outputs; returns whether it has a place for them."""
    if not shift.any():
        return True
    if passage.layer.use_bias:
        _add(passage.layer.bias, shift)
        return True
    (output,) = passage.call.outputs
    readers = [p.layer for p in passages if any(t is output for t in p.call.inputs)]
    normalized = len(readers) == 1 and isinstance(
        readers[0], keras.layers.BatchNormalization
    )
    if normalized and passage.layer.activation is keras.activations.linear:
        _add(readers[0].moving_mean, -shift)
        return True
    return False


def _add(variable: keras.Variable, shift: np.ndarray) -> None:
    variable.assign(ops.convert_to_numpy(variable.value) + shift.astype(np.float32))
