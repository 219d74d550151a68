# SPDX-License-Identifier: Apache-2.0
"""What a kernel costs in weights, multiplications, bytes and time, by what is kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import keras
import numpy as np

from tfrewprune.payload.cost import LayerShape, default_cost_model
from tfrewprune.wrappers.kernels import kernel_shape, kernel_specs, macs_per_weight
from tfrewprune.wrappers.targets import Target, expected_gain

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


def cost_curve(resource: str, target: Target, times: LayerTimes | None) -> CostCurve:
    """The cost of a kernel that is pruned.

    Bytes and time are those of the better of packed and dense, as the converter
    chooses; a kernel without a packed operator saves neither.

    Args:
        resource: `"weights"`, `"macs"`, `"bytes"` or `"latency_ms"`.
        target: The kernel and its structure.
        times: Measured milliseconds, in place of the cost model's.

    Raises:
        ValueError: Multiplications or time of the kernel are not known.
    """
    weights, structure = target.shape.weights, target.structure
    kept = np.array([0, *(weights / rate for rate in reversed(RATES))])
    if resource == "weights":
        return CostCurve(kept, kept)
    if resource == "macs":
        return CostCurve(kept, kept * macs_per_weight(target.layer, target.spec))
    measured = (times or {}).get(target.label)
    if resource == "latency_ms" and measured is not None:
        by_rate = sorted((weights / float(r), ms) for r, ms in measured.items())
        kept = np.array([n for n, _ in by_rate])
        return CostCurve(kept, np.maximum.accumulate([ms for _, ms in by_rate]))
    gains = np.array([_gain(target, rate) for rate in reversed(RATES)])
    if resource == "bytes":
        alike = min(16, structure.rows_alike(target.shape))
        # A band stores a column's number once, single weights one each.
        packed = kept[1:] * (4 + 2 / alike)
        cost = np.where(gains > 1, packed, 4.0 * weights)
    else:
        cost = dense_cost("latency_ms", target, times) / np.maximum(1, gains)
    return CostCurve(kept, np.maximum.accumulate([cost[0], *cost]))


def dense_cost(resource: str, target: Target, times: LayerTimes | None) -> float:
    """The cost of a kernel that is left dense; 0 for what has none.

    Raises:
        ValueError: As `cost_curve`.
    """
    spec = target.spec or next(iter(kernel_specs(target.layer) or ()), None)
    if spec is None or getattr(target.layer, "groups", 1) != 1:
        return 0.0
    shape = target.shape if target.spec else kernel_shape(spec, target.layer)
    if resource in ("weights", "bytes"):
        return shape.weights * (4.0 if resource == "bytes" else 1.0)
    if resource == "latency_ms" and (measured := (times or {}).get(target.label)):
        return float(max(measured.values()))
    pixels = macs_per_weight(target.layer, spec)
    if resource == "macs":
        return float(shape.weights * pixels)
    size = LayerShape(shape.outputs, shape.columns, pixels, shape.positions)
    return default_cost_model().dense(size) / 1000


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


def _gain(target: Target, rate: float) -> float:
    if not target.spec.packed:
        return 1.0
    gain = expected_gain(target, target.structure, rate)
    return math.inf if gain is None else gain
