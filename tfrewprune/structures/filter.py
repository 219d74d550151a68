# SPDX-License-Identifier: Apache-2.0
"""Filter: all weights of one output, a row of the GEMM matrix."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure


@dataclasses.dataclass(frozen=True)
class Filter(Structure):
    """All weights that compute one output channel (or unit)."""

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return (shape.outputs,)

    def sums(self, values, shape: KernelShape, xp=np):
        return xp.sum(values, axis=(0, 1))

    def spread(self, groups, shape: KernelShape, xp=np):
        return xp.broadcast_to(groups, tuple(shape))

    def rows_alike(self, shape: KernelShape) -> int:
        return shape.outputs
