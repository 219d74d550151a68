# SPDX-License-Identifier: Apache-2.0
"""Constraints as a user writes them, and what a layer costs by each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfrewprune.payload.cost import LayerShape, default_cost_model
from tfrewprune.payload.gain import predicted_gain

UNITS = ("weights", "macs", "bytes", "latency_ms")


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What one layer costs, dense or pruned.

    Attributes:
        size: Extent of the layer, for an input batch of one; None if unknown.
        weights: Number of weights.
        rows_alike: Outputs that keep the same columns.
        item: Bytes of a weight in the file.
    """

    size: LayerShape | None
    weights: int
    rows_alike: int = 16
    item: int = 4

    def of(self, unit: str, kept: int) -> float:
        """Cost of the layer with so many weights left.

        Bytes count values and 2 bytes for each column of a band; latency is the cost
        model's for one thread. Both are those of the dense layer where that is less.
        """
        if unit == "weights":
            return float(kept)
        if unit == "bytes":
            packed = kept * (self.item + 2 / max(1, self.rows_alike))
            return float(min(self.weights * self.item, packed))
        if self.size is None:
            raise ValueError(f"a limit of {unit} needs a model of fixed input size")
        if unit == "macs":
            return float(kept * self.size.pixels)
        dense = default_cost_model().dense(self.size) / 1000
        if kept >= self.weights:
            return dense
        rate = self.weights / max(1, kept)
        return dense / max(1.0, predicted_gain(self.size, rate, self.rows_alike))


def parse(constraints: Mapping[str, float | str]) -> dict[str, tuple[float, bool]]:
    """Checks constraints: the number of each unit, and whether it is a share of dense.

    A share is a text such as `"40%"`, or a number of at most 1 where the unit is no
    time; anything else is an amount.

    Raises:
        ValueError: No mapping, an unknown unit, or an impossible number.

    Example:

    >>> parse({"weights": 0.5, "macs": "40%", "bytes": 500_000})
    {'weights': (0.5, True), 'macs': (0.4, True), 'bytes': (500000.0, False)}
    """
    if not isinstance(constraints, Mapping) or not constraints:
        raise ValueError(
            "Argument `constraints` must be a dict of limits such as "
            f'{{"macs": "40%", "latency_ms": 3.0}}. Received: {constraints!r}'
        )
    found = {}
    for unit, limit in constraints.items():
        if unit not in UNITS:
            raise ValueError(f"Unknown constraint {unit!r}. Expected one of {UNITS}.")
        share = isinstance(limit, str) and limit.strip().endswith("%")
        try:
            number = float(limit.strip()[:-1]) / 100 if share else float(limit)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(limit, bool) or not 0 < number < float("inf"):
            raise ValueError(
                f"The limit of {unit} must be a positive number or a share such as "
                f"'40%'. Received: {limit!r}"
            )
        if not share and unit != "latency_ms" and number <= 1:
            share = True
        found[unit] = (number, share)
    return found
