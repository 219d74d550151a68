# SPDX-License-Identifier: Apache-2.0
"""Structures: what is removed. Needs numpy only."""

from tfrewprune.structures.balanced import Balanced
from tfrewprune.structures.block import Block
from tfrewprune.structures.channel import Channel
from tfrewprune.structures.column import Column
from tfrewprune.structures.filter import Filter
from tfrewprune.structures.head import Head
from tfrewprune.structures.kernel import Kernel, KernelGroup
from tfrewprune.structures.layout import (
    KernelLayout,
    KernelShape,
    kernel_from_matrix,
    matrix_from_kernel,
)
from tfrewprune.structures.n_of_m import NofM
from tfrewprune.structures.pattern import Pattern
from tfrewprune.structures.punched import Punched
from tfrewprune.structures.row_column import BlockRowColumn, RowColumn
from tfrewprune.structures.structure import Structure, keep_largest
from tfrewprune.structures.unstructured import Unstructured

__all__ = [
    "Balanced",
    "Block",
    "BlockRowColumn",
    "Channel",
    "Column",
    "Filter",
    "Head",
    "Kernel",
    "KernelGroup",
    "KernelLayout",
    "KernelShape",
    "NofM",
    "Pattern",
    "Punched",
    "RowColumn",
    "Structure",
    "Unstructured",
    "keep_largest",
    "kernel_from_matrix",
    "matrix_from_kernel",
]
