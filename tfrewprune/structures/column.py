# SPDX-License-Identifier: Apache-2.0
"""Column: the same (position, channel) in every filter."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure


@dataclasses.dataclass(frozen=True)
class Column(Structure):
    """A column of the GEMM matrix: one (position, channel) of all filters."""

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return (shape.positions, shape.channels)

    def sums(self, values, shape: KernelShape, xp=np):
        return xp.sum(values, axis=2)

    def spread(self, groups, shape: KernelShape, xp=np):
        groups = xp.reshape(groups, (shape.positions, shape.channels, 1))
        return xp.broadcast_to(groups, tuple(shape))

    def rows_alike(self, shape: KernelShape) -> int:
        return shape.outputs
