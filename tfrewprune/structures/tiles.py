# SPDX-License-Identifier: Apache-2.0
"""Runs of neighbouring entries along an axis; the last run may be shorter."""

from __future__ import annotations

from typing import Any

import numpy as np


def tile_sums(values, axis: int, tile: int, xp: Any = np):
    """Sums over runs of `tile` entries along `axis`.

    Example:

    >>> tile_sums(np.ones(5), 0, 2)
    array([2., 2., 1.])
    """
    extent = values.shape[axis]
    tile = min(tile, extent)
    if tile <= 1:
        return values
    whole = extent // tile * tile
    head = values if whole == extent else _cut(values, axis, 0, whole)
    folded = (*head.shape[:axis], whole // tile, tile, *head.shape[axis + 1 :])
    sums = xp.sum(xp.reshape(head, folded), axis=axis + 1)
    if whole == extent:
        return sums
    tail = xp.sum(_cut(values, axis, whole, extent), axis=axis, keepdims=True)
    return xp.concatenate([sums, tail], axis=axis)


def tile_spread(groups, axis: int, tile: int, extent: int, xp: Any = np):
    """Every entry `tile` times along `axis`, cut to `extent`: adjoint of the sums.

    Example:

    >>> tile_spread(np.array([7, 8, 9]), 0, 2, 5)
    array([7, 7, 8, 8, 9])
    """
    if tile == 1:
        return groups
    repeated = xp.repeat(groups, min(tile, extent), axis=axis)
    return _cut(repeated, axis, 0, extent)


def tiles(extent: int, tile: int) -> int:
    """Number of runs."""
    return -(-extent // tile)


def _cut(values, axis: int, start: int, stop: int):
    return values[(slice(None),) * axis + (slice(start, stop),)]
