# SPDX-License-Identifier: Apache-2.0
"""What shrinking did, layer by layer."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections import Counter

import keras
import numpy as np

from tfrewprune.shrinking.passages import Passage, Vectors
from tfrewprune.shrinking.selection import Selection
from tfrewprune.text import aligned, line_width


@dataclasses.dataclass(frozen=True)
class ShrinkRow:
    """One layer with weights.

    Attributes:
        layer: Its path inside the model.
        kind: Its class.
        channels: Its outputs before.
        channels_left: Its outputs now.
        weights: Numbers of all its variables before.
        weights_left: The same now.
        reason: Why it stays as it is, or why channels stay that do nothing; None where
            nothing dead is left.
    """

    layer: str
    kind: str
    channels: int
    channels_left: int
    weights: int
    weights_left: int
    reason: str | None = None

    def to_dict(self) -> dict:
        """JSON-serializable."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class ShrinkResult:
    """What `shrink` did.

    Attributes:
        model: The smaller model; the given one where nothing could be done.
        layers: One row a layer with weights.
        difference: Largest difference of the outputs of both models on the inputs of
            the check, over the largest output.
        reason: Why the whole model stays as it is; None where it was looked at.
    """

    model: keras.Model
    layers: list[ShrinkRow]
    difference: float = 0.0
    reason: str | None = None

    @property
    def weights(self) -> int:
        """Numbers of all variables before."""
        return sum(row.weights for row in self.layers)

    @property
    def weights_left(self) -> int:
        """Numbers of all variables of the smaller model."""
        return sum(row.weights_left for row in self.layers)

    @property
    def headline(self) -> str:
        """Sizes and difference in a line."""
        if self.reason is not None:
            return f"left as it is: {self.reason}"
        rate = self.weights / max(self.weights_left, 1)
        return (
            f"{self.weights:,} weights, {self.weights_left:,} left: {rate:.2f}x fewer; "
            f"outputs agree to {self.difference:.1e} of the largest"
        )

    def to_dict(self) -> dict:
        """JSON-serializable; without the model."""
        return {
            "weights": self.weights,
            "weights_left": self.weights_left,
            "difference": self.difference,
            "reason": self.reason,
            "layers": [row.to_dict() for row in self.layers],
        }

    def __repr__(self) -> str:
        return f"<ShrinkResult: {self.headline}>"

    def __str__(self) -> str:
        return f"{_table(self.layers)}\n{self.headline}"


def layer_rows(
    passages: list[Passage], left: list[Passage], selection: Selection
) -> list[ShrinkRow]:
    """A row for each layer with weights, in the order of execution.

    Args:
        passages: All calls of the model.
        left: Those that the smaller model has.
        selection: The channels that stay.
    """
    rows: dict[int, ShrinkRow] = {}
    present = {id(passage) for passage in left}
    for passage in passages:
        layer = passage.layer
        if id(layer) in rows or not getattr(layer, "weights", None):
            continue
        weights = count_weights(layer)
        channels = sum(len(signal.units) for signal in passage.outputs)
        if id(passage) not in present:
            row = (channels, 0, weights, 0)
        elif passage.reason is not None:
            row = (channels, channels, weights, weights, passage.reason)
        else:
            (signal,) = passage.outputs
            narrow = passage.narrowed(selection.kept)
            left = sum(np.size(array) for array in narrow[1])
            kept = len(selection.kept(signal))
            row = (len(signal.units), kept, weights, left, _reason(passage, selection))
        rows[id(layer)] = ShrinkRow(layer.name, type(layer).__name__, *row)
    return list(rows.values())


def count_weights(layer: keras.Layer) -> int:
    """Numbers of all variables of a layer."""
    return sum(math.prod(variable.shape) for variable in layer.weights)


def _reason(passage: Passage, selection: Selection) -> str | None:
    """Why channels stay that carry nothing but a constant, or that nobody reads."""
    if isinstance(passage, Vectors):
        return None  # the layer whose outputs they are tells
    (signal,) = passage.outputs
    roots = selection.units.roots(signal.units)
    dead = selection.stays[roots] & (
        np.isfinite(signal.value) | ~selection.needed[roots]
    )
    counts = Counter(
        selection.reasons.get(unit, "they join channels that vary")
        for unit in roots[dead].tolist()
    )
    if not counts:
        return None
    parts = [f"{count} as {why}" for why, count in counts.items()]
    return "dead channels that stay: " + "; ".join(parts)


def _table(rows: list[ShrinkRow]) -> str:
    width = line_width()
    table = [("layer", "kind", "channels", "left", "weights", "left")]
    for row in rows:
        counts = (row.channels, row.channels_left, row.weights, row.weights_left)
        table.append((row.layer, row.kind, *(f"{count:,}" for count in counts)))
    lines = []
    for line, row in zip(aligned(table, 2), [None, *rows], strict=True):
        lines.append(line)
        if row is not None and row.reason:
            lines += textwrap.wrap(
                row.reason, width, initial_indent="    ", subsequent_indent="      "
            )
    return "\n".join(lines)
