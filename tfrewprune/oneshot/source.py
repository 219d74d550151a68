# SPDX-License-Identifier: Apache-2.0
"""What Keras models and `.tflite` files have in common when they are pruned."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from tfrewprune.calibration.network import Network
from tfrewprune.constraints import LayerCost, checked_constraints, limit_of
from tfrewprune.oneshot.losses import Infeasible
from tfrewprune.oneshot.pruning import Job
from tfrewprune.rows import LayerRow


def nothing_to_prune(reasons: dict[str, str]) -> ValueError:
    """The error of a model that stays as it is, with the reason of each layer."""
    lines = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
    return ValueError(
        "Nothing in the model can be pruned:\n"
        + (lines or "  it has no layer with weights")
    )


class Source(abc.ABC):
    """A model, its layers, and what a recipe wants of them.

    Attributes:
        network: The layers that are measured and set.
        jobs: Those that are pruned, or refitted.
        idle: What the other layers with a weight matrix cost.
        other_weights: Weights besides all those matrices.
        other_bytes: What they and the rest of the file take.
    """

    network: Network
    jobs: list[Job]
    idle: list[LayerCost]
    other_weights: int
    other_bytes: int

    @abc.abstractmethod
    def result(self) -> Any:
        """The model as it is now."""

    @abc.abstractmethod
    def rows(self) -> list[LayerRow]:
        """Figures of every layer as it is now."""

    @abc.abstractmethod
    def rate(self, rows: list[LayerRow]) -> float:
        """Dense / kept weights of the whole model."""

    def adapt_normalizations(self, data: list[np.ndarray]) -> int:
        """Has batch normalizations follow; returns how many changed."""
        return 0

    def limits(
        self, constraints: dict[str, float | str] | None, budget: str
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Limits of the whole model, and what is in them that no rate changes.

        Raises:
            ValueError: A constraint that is none, or cannot be counted.
            Infeasible: What stays as it is exceeds one already.
        """
        wanted = {} if constraints is None else checked_constraints(constraints)
        limits, fixed = {}, {}
        for unit in dict.fromkeys([*wanted, budget]):
            total = other = 0.0
            if unit == "weights":
                total = other = float(self.other_weights)
            if unit == "bytes":
                total = other = float(self.other_bytes)
            for cost in self.idle:
                dense = cost.of(unit, cost.weights)
                total, other = total + dense, other + dense
            for job in self.jobs:
                dense = job.cost.of(unit, job.weights)
                total += dense
                if job.structure is None:
                    other += dense
                elif job.rate is not None:
                    other += job.cost.of(unit, round(job.weights / job.rate))
            fixed[unit] = other
            if unit not in wanted:
                continue
            limits[unit] = limit_of(unit, wanted[unit], total)
            if limits[unit] < other:
                raise Infeasible(
                    f"The constraint {unit} <= {limits[unit]:,.6g} cannot be met: what "
                    f"stays as it is needs {other:,.6g} of the {total:,.6g} already."
                )
        return limits, fixed
