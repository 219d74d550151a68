# SPDX-License-Identifier: Apache-2.0
"""Block: tiles of the GEMM matrix, their rows neighbours or banded by likeness."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.likeness import order_by_likeness
from tfrewprune.structures.structure import Structure, check_extents
from tfrewprune.structures.tiles import tile_spread, tile_sums, tiles


@dataclasses.dataclass(frozen=True)
class Block(Structure):
    """Tiles of the GEMM matrix: `rows` consecutive outputs x `columns` columns.

    `Block(16, 1)`, the default, is the *block column* of the papers: 16 consecutive
    filters share which columns survive, which is what the runtime packs into one band.
    `Block(1, q)` is the *block row*, `Block(p, q)` the whole block. Columns are counted
    in OHWI order, so that q columns are q neighbouring input channels at one kernel
    position (and run on into the next position). Tiles at the right and the lower edge
    may be smaller. Source: Ma et al., arXiv 2001.08357; whole blocks, Li et al., arXiv
    2009.08065.

    With `cluster=True` a tile spans outputs that are *alike* in place of neighbours:
    `fitted` orders the outputs so that those of a band have their large weights in the
    same columns (`order_by_likeness`), and more of them survive. `arrange`, with which
    `compress` begins, does the same by moving filters, for models whose graph is known;
    this is for the others. Packed rows carry their number, so any order runs, but rows
    that lie apart are stored one by one, which takes a layer 1.1 to 1.7 times as long;
    `convert` moves them side by side where it can.

    Args:
        rows: Outputs a tile spans, at least 1.
        columns: Columns a tile spans, at least 1.
        cluster: Whether outputs are banded by likeness.
        order: The outputs in the order in which they are banded; None leaves it to
            `fitted`. Only with `cluster=True`.

    Raises:
        ValueError: A size below 1, an `order` that is no order of the outputs, or (when
            groups are asked for) an order that is still open.

    Example:

    >>> Block(16, 1).group_grid(KernelShape(9, 8, 40))
    (72, 3)
    """

    rows: int = 16
    columns: int = 1
    cluster: bool = False
    order: tuple[int, ...] | None = dataclasses.field(default=None, repr=False)
    in_block_rows: ClassVar[bool] = True

    def __post_init__(self):
        check_extents(self, "rows", "columns")
        if not isinstance(self.cluster, bool):
            raise ValueError(
                "Argument `cluster` of Block must be True or False. "
                f"Received: cluster={self.cluster!r}"
            )
        if self.order is None:
            return
        object.__setattr__(self, "order", tuple(int(row) for row in self.order))
        if not self.cluster or sorted(self.order) != list(range(len(self.order))):
            raise ValueError(
                "Argument `order` of Block names each output once, from 0 on, and goes "
                f"with cluster=True. Received: cluster={self.cluster}, "
                f"order={self.order}"
            )

    def get_config(self) -> dict:
        config = super().get_config()
        if not self.cluster:
            del config["cluster"], config["order"]
        return config

    def fitted(self, kernel: np.ndarray) -> Block:
        if not self.cluster or self.order is not None:
            return self
        strips = Block(1, self.columns)
        energy = strips.sums(np.square(kernel), KernelShape(*kernel.shape))
        order = order_by_likeness(energy.T, self.rows)
        return dataclasses.replace(self, order=order)

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return (tiles(shape.columns, self.columns), tiles(shape.outputs, self.rows))

    def sums(self, values, shape: KernelShape, xp=np):
        matrix = xp.reshape(values, (shape.columns, shape.outputs))
        if self.cluster:
            sums = xp.matmul(matrix, xp.array(self._bands(shape)))
        else:
            sums = tile_sums(matrix, 1, self.rows, xp)
        return tile_sums(sums, 0, self.columns, xp)

    def spread(self, groups, shape: KernelShape, xp=np):
        if self.cluster:
            weights = xp.matmul(groups, xp.array(self._bands(shape).T))
        else:
            weights = tile_spread(groups, 1, self.rows, shape.outputs, xp)
        weights = tile_spread(weights, 0, self.columns, shape.columns, xp)
        return xp.reshape(weights, tuple(shape))

    def rows_alike(self, shape: KernelShape) -> int:
        return min(self.rows, shape.outputs)

    def _bands(self, shape: KernelShape) -> np.ndarray:
        """1 where an output (row) belongs to a band (column), else 0.

        By products with it and not by taking columns in order, which is ten times
        slower in TensorFlow.
        """
        if self.order is None or len(self.order) != shape.outputs:
            known = "no order" if self.order is None else f"one of {len(self.order)}"
            raise ValueError(
                f"{self} needs an order of {shape.outputs} outputs and has {known}. "
                "Take `structure.fitted(kernel)`; `attach` and `wrap` do so."
            )
        place = np.argsort(self.order)
        bands = np.arange(tiles(shape.outputs, self.rows))
        return (place[:, None] // self.rows == bands).astype(np.float32)
