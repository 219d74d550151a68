# SPDX-License-Identifier: Apache-2.0
"""One row a layer: what was kept, what was left dense and why."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tfrewprune.structures import Structure
from tfrewprune.wrappers.targets import Target, all_kernels


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """Figures of one kernel. `reason` is None for a pruned one.

    Attributes:
        layer: Path of the layer inside the model.
        kind: Layer class.
        structure: Structure, or None.
        shape: Shape of the weight tensor in Keras' order; () if there is no kernel.
        weights: Number of weights.
        kept: Weights that may be non-zero: those inside the mask, or, without a mask,
            the non-zero ones.
        groups: Number of groups.
        groups_kept: Groups inside the mask, or with a non-zero weight.
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


def sparsity_summary(model: keras.Model, targets: list[Target] | None = None):
    """Figures of every layer with weights.

    Args:
        model: Any Keras model, before, during or after pruning. After `strip` it shows
            the zeros that are there.
        targets: What a recipe made of the model, to carry its reasons.

    Returns:
        A list of `LayerRow`s in the order of the model.
    """
    targets = all_kernels(model) if targets is None else targets
    return [layer_row(target) for target in targets]


def layer_row(target: Target, note: str | None = None) -> LayerRow:
    """Figures of one target."""
    kind = type(target.layer).__name__
    if target.spec is None:
        return LayerRow(target.path, kind, None, (), reason=target.reason)
    kernel, shape = target.spec.layout.to_kernel(target.weights()), target.shape
    structure = target.structure if target.reason is None else None
    kept = int(np.count_nonzero(kernel))
    groups = groups_kept = 0
    if structure is not None:
        groups = structure.group_count(shape)
        survivors = structure.surviving_groups(kernel)
        if target.mask is not None and target.mask.groups is not None:
            survivors = target.mask.groups
            kept = int(structure.group_sizes(shape)[survivors].sum())
        groups_kept = int(survivors.sum())
    return LayerRow(
        layer=target.path,
        kind=kind,
        structure=structure,
        shape=tuple(target.variable.shape),
        weights=shape.weights,
        kept=kept,
        groups=groups,
        groups_kept=groups_kept,
        reason=target.reason,
        note=note,
    )


def total_rate(rows: list[LayerRow], pruned_only: bool = False) -> float:
    """Dense / kept over all kernels, or over the pruned ones only."""
    rows = [row for row in rows if row.reason is None or not pruned_only]
    weights, kept = sum(row.weights for row in rows), sum(row.kept for row in rows)
    return weights / kept if kept else (float("inf") if weights else 1.0)


def format_rows(rows: list[LayerRow]) -> str:
    """The rows as a plain text table."""
    table = [("layer", "kind", "structure", "shape", "weights", "kept", "rate", "")]
    for row in rows:
        table.append(
            (
                row.layer,
                row.kind,
                "-" if row.structure is None else structure_label(row.structure),
                "x".join(map(str, row.shape)) or "-",
                f"{row.weights:,}" if row.shape else "-",
                f"{row.kept:,}" if row.shape else "-",
                f"{row.rate:.2f}x" if row.shape else "-",
                row.reason or row.note or "",
            )
        )
    widths = [max(len(line[i]) for line in table) for i in range(7)]
    lines = []
    for line in table:
        cells = [
            cell.rjust(width) if index > 3 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=False))
        ]
        lines.append("  ".join([*cells, line[7]]).rstrip())
    return "\n".join(lines)


def structure_label(structure: Structure) -> str:
    """Short text such as `Block(16, 1)`."""
    config = structure.get_config()
    name = config.pop("structure")
    return f"{name}({', '.join(map(str, config.values()))})" if config else name
