# SPDX-License-Identifier: Apache-2.0
"""What a model may cost, as a user writes it, and what a layer costs by what is kept.

Without Keras: `.tflite` files are pruned to constraints, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tfrewprune.payload.cost import LayerShape, default_cost_model
from tfrewprune.payload.gain import joint_gain

CONSTRAINTS = ("weights", "macs", "bytes", "latency_ms")

#: Rows of the highest band.
_BAND = 16


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What a layer costs, dense or pruned.

    Bytes and time are those of the better of packed and dense, as the converter
    chooses; a layer without a packed operator saves neither.

    Attributes:
        runs: How often it is run for one input, by its size for a batch of one; None
            if unknown.
        weights: Number of weights.
        rows_alike: Neighbouring rows that keep the same columns.
        item: Bytes of a weight in the file.
        packed: Whether there is a packed operator for it.
        unknown: Why the runs are, for the error where it is needed.
    """

    runs: Mapping[LayerShape, int] | None
    weights: int
    rows_alike: int = _BAND
    item: int = 4
    packed: bool = True
    unknown: str = "its multiplications need a model of fixed input size"

    def of(self, unit: str, kept: float) -> float:
        """Cost of the layer with so many weights left.

        Args:
            unit: One of `CONSTRAINTS`; time is the cost model's for one thread.
            kept: Number of weights.

        Raises:
            ValueError: Multiplications or time, and the size is not known.
        """
        if unit == "weights":
            return float(kept)
        if unit == "bytes":
            dense = float(self.weights * self.item)
            # A band stores a column's number (2 bytes) once, single weights one each.
            packed = kept * (self.item + 2 / min(_BAND, self.rows_alike))
            return min(dense, packed) if self._gain(kept) > 1 else dense
        if self.runs is None:
            raise ValueError(self.unknown)
        if unit == "macs":
            times = sum(size.pixels * times for size, times in self.runs.items())
            return float(kept * times)
        cost = default_cost_model()
        dense = sum(cost.dense(size) * times for size, times in self.runs.items())
        return dense / 1000 / max(1.0, self._gain(kept))

    def _gain(self, kept: float) -> float:
        """Dense time / packed time."""
        if not self.packed or kept >= self.weights:
            return 1.0
        if self.runs is None:
            return math.inf
        return joint_gain(self.runs, self.weights / max(1, kept), self.rows_alike)


def checked_constraints(constraints: Any) -> dict[str, float | str]:
    """Constraints in the order given, amounts as numbers and shares as text.

    Raises:
        ValueError: No dict, an unknown unit, or an impossible limit.

    Example:

    >>> checked_constraints({"weights": 0.5, "macs": "40%", "bytes": "500_000"})
    {'weights': 0.5, 'macs': '40%', 'bytes': 500000.0}
    """
    if not isinstance(constraints, dict) or not constraints:
        raise ValueError(
            f"Argument `constraints` must be a dict of some of {CONSTRAINTS} and their "
            f"limits. Received: constraints={constraints!r}"
        )
    return {name: _checked(name, limit) for name, limit in constraints.items()}


def _checked(name: str, limit: Any) -> float | str:
    if name not in CONSTRAINTS:
        raise ValueError(
            f"Unknown constraint {name!r}. Expected some of {CONSTRAINTS}."
        )
    text = limit.strip() if isinstance(limit, str) else ""
    share = text.endswith("%")
    try:
        number = float(text.removesuffix("%")) if text else limit
    except ValueError:
        number = math.nan
    valid = isinstance(number, int | float) and not isinstance(number, bool)
    if not valid or not 0 < number < math.inf or (share and number > 100):
        raise ValueError(
            f"The constraint {name!r} must be a positive number, or a share such "
            f"as '40%'. Received: {limit!r}"
        )
    return text if share else number


def limit_of(name: str, asked: float | str, dense: float) -> float:
    """A constraint in units of what it limits.

    Args:
        name: One of `CONSTRAINTS`.
        asked: As `checked_constraints` returned it: a text, or a number of at most 1
            where that is no time, is a share.
        dense: What the dense model costs.

    Example:

    >>> limit_of("macs", "40%", 5000), limit_of("latency_ms", 0.5, 2.0)
    (2000.0, 0.5)
    """
    if isinstance(asked, str):
        return float(asked.removesuffix("%")) / 100 * dense
    return asked * dense if asked <= 1 and name != "latency_ms" else float(asked)
