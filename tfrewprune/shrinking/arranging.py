# SPDX-License-Identifier: Apache-2.0
"""Filters in the order of their bands, so that a band's outputs lie side by side.

A band whose rows lie apart stores its outputs one by one: a layer takes up to 1.7 times
as long (1x1, 56x56, 64 -> 256 at 8x, Zen 4). The channels between two layers have no
order of their own, so the filters that make them can move, and what reads them follows.
"""

from __future__ import annotations

import math

import keras
import numpy as np

from tfrewprune.channels.units import Units
from tfrewprune.payload.grouping import scattered_bands
from tfrewprune.payload.packer import smallest_packing
from tfrewprune.shrinking.arrangement import find_arrangement
from tfrewprune.shrinking.checking import difference, outputs_of, random_inputs
from tfrewprune.shrinking.products import Product
from tfrewprune.shrinking.reading import read
from tfrewprune.shrinking.shrink import TOLERANCE_FLOAT32
from tfrewprune.wrappers.cloning import plain_copy
from tfrewprune.wrappers.graph import is_functional

#: Share of zeros from which on a matrix may have bands worth moving rows for.
SPARSE = 0.5


def arranged(model: keras.Model) -> keras.Model:
    """The same function with filters moved so that the bands of layers are neighbours.

    For models pruned in bands of like filters (`Block(16, 1, cluster=True)`) or whose
    rows the packer would reorder. Where a tensor is read as it is, by the model's
    outputs, by layers that are not understood, or by several layers with bands of their
    own, the order that leaves the fewest outputs scattered wins; that may be the
    present one.

    Args:
        model: A built Keras model; it is left as it is.

    Returns:
        A plain model, or `model` itself where nothing is gained.
    """
    if not is_functional(model) or not any(map(_is_sparse, model.layers)):
        return model
    try:
        plain = plain_copy(model, "arranged")
    except Exception:  # whatever a layer of the user's raises when it is copied
        return model
    units = Units()
    passages, _ = read(plain, units, bypass=False)
    arrangement = find_arrangement(passages, units, _best_rows)
    if arrangement is None:
        return model
    try:
        inputs = random_inputs(plain)
        expected = outputs_of(model, inputs)
    except Exception:  # likewise when it is called with such inputs
        return model
    arrangement.move(passages)
    # Sums in another order; anything beyond that would be a layer misread.
    apart = difference(expected, outputs_of(plain, inputs))
    return plain if apart <= TOLERANCE_FLOAT32 else model


def _is_sparse(layer: keras.Layer) -> bool:
    kernel = getattr(layer, "kernel", None)
    if not isinstance(kernel, keras.Variable) or len(kernel.shape) < 2:
        return False
    zeros = keras.ops.convert_to_numpy(kernel.value) == 0
    return bool(zeros.mean() >= SPARSE)


def _best_rows(products: list[Product], count: int) -> np.ndarray:
    """The order of rows in which the layers that make a tensor scatter least."""
    layers = [
        (smallest_packing(_matrix(product)).grouping, _positions(product))
        for product in products
    ]

    def scattered(rows: np.ndarray) -> int:
        place = np.append(np.argsort(rows), count)  # an idle lane stays one
        return sum(
            positions * scattered_bands(np.sort(place[bands], axis=1), count)
            for bands, positions in layers
        )

    orders = [_in_bands(bands, count) for bands, _ in layers]
    return min([np.arange(count), *orders], key=scattered)


def _in_bands(bands: np.ndarray, count: int) -> np.ndarray:
    """Rows band after band, whole bands first, and those in no band at the end."""
    whole = (bands < count).all(axis=1)
    listed = np.concatenate([bands[whole].ravel(), bands[~whole].ravel()])
    listed = listed[listed < count]
    return np.concatenate([listed, np.setdiff1d(np.arange(count), listed)])


def _matrix(product: Product) -> np.ndarray:
    """float32 (outputs, columns)."""
    kernel = product.kernel
    return np.ascontiguousarray(kernel.reshape(-1, kernel.shape[-1]).T)


def _positions(product: Product) -> int:
    """How often a layer computes its outputs in an example."""
    shape = product.call.outputs[0].shape[1:]
    return math.prod(extent or 1 for extent in shape)
