# SPDX-License-Identifier: Apache-2.0
"""Channel: all weights that read one input channel."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure


@dataclasses.dataclass(frozen=True)
class Channel(Structure):
    """All weights that read one input channel, at every kernel position.

    On a `Dense` layer, which has one position, this equals `Column`.
    """

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return (shape.channels,)

    def sums(self, values, shape: KernelShape, xp=np):
        return xp.sum(values, axis=(0, 2))

    def spread(self, groups, shape: KernelShape, xp=np):
        groups = xp.reshape(groups, (1, shape.channels, 1))
        return xp.broadcast_to(groups, tuple(shape))

    def rows_alike(self, shape: KernelShape) -> int:
        return shape.outputs
