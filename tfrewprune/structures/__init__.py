# SPDX-License-Identifier: Apache-2.0
"""Structures: what is removed. Needs numpy only."""

from tfrewprune.structures.block import Block
from tfrewprune.structures.channel import Channel
from tfrewprune.structures.column import Column
from tfrewprune.structures.filter import Filter
from tfrewprune.structures.layout import (
    KernelLayout,
    KernelShape,
    kernel_from_matrix,
    matrix_from_kernel,
)
from tfrewprune.structures.structure import Structure, keep_largest
from tfrewprune.structures.unstructured import Unstructured

__all__ = [
    "Block",
    "Channel",
    "Column",
    "Filter",
    "KernelLayout",
    "KernelShape",
    "Structure",
    "Unstructured",
    "keep_largest",
    "kernel_from_matrix",
    "matrix_from_kernel",
]
