# SPDX-License-Identifier: Apache-2.0
"""Rates from losses: the table of loss and cost, and the choice that it leads to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfrewprune.recipe import Infeasible


@dataclasses.dataclass(frozen=True)
class LossTable:
    """What each way to prune a layer loses and costs; plain numbers.

    Attributes:
        layer: Name of the layer.
        kept: Surviving weights of each choice, falling; the first is the dense layer.
        loss: What each choice loses; sums over layers are compared.
        cost: What each choice costs, by unit (`"weights"`, `"macs"`, ...).
    """

    layer: str
    kept: tuple[int, ...]
    loss: tuple[float, ...]
    cost: dict[str, tuple[float, ...]]


def allocate(
    tables: Sequence[LossTable],
    limits: Mapping[str, float],
    fixed: Mapping[str, float] | None = None,
) -> list[int]:
    """One choice a layer with the least loss found whose costs keep to the limits.

    From the dense model on, the step with the least loss per cost is taken until every
    limit is met; cost is that of the limits still exceeded, in parts of the excess. A
    step may go several choices down at once, so that a bump in a table hides nothing.
    What the last step saved too much is given back.

    Args:
        tables: The layers.
        limits: What the costs of all layers may add up to, by unit.
        fixed: What is in those sums besides the layers of the tables.

    Returns:
        The number of the choice taken of each table.

    Raises:
        Infeasible: A limit is below what the last choices cost together.

    Example:

    >>> table = LossTable("a", (9, 3), (0.0, 0.1), {"weights": (9.0, 3.0)})
    >>> allocate([table], {"weights": 4})
    [1]
    """
    fixed = fixed or {}
    for unit, limit in limits.items():
        least = sum(min(table.cost[unit]) for table in tables)
        other = fixed.get(unit, 0)
        if least + other > limit * (1 + 1e-9):
            raise Infeasible(
                f"The constraint {unit} <= {limit:,.6g} cannot be met: at the largest "
                f"rates the layers that may be pruned still need {least:,.6g}, and "
                f"what stays as it is needs {other:,.6g}."
            )
    chosen = [0] * len(tables)
    loss = [np.asarray(table.loss) for table in tables]
    cost = [
        {unit: np.asarray(table.cost[unit], float) for unit in limits}
        for table in tables
    ]

    def room() -> dict[str, float]:
        """What is left of each limit, below 0 where it is exceeded."""
        return {
            unit: limit * (1 + 1e-9)
            - fixed.get(unit, 0)
            - sum(each[unit][i] for each, i in zip(cost, chosen, strict=True))
            for unit, limit in limits.items()
        }

    while excess := {unit: -left for unit, left in room().items() if left < 0}:
        best = (np.inf, 0, 0)
        for number, here in enumerate(chosen):
            saved = sum(
                np.minimum((each[here] - each[here + 1 :]) / excess[unit], 1)
                for unit, each in cost[number].items()
                if unit in excess
            )
            lost = np.maximum(loss[number][here + 1 :] - loss[number][here], 0)
            price = np.full(len(lost), np.inf)
            np.divide(lost + 1e-12, saved, out=price, where=np.asarray(saved) > 0)
            if price.size and price.min() < best[0]:
                best = (price.min(), number, here + 1 + int(price.argmin()))
        if not np.isfinite(best[0]):  # limits that pull in different directions
            units = ", ".join(
                f"{unit} (over by {over:,.6g})" for unit, over in excess.items()
            )
            raise Infeasible(
                f"No choice of rates meets all constraints at once: {units}."
            )
        chosen[best[1]] = best[2]
    while _give_back(chosen, loss, cost, room()):
        pass
    return chosen


def _give_back(
    chosen: list[int],
    loss: list[np.ndarray],
    cost: list[dict[str, np.ndarray]],
    room: dict[str, float],
) -> bool:
    """Takes the one step back that there is room for and gains most; if any."""
    best = (0.0, 0, 0)
    for number, here in enumerate(chosen):
        for other in range(here):
            gain = loss[number][here] - loss[number][other]
            fits = all(
                each[other] - each[here] <= room[unit]
                for unit, each in cost[number].items()
            )
            if fits and gain > best[0]:
                best = (gain, number, other)
    if best[0] > 0:
        chosen[best[1]] = best[2]
    return best[0] > 0
