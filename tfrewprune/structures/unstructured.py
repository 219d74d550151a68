# SPDX-License-Identifier: Apache-2.0
"""Unstructured: every weight is its own group."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure


@dataclasses.dataclass(frozen=True)
class Unstructured(Structure):
    """Each weight lives or dies alone (irregular sparsity)."""

    in_block_rows: ClassVar[bool] = True

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return tuple(shape)

    def sums(self, values, shape: KernelShape, xp=np):
        return values

    def spread(self, groups, shape: KernelShape, xp=np):
        return groups
