# SPDX-License-Identifier: Apache-2.0
"""Punched: the same position in all kernels of a block of filters and channels."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure, check_extents
from tfrewprune.structures.tiles import tile_spread, tile_sums, tiles


@dataclasses.dataclass(frozen=True)
class Punched(Structure):
    """One kernel position in all kernels of `rows` filters x `channels` channels.

    The same holes are punched through all kernels of a block. Unlike
    `Block(rows, columns)` a group never runs on into the next kernel position. On a
    `Dense` layer it equals `Block(rows, channels)`. Groups at the edges may be smaller.
    Source: Cai et al., "YOLObile", arXiv 2009.05697 (*block-punched*, 8 x 4); for
    `Conv3D` the *KGS* sparsity of Niu et al., "RT3D", arXiv 2007.09835.

    Args:
        rows: Filters (outputs) a block spans, at least 1.
        channels: Input channels a block spans, at least 1.

    Example:

    >>> Punched(8, 4).group_grid(KernelShape(9, 10, 40))
    (9, 3, 5)
    """

    rows: int = 8
    channels: int = 4
    in_block_rows: ClassVar[bool] = True

    def __post_init__(self):
        check_extents(self, "rows", "channels")

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return (
            shape.positions,
            tiles(shape.channels, self.channels),
            tiles(shape.outputs, self.rows),
        )

    def sums(self, values, shape: KernelShape, xp=np):
        sums = tile_sums(values, 2, self.rows, xp)
        return tile_sums(sums, 1, self.channels, xp)

    def spread(self, groups, shape: KernelShape, xp=np):
        weights = tile_spread(groups, 1, self.channels, shape.channels, xp)
        return tile_spread(weights, 2, self.rows, shape.outputs, xp)

    def rows_alike(self, shape: KernelShape) -> int:
        return min(self.rows, shape.outputs)
