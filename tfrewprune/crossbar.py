# SPDX-License-Identifier: Apache-2.0
"""What a model needs of a processing-in-memory engine: tiles, cells and writes.

After Yuan et al., "A DNN Compression Framework for SOT-MRAM-based Processing-in-Memory
Engine", arXiv 1912.05416: weights stand in crossbars of memory cells, whole lines of
which are saved when they hold nothing, and a cell holds few levels and is slow to
write. The paper's abstract has no sizes; those here are of the same group's memristor
design ("Tiny but Accurate", ASP-DAC 2020).
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfrewprune.levels import Levels
from tfrewprune.pipeline.levels import LevelRow
from tfrewprune.structures import BlockRowColumn
from tfrewprune.structures.layout import matrix_from_kernel
from tfrewprune.text import line_width
from tfrewprune.wrappers.targets import all_kernels

FIGURES = ("tiles", "cells", "writes")


@dataclasses.dataclass(frozen=True)
class Crossbar:
    """One tile of an engine.

    Args:
        rows: Outputs that a tile holds.
        columns: Columns of the GEMM matrix that a tile holds.
        cell_bits: Bits of a cell; a weight of more bits takes several cells.

    Raises:
        ValueError: Not integers of at least 1.

    Example:

    >>> Crossbar().structure
    BlockRowColumn(rows=128, columns=64)
    >>> Crossbar(cell_bits=4).cells_of(8)
    2
    """

    rows: int = 128
    columns: int = 64
    cell_bits: int = 4

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"Argument `{name}` of Crossbar must be an integer of at least 1. "
                    f"Received: {name}={value!r}"
                )

    @property
    def structure(self) -> BlockRowColumn:
        """The structure whose groups are the lines of the tiles."""
        return BlockRowColumn(self.rows, self.columns)

    def cells_of(self, bits: int) -> int:
        """Cells of a weight."""
        return math.ceil(bits / self.cell_bits)


@dataclasses.dataclass(frozen=True)
class CrossbarRow:
    """One layer in an engine, beside the same layer with all its weights.

    Attributes:
        layer: Path of the layer.
        bits: Bits of a weight.
        tiles: Tiles that hold a weight.
        cells: Cells where a row and a column of a tile cross that both hold a weight;
            the other lines are free.
        writes: Cells that are not zero and so must be written: parts of `cell_bits` of
            the magnitude of a weight.
        dense_tiles, dense_cells, dense_writes: Likewise, of the dense layer; it is
            written whole.
    """

    layer: str
    bits: int
    tiles: int
    cells: int
    writes: int
    dense_tiles: int
    dense_cells: int
    dense_writes: int


@dataclasses.dataclass(frozen=True)
class CrossbarReport:
    """What `crossbar_report` found; `print` it for a table.

    Attributes:
        crossbar: The tile.
        layers: One row a layer.
    """

    crossbar: Crossbar
    layers: list[CrossbarRow]

    def total(self, figure: str) -> int:
        """Sum over the layers of a field of `CrossbarRow`."""
        return sum(getattr(row, figure) for row in self.layers)

    def saved(self, figure: str) -> float:
        """Share of the dense model's tiles, cells or writes that is saved."""
        return 1 - self.total(figure) / self.total(f"dense_{figure}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-serializable."""
        return {
            "crossbar": dataclasses.asdict(self.crossbar),
            "layers": [dataclasses.asdict(row) for row in self.layers],
            **{
                figure: {
                    "dense": self.total(f"dense_{figure}"),
                    "left": self.total(figure),
                    "saved": self.saved(figure),
                }
                for figure in FIGURES
            },
        }

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        tile = self.crossbar
        table = Table(
            title=f"Crossbars of {tile.rows} x {tile.columns} cells of "
            f"{tile.cell_bits} bits",
            title_justify="left",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("layer")
        for column in ("bits", *FIGURES):
            table.add_column(column, justify="right")
        for row in self.layers:
            table.add_row(row.layer, str(row.bits), *self._cells(row))
        saved = [f"{self.saved(figure):.1%}" for figure in FIGURES]
        table.add_section()
        table.add_row("saved", "", *saved)
        console = Console(file=io.StringIO(), width=line_width())
        console.print(table)
        return console.file.getvalue().rstrip()

    @staticmethod
    def _cells(row: CrossbarRow) -> Iterator[str]:
        for figure in FIGURES:
            dense, left = getattr(row, f"dense_{figure}"), getattr(row, figure)
            yield f"{left:,} of {dense:,}"


def crossbar_report(
    model: Any, crossbar: Crossbar | None = None, *, bits: int | None = None
) -> CrossbarReport:
    """What the layers of a model take in crossbars, and what pruning has saved.

    Args:
        model: What `quantize` or `compress` with a quantization returned; or a Keras
            model, of whose weights nothing but `bits` is then known.
        crossbar: Default: tiles of 128 x 64 cells of 4 bits.
        bits: Of a weight of layers that do not lie on levels.

    Returns:
        A `CrossbarReport`: tiles, cells and writes, of the model and of its dense twin
        of the same bits.

    Raises:
        ValueError: A model without weight matrices, or layers without levels and no
            `bits`.
    """
    crossbar = crossbar or Crossbar()
    levels = _levels_of(model)
    model = model if isinstance(model, keras.Model) else model.model
    rows = []
    for target in all_kernels(model):
        if target.spec is None:
            continue
        of_layer = levels.get(target.label)
        width = bits if of_layer is None else of_layer.bits_beside_zero
        if width is None:
            raise ValueError(
                f"crossbar_report: layer {target.label!r} does not lie on levels. Give "
                "what quantize() returned, or the `bits` of its weights."
            )
        kernel = target.values()
        cells = crossbar.cells_of(width)
        written = np.where(kernel != 0, cells, 0)
        if of_layer is not None:
            written = _digits(kernel, of_layer, crossbar.cell_bits)
        rows.append(
            CrossbarRow(
                *(target.label, width),
                **_figures(matrix_from_kernel(kernel), crossbar, cells),
                writes=int(written.sum()),
                dense_writes=kernel.size * cells,
            )
        )
    if not rows:
        raise ValueError(f"Model {model.name!r} has no weight matrix.")
    return CrossbarReport(crossbar, rows)


def _levels_of(model: Any) -> dict[str, Levels]:
    """Levels by layer that the result of a quantization tells."""
    rows: Sequence[Any] = getattr(model, "levels", None) or getattr(model, "layers", ())
    return {
        row.layer: row.levels
        for row in rows
        if isinstance(row, LevelRow) and row.levels is not None
    }


def _figures(matrix: np.ndarray, crossbar: Crossbar, cells: int) -> dict[str, int]:
    """Tiles and cells of a GEMM matrix (outputs, columns)."""
    tiles = in_use = 0
    outputs, columns = matrix.shape
    for top in range(0, outputs, crossbar.rows):
        for left in range(0, columns, crossbar.columns):
            block = matrix[top : top + crossbar.rows, left : left + crossbar.columns]
            lines = [int(block.any(axis=axis).sum()) for axis in (0, 1)]
            tiles += any(lines)
            in_use += lines[0] * lines[1]
    across = math.ceil(outputs / crossbar.rows)
    dense = across * math.ceil(columns / crossbar.columns)
    return {
        "tiles": tiles * cells,
        "cells": in_use * cells,
        "dense_tiles": dense * cells,
        "dense_cells": matrix.size * cells,
    }


def _digits(kernel: np.ndarray, levels: Levels, cell_bits: int) -> np.ndarray:
    """How many parts of `cell_bits` of each weight's magnitude are not zero."""
    left = np.rint(np.abs(kernel) / levels.scale(kernel)).astype(np.int64)
    count = np.zeros_like(left)
    while left.any():
        count += left % (1 << cell_bits) != 0
        left >>= cell_bits
    return count
