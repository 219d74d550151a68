# SPDX-License-Identifier: Apache-2.0
"""What the kept weights of all kernels may cost together."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tfrewprune.constraints import limit_of
from tfrewprune.recipe import Infeasible, Recipe
from tfrewprune.wrappers.resources import (
    CostCurve,
    cost_curve,
    dense_cost,
    other_weights,
)
from tfrewprune.wrappers.targets import Target

#: Numbers of kept weights by `Target.path_key`.
Kept = Mapping[tuple, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Limit:
    """One resource.

    Attributes:
        name: As in `Recipe.constraints`.
        limit: What the whole model may cost.
        fixed: What it costs with the budget's kernels empty.
        curves: Cost of each of these, by `Target.path_key`.
        own: What of `fixed` kernels with a rate of their own keep, by their layer.
    """

    name: str
    limit: float
    fixed: float
    curves: dict[tuple, CostCurve]
    own: dict[str, float] = dataclasses.field(default_factory=dict)

    def used(self, kept: Kept) -> float:
        """What the kept weights cost beside `fixed`."""
        return sum(curve(kept[key]) - curve.empty for key, curve in self.curves.items())

    def excess(self, kept: Kept) -> float:
        """How many times what is left for the kept weights they cost."""
        room = self.limit - self.fixed
        used = self.used(kept)
        return used / room if room > 0 else float("inf") if used else 1.0


class Budget:
    """Limits that kernels keep together: a recipe's rate or its constraints.

    Attributes:
        targets: The kernels.
        limits: One or more `Limit`s.
    """

    def __init__(self, targets: Sequence[Target], limits: Sequence[Limit]):
        self.targets = list(targets)
        self.limits = list(limits)

    @classmethod
    def of(cls, targets: Sequence[Target], recipe: Recipe) -> Budget:
        """The budget of a recipe; of no kernels where it has none.

        Args:
            targets: What `resolve` returned: constraints also count layers that stay
                dense, a rate does not.
            recipe: Rate or constraints.

        Raises:
            ValueError: A cost that cannot be counted.
        """
        pruned = [target for target in targets if target.reason is None]
        shared = [target for target in pruned if target.rule.rate is None]
        if recipe.rate is None and recipe.constraints is None:
            return cls([], [])
        if recipe.constraints is None:
            curves = {t.path_key: cost_curve(recipe.budget, t, None) for t in shared}
            dense = sum(curve.dense for curve in curves.values())
            limit = Limit(recipe.budget, dense / recipe.rate, 0.0, curves)
            return cls(shared, [limit])
        limits = []
        for name, asked in recipe.constraints.items():
            curves = {t.path_key: cost_curve(name, t, recipe.layer_ms) for t in pruned}
            left_dense = sum(
                dense_cost(name, target, recipe.layer_ms)
                for target in targets
                if target.reason is not None
            )
            if name in ("weights", "bytes"):
                left_dense += other_weights(targets) * (4 if name == "bytes" else 1)
            dense = left_dense + sum(curve.dense for curve in curves.values())
            fixed = left_dense
            own: dict[str, float] = defaultdict(float)
            for target in pruned:
                curve = curves[target.path_key]
                fixed += curve.empty
                if (rate := target.rule.rate) is not None:
                    own[target.path] += curve(curve.kept[-1] / rate) - curve.empty
            fixed += sum(own.values())
            shares = {t.path_key: curves[t.path_key] for t in shared}
            limit = limit_of(name, asked, dense)
            limits.append(Limit(name, limit, fixed, shares, dict(own)))
        return cls(shared, limits)

    @property
    def dense_excess(self) -> float:
        """`excess` of the dense kernels."""
        return self.excess({t.path_key: t.shape.weights for t in self.targets})

    def excess(self, kept: Kept) -> float:
        """The largest of the limits' excesses; 1 and less is within all of them."""
        return max(limit.excess(kept) for limit in self.limits)

    def weight_costs(self, emphasis: Sequence[float]) -> dict[tuple, float]:
        """What a weight of each kernel costs, all limits together.

        Args:
            emphasis: Importance of each limit.
        """
        costs = {}
        for target in self.targets:
            key, cost = target.path_key, 0.0
            for share, limit in zip(emphasis, self.limits, strict=True):
                curve = limit.curves[key]
                cost += share * (curve.dense - curve.empty) / limit.limit
            costs[key] = max(cost / target.shape.weights, 1e-30)
        return costs

    def report(self, kept: Kept) -> dict[str, dict[str, float]]:
        """What each resource is limited to, and what it comes to."""
        return {
            limit.name: {
                "limit": limit.limit,
                "reached": limit.fixed + limit.used(kept),
            }
            for limit in self.limits
        }

    def check(self, kept: Kept) -> None:
        """Refuses limits that are too low for what must be kept.

        Args:
            kept: The fewest weights that each kernel keeps.

        Raises:
            Infeasible: Which, and by how much.
        """
        broken = []
        for limit in self.limits:
            least = limit.fixed + limit.used(kept)
            if least > limit.limit * (1 + 1e-9):
                own = sum(limit.own.values())
                ruled = (
                    f"{own:.4g} are what rules with a rate of their own keep "
                    f"({', '.join(limit.own)}), "
                )
                broken.append(
                    f"{limit.name}: at least {least:.4g}, {least - limit.limit:.3g} "
                    f"more than the {limit.limit:.4g} asked for ("
                    f"{ruled if limit.own else ''}{limit.fixed - own:.4g} are layers "
                    "left dense, biases, and what an empty layer costs)"
                )
        if broken:
            raise Infeasible(
                "The constraints cannot be met, even with the fewest groups "
                "(minimum_groups) in every pruned layer. " + "; ".join(broken) + "."
            )
