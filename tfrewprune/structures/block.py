# SPDX-License-Identifier: Apache-2.0
"""Block: a tile of `rows` outputs and `columns` columns of the GEMM matrix."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure


@dataclasses.dataclass(frozen=True)
class Block(Structure):
    """Tiles of the GEMM matrix: `rows` consecutive outputs x `columns` columns.

    `Block(16, 1)`, the default, is the *block column* of the papers: 16 consecutive
    filters share which columns survive, which is what the runtime packs into one band.
    `Block(1, q)` is the *block row*, `Block(p, q)` the whole block. Columns are counted
    in OHWI order, so that q columns are q neighbouring input channels at one kernel
    position (and run on into the next position). Tiles at the right and the lower edge
    may be smaller.

    Args:
        rows: Outputs a tile spans, at least 1.
        columns: Columns a tile spans, at least 1.

    Example:

    >>> Block(16, 1).group_grid(KernelShape(9, 8, 40))
    (72, 3)
    """

    rows: int = 16
    columns: int = 1

    def __post_init__(self):
        for name in ("rows", "columns"):
            extent = getattr(self, name)
            if isinstance(extent, bool) or not isinstance(extent, int) or extent < 1:
                raise ValueError(
                    f"Argument `{name}` of Block must be an integer of at least 1. "
                    f"Received: {name}={extent!r}"
                )

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return (-(-shape.columns // self.columns), -(-shape.outputs // self.rows))

    def sums(self, values, shape: KernelShape, xp=np):
        sums = xp.reshape(values, (shape.columns, shape.outputs))
        sums = _tile_sums(sums, 1, min(self.rows, shape.outputs), xp)
        return _tile_sums(sums, 0, min(self.columns, shape.columns), xp)

    def spread(self, groups, shape: KernelShape, xp=np):
        weights = _repeat(groups, 0, self.columns, shape.columns, xp)
        weights = _repeat(weights, 1, self.rows, shape.outputs, xp)
        return xp.reshape(weights, tuple(shape))


def _tile_sums(matrix, axis: int, tile: int, xp):
    """Sums over runs of `tile` entries along `axis`; the last run may be shorter."""
    if tile == 1:
        return matrix
    extent = matrix.shape[axis]
    whole = extent // tile * tile
    parts = []
    if whole:
        head = matrix if whole == extent else _slice(matrix, axis, 0, whole)
        folded = list(head.shape)
        folded[axis : axis + 1] = [whole // tile, tile]
        parts.append(xp.sum(xp.reshape(head, folded), axis=axis + 1))
    if whole < extent:
        tail = _slice(matrix, axis, whole, extent)
        parts.append(xp.sum(tail, axis=axis, keepdims=True))
    return parts[0] if len(parts) == 1 else xp.concatenate(parts, axis=axis)


def _slice(matrix, axis: int, start: int, stop: int):
    return matrix[start:stop] if axis == 0 else matrix[:, start:stop]


def _repeat(groups, axis: int, tile: int, extent: int, xp):
    """Each entry `tile` times along `axis`, cut to `extent`."""
    if tile == 1:
        return groups
    return _slice(xp.repeat(groups, tile, axis=axis), axis, 0, extent)
