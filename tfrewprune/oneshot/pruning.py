# SPDX-License-Identifier: Apache-2.0
"""Prunes a network without training: losses, rates, then layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tfrewprune.calibration.inputs import CalibrationInputs
from tfrewprune.calibration.network import Network, Site, Walk
from tfrewprune.calibration.remarks import remarks_on
from tfrewprune.calibration.selection import Level, prune
from tfrewprune.constraints import LayerCost
from tfrewprune.oneshot.losses import LossTable, allocate
from tfrewprune.structures import Structure

#: Choices of a loss table, spaced evenly in log(kept weights).
CHOICES = 80
#: A table reaches down to this many times the rate asked for, or to this rate.
DEPTH, DEEPEST = 4, 32


@dataclasses.dataclass
class Job:
    """A layer, what is to become of it, and what became.

    Attributes:
        site: Where it is measured.
        cost: What it costs.
        structure: What is removed together; None leaves it dense, but refitted.
        rate: Dense / kept weights, if a rule says so; None leaves it to the limits.
        minimum: Groups that survive in any case.
        kept: Weights that survived.
        loss: Squared error of its outputs over their variance in the end.
        notes: What the user should know.
    """

    site: Site
    cost: LayerCost
    structure: Structure | None = None
    rate: float | None = None
    minimum: int = 1
    kept: int = 0
    loss: float = 0.0
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def weights(self) -> int:
        return self.site.shape.weights


def prune_network(
    network: Network,
    jobs: list[Job],
    data: CalibrationInputs,
    rate: float | None = None,
    budget: str = "weights",
    limits: Mapping[str, float] | None = None,
    fixed: Mapping[str, float] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[LossTable]:
    """Prunes and refits the layers of a network in place.

    Args:
        network: The dense model.
        jobs: Its layers in the order of execution; those that are changed.
        data: Calibration inputs.
        rate: Dense / kept over all layers that have no rate of their own.
        budget: What `rate` counts, `"weights"` or `"macs"`.
        limits: What the whole model may cost, by unit.
        fixed: What in that is not up to the layers without a rate of their own.
        tell: Gets a line of progress for each layer and step.

    Returns:
        The losses that the rates were chosen by; empty if they were given.

    Raises:
        ValueError: NaN activations; a model that gives one output for all inputs.
        Infeasible: Limits that cannot be met.
    """
    tell = tell or (lambda line: None)
    remarks = remarks_on(network, data)
    open_jobs = [job for job in jobs if job.structure is not None and job.rate is None]
    tables: list[LossTable] = []
    if open_jobs and (len(open_jobs) > 1 or limits):
        if rate is not None:
            dense = sum(job.cost.of(budget, job.weights) for job in open_jobs)
            other = (fixed or {}).get(budget, 0)
            wanted = dense / rate + other
            limits = {**(limits or {})}
            limits[budget] = min(limits.get(budget, wanted), wanted)
        depth = DEEPEST if rate is None else max(DEEPEST / 4, DEPTH * rate)
        tables = _tables(network, open_jobs, data, sorted(limits), depth, tell)
        goals = [
            table.kept[choice]
            for table, choice in zip(
                tables, allocate(tables, limits, fixed), strict=True
            )
        ]
    else:
        goals = [job.weights / (rate or 1.0) for job in open_jobs]
    goal_of = dict(zip(map(id, open_jobs), goals, strict=True))
    walk = Walk(network, data)
    for number, job in enumerate(jobs, start=1):
        tell(f"{number} of {len(jobs)}: {job.site.path}")
        problem = walk.measure(job.site)
        keep = problem.weights != 0  # zeros that are there stay
        if job.structure is not None:
            goal = goal_of.get(id(job), job.weights / (job.rate or 1.0))
            job.notes += remarks + ([problem.remark] if problem.remark else [])
            keep, _ = prune(problem, job.structure, job.site.shape, goal, job.minimum)
        job.kept = int(keep.sum())
        job.loss = walk.refit(job.site, problem, keep)
    return tables


def _tables(
    network: Network,
    jobs: list[Job],
    data: CalibrationInputs,
    units: list[str],
    depth: float,
    tell: Callable[[str], None],
) -> list[LossTable]:
    """The losses of every open layer, each measured with all others dense.

    Squared errors over the variance of a layer's outputs, added up as they are: to
    weigh them by what each layer does to the outputs of the model was no better on a
    ResNet-8 at 2x (83.3 % against 83.5 %, two draws of the data).
    """
    walk = Walk(network, data, propagate=False)
    tables = []
    for number, job in enumerate(jobs, start=1):
        tell(f"losses, {number} of {len(jobs)}: {job.site.path}")
        shape = job.site.shape
        problem = walk.measure(job.site)
        _, levels = prune(
            problem, job.structure, shape, shape.weights / depth, job.minimum
        )
        tables.append(_table(job, levels, units))
    return tables


def _table(job: Job, levels: list[Level], units: list[str]) -> LossTable:
    kept = np.array([max(level.kept, 1) for level in levels], float)
    loss = np.array([level.loss for level in levels])
    grid = np.geomspace(kept[0], kept[-1], CHOICES)
    grid[0], grid[-1] = kept[0], kept[-1]
    grid = np.unique(np.round(grid))[::-1]
    order = np.argsort(kept)
    fine = np.interp(np.log(grid), np.log(kept[order]), loss[order])
    return LossTable(
        job.site.path,
        tuple(int(count) for count in grid),
        tuple(float(value) for value in fine),
        {unit: tuple(job.cost.of(unit, int(n)) for n in grid) for unit in units},
    )


def output_difference(dense: list[np.ndarray], now: list[np.ndarray]) -> float:
    """Squared error of outputs over their variance."""
    error = sum(
        float(np.square(a - b, dtype=np.float64).sum())
        for a, b in zip(dense, now, strict=True)
    )
    spread = sum(
        float(np.square(a - a.mean(axis=0), dtype=np.float64).sum()) for a in dense
    )
    return error / spread if spread > 0 else error
