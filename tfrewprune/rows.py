# SPDX-License-Identifier: Apache-2.0
"""One row a layer, as all pruning reports it. Needs no Keras."""

from __future__ import annotations

import dataclasses
import textwrap

from tfrewprune.structures import Structure
from tfrewprune.text import aligned, line_width

NO_MATRIX = "no weight matrix"
"""The reason of layers whose weights are vectors, such as a normalization."""


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """Figures of one kernel. `reason` is None for a pruned one.

    Attributes:
        layer: Path of the layer inside the model.
        kind: Layer class.
        structure: Structure, or None.
        shape: Shape of the weight tensor in Keras' order, of a gate's or of all heads'
            part as a matrix; () if there is no kernel.
        weights: Number of weights.
        kept: Weights of the groups that are left: inside the mask and not all zero.
            Without a structure the non-zero weights.
        groups: Number of groups.
        groups_kept: Groups that are left.
        reason: Why the layer is dense.
        note: What the user should know about a pruned layer, or None.
    """

    layer: str
    kind: str
    structure: Structure | None
    shape: tuple[int, ...]
    weights: int = 0
    kept: int = 0
    groups: int = 0
    groups_kept: int = 0
    reason: str | None = None
    note: str | None = None

    @property
    def rate(self) -> float:
        """Dense / kept weights; infinity if nothing is kept, 1 without weights."""
        if not self.weights:
            return 1.0
        return self.weights / self.kept if self.kept else float("inf")

    def to_dict(self) -> dict:
        """JSON-serializable."""
        row = dataclasses.asdict(self)
        row["structure"] = self.structure and self.structure.get_config()
        row["shape"] = list(self.shape)
        row["rate"] = self.rate if self.kept else None
        return row


def total_rate(rows: list[LayerRow]) -> float:
    """Dense / kept weights over the pruned kernels."""
    pruned = [row for row in rows if row.reason is None]
    weights, kept = sum(row.weights for row in pruned), sum(row.kept for row in pruned)
    return weights / kept if kept else (float("inf") if weights else 1.0)


def format_rows(rows: list[LayerRow], width: int | None = None) -> str:
    """The rows as text: a table of the pruned kernels, then what stayed dense and why.

    Args:
        rows: What `hard_prune` or `sparsity_summary` returned.
        width: Columns; default those of the terminal (or of `COLUMNS`), 80 elsewhere.
    """
    width = width or line_width()
    pruned = [row for row in rows if row.reason is None and row.shape]
    table = [("layer", "structure", "shape", "weights", "kept", "rate")]
    for row in pruned:
        table.append(
            (
                row.layer,
                "-" if row.structure is None else str(row.structure),
                "x".join(map(str, row.shape)),
                f"{row.weights:,}",
                f"{row.kept:,}",
                f"{row.rate:.2f}x",
            )
        )
    lines = []
    shown = aligned(table, 3, width=width)
    for line, row, after in zip(shown, [None, *pruned], [*pruned, None], strict=True):
        lines.append(line)
        if row is not None and row.note and (after is None or after.note != row.note):
            lines += _wrapped(row.note, width, "    ")
    dense = [row for row in rows if row.reason is not None]
    plain = [row for row in dense if row.reason == NO_MATRIX]
    dense = [row for row in dense if row.reason != NO_MATRIX]
    if dense:
        lines.append("left dense:")
        for row in dense:
            lines += _wrapped(f"{row.layer}: {row.reason}", width, "  ")
    if plain:
        lines.append(f"without a weight matrix: {len(plain)} layers")
    return "\n".join(lines if pruned else lines[1:])


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + "  "
    )
