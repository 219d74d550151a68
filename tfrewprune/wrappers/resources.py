# SPDX-License-Identifier: Apache-2.0
"""What the kernels of a Keras model cost, by what is kept of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import keras
import numpy as np

from tfrewprune.constraints import LayerCost
from tfrewprune.wrappers.kernels import kernel_specs
from tfrewprune.wrappers.targets import Target, layer_runs

#: Rates at which costs are looked up; in between they are interpolated.
RATES = (1, 1.1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512)

#: Milliseconds by layer path and rate.
LayerTimes = dict[str, dict[float, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class CostCurve:
    """What a kernel costs, by the number of weights that are kept.

    Attributes:
        kept: Numbers of weights, ascending from 0.
        cost: The costs at these; they never fall.
    """

    kept: np.ndarray
    cost: np.ndarray

    def __call__(self, kept: float) -> float:
        return float(np.interp(kept, self.kept, self.cost))

    @property
    def empty(self) -> float:
        """What is left of the cost when no weight is."""
        return float(self.cost[0])

    @property
    def dense(self) -> float:
        """The cost of the whole kernel."""
        return float(self.cost[-1])


def layer_cost(target: Target) -> LayerCost | None:
    """What a kernel costs, frozen ones too; None for what has none."""
    spec = target.spec or next(iter(kernel_specs(target.layer) or ()), None)
    if spec is None or getattr(target.layer, "groups", 1) != 1:
        return None
    target = dataclasses.replace(target, spec=spec)
    shape, structure = target.shape, target.structure
    alike = 1 if structure is None else structure.rows_alike(shape)
    cost = LayerCost(None, shape.weights, alike, packed=spec.packed)
    try:
        return dataclasses.replace(cost, runs=layer_runs(target))
    except ValueError as error:
        return dataclasses.replace(cost, unknown=str(error))


def cost_curve(resource: str, target: Target, times: LayerTimes | None) -> CostCurve:
    """The cost of a kernel that is pruned.

    Args:
        resource: One of `CONSTRAINTS`.
        target: The kernel and its structure.
        times: Measured milliseconds, in place of the cost model's.

    Raises:
        ValueError: Multiplications or time of the kernel are not known.
    """
    weights = target.shape.weights
    if resource == "latency_ms" and (measured := (times or {}).get(target.label)):
        by_rate = sorted((weights / float(r), ms) for r, ms in measured.items())
        kept = np.array([n for n, _ in by_rate])
        return CostCurve(kept, np.maximum.accumulate([ms for _, ms in by_rate]))
    cost = layer_cost(target)
    kept = np.array([0, *(weights / rate for rate in reversed(RATES))])
    costs = [cost.of(resource, float(number)) for number in kept]
    return CostCurve(kept, np.maximum.accumulate(costs))


def dense_cost(resource: str, target: Target, times: LayerTimes | None) -> float:
    """The cost of a kernel that is left dense; 0 for what has none.

    Raises:
        ValueError: As `cost_curve`.
    """
    cost = layer_cost(target)
    if cost is None:
        return 0.0
    if resource == "latency_ms" and (measured := (times or {}).get(target.label)):
        return float(max(measured.values()))
    return cost.of(resource, cost.weights)


def other_weights(targets: Iterable[Target]) -> int:
    """Weights of the layers that are in no kernel: biases, normalizations, tables."""
    layers = {id(target.layer): target.layer for target in targets}
    total = sum(
        math.prod(variable.shape)
        for layer in layers.values()
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables)
        if keras.backend.is_float_dtype(variable.dtype)
    )
    return total - round(sum(dense_cost("weights", t, None) for t in targets))
