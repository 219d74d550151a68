# SPDX-License-Identifier: Apache-2.0
"""Kernel and KernelGroup: all positions of a channel in a filter, or in several."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure, check_extents
from tfrewprune.structures.tiles import tile_spread, tile_sums, tiles


@dataclasses.dataclass(frozen=True)
class Kernel(Structure):
    """All positions that connect one input channel with one output (connectivity).

    Whole kernels survive: a filter no longer reads the channels of the others. On a
    `Dense` layer, which has one position, this equals `Unstructured`. Source: Zhang et
    al., arXiv 2004.05531; the connectivity of PatDNN, arXiv 2001.00138.

    Example:

    >>> Kernel().group_grid(KernelShape(9, 8, 40))
    (8, 40)
    """

    in_block_rows: ClassVar[bool] = True

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return (shape.channels, shape.outputs)

    def sums(self, values, shape: KernelShape, xp=np):
        return xp.sum(values, axis=0)

    def spread(self, groups, shape: KernelShape, xp=np):
        return xp.broadcast_to(groups, tuple(shape))


@dataclasses.dataclass(frozen=True)
class KernelGroup(Structure):
    """All kernels that connect `channels` input channels with `rows` filters.

    Whole kernel groups survive. Groups at the edges may be smaller. Source: Niu et
    al., "RT3D", arXiv 2007.09835, the *vanilla* sparsity of its `Conv3D` layers; its
    *KGS* is `Punched`.

    Args:
        rows: Filters (outputs) a group spans, at least 1.
        channels: Input channels a group spans, at least 1.

    Example:

    >>> KernelGroup(8, 4).group_grid(KernelShape(27, 10, 40))
    (3, 5)
    """

    rows: int = 8
    channels: int = 4
    in_block_rows: ClassVar[bool] = True

    def __post_init__(self):
        check_extents(self, "rows", "channels")

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return (tiles(shape.channels, self.channels), tiles(shape.outputs, self.rows))

    def sums(self, values, shape: KernelShape, xp=np):
        sums = tile_sums(xp.sum(values, axis=0), 1, self.rows, xp)
        return tile_sums(sums, 0, self.channels, xp)

    def spread(self, groups, shape: KernelShape, xp=np):
        kernels = tile_spread(groups, 0, self.channels, shape.channels, xp)
        kernels = tile_spread(kernels, 1, self.rows, shape.outputs, xp)
        return xp.broadcast_to(kernels, tuple(shape))

    def rows_alike(self, shape: KernelShape) -> int:
        return min(self.rows, shape.outputs)
