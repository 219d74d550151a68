# SPDX-License-Identifier: Apache-2.0
"""Weights on paths that lead nowhere, and the constants that such paths carry."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfrewprune.channels.units import Units
from tfrewprune.shrinking.graph import is_functional
from tfrewprune.shrinking.passages import Passage
from tfrewprune.shrinking.products import Product
from tfrewprune.shrinking.reading import read
from tfrewprune.shrinking.selection import select
from tfrewprune.wrappers.attachment import set_masks
from tfrewprune.wrappers.targets import Target


def mask_dead_paths(model: keras.Model, targets: list[Target]) -> None:
    """Masks what no output depends on: filters nobody reads, channels that are empty.

    The constant that an empty filter gives goes into the biases, or means of batch
    normalizations, behind it. At padded edges that is an approximation: train after it.
    Models whose graph does not tell what they compute are left as they are. A group of
    the structure goes when all of its weights are dead, so that no mask changes its
    structure. Source: unused path removal, Ma et al., arXiv 1905.00136.

    Args:
        model: A model with masks; it is changed in place.
        targets: Kernels that may lose weights, with the structures of their masks.
    """
    chosen = {t.path_key: t for t in targets if t.spec.unit == "matrix"}
    if not is_functional(model):
        return
    masks = {}
    for key, live in _live(model, chosen).items():
        left = np.where(live, chosen[key].values(), 0)
        masks[key] = chosen[key].structure.surviving_groups(left)
    set_masks(model, [chosen[key] for key in masks], masks)


def _live(model: keras.Model, chosen: dict[tuple, Target]) -> dict[tuple, np.ndarray]:
    """Which weights are on a path; constants of the others are moved on."""
    units = Units()
    passages, outputs = read(model, units, edges=False, bypass=False)
    selection = select(passages, outputs, units, merge=False)
    by_layer = {id(target.layer): key for key, target in chosen.items()}
    live = {}
    for passage in passages:
        key = by_layer.get(id(passage.layer))
        if key is None or not isinstance(passage, Product):
            continue
        shape = tuple(chosen[key].shape)
        if passage.kernel.shape != shape:  # of a separable convolution
            continue
        inputs, outputs = (
            np.isin(np.arange(len(signal.units)), selection.kept(signal))
            for signal in (passage.signal, passage.outputs[0])
        )
        shift = passage.settled_bias() - passage.bias
        if not _shifted(passage, shift, passages):
            inputs[:] = True  # the constants have no other place
        live[key] = np.broadcast_to(inputs[:, None] & outputs, shape)
    return live


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
