# SPDX-License-Identifier: Apache-2.0
"""Group OBS: which groups of a kernel can go, given what the others make up for.

Removing the weights C of one output costs w_C^T ((H^-1)_CC)^-1 w_C / 2 once the others
are refitted (Hassibi and Stork, "Optimal Brain Surgeon", 1993; blocks: Frantar and
Alistarh, arXiv 2208.11580). A group costs the sum over its outputs, and outputs that
keep the same columns, such as the 16 of a band, share one inverse. Groups go a few at
a time, with an exact refit in between.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.calibration.problem import Problem, alike
from tfrewprune.structures import KernelShape, Structure

#: Rounds of removal. On a ResNet-8 at 2x 16 come within a point of one group at a time,
#: 32 within noise; large layers take fewer to stay within `EFFORT` multiplications.
ROUNDS = (8, 32)
EFFORT = 5e10


@dataclasses.dataclass(frozen=True)
class Level:
    """What a layer loses when so much of it is kept.

    Attributes:
        kept: Surviving weights.
        loss: Squared error of the outputs over their variance.
        bits: The surviving weights, (columns, outputs) as `numpy.packbits` has them.
    """

    kept: int
    loss: float
    bits: np.ndarray

    def keep(self, shape: KernelShape) -> np.ndarray:
        """Boolean (columns, outputs): the surviving weights."""
        flat = np.unpackbits(self.bits, count=shape.weights)
        return flat.astype(bool).reshape(shape.columns, shape.outputs)


def prune(
    problem: Problem,
    structure: Structure,
    shape: KernelShape,
    weights: float,
    minimum: int = 0,
) -> tuple[np.ndarray, list[Level]]:
    """Removes the cheapest groups until `weights` weights are left.

    Groups that are zero already stay removed.

    Args:
        problem: The layer's second moments.
        structure: Which weights are removed together.
        shape: Extent of the kernel.
        weights: How many may survive.
        minimum: Groups that survive in any case.

    Returns:
        Boolean (columns, outputs), and the loss after every round, the dense one first.
    """
    keep = structure.mask(
        structure.surviving_groups(problem.weights.reshape(shape)), shape
    ).reshape(shape.columns, shape.outputs)
    kernel, energy = _removal(problem, structure, shape, keep)
    levels = [Level(int(keep.sum()), problem.loss(kernel), np.packbits(keep))]
    last = min(max(weights, 1.0), shape.weights)
    rounds = _rounds(structure, shape)
    for step in range(1, rounds + 1):
        allowed = shape.weights * (last / shape.weights) ** (step / rounds)
        if step == rounds:
            allowed = weights
        groups = structure.choose(energy.reshape(shape), allowed, minimum)
        left = structure.mask(groups, shape).reshape(keep.shape) & keep
        if (left == keep).all():
            continue
        keep = left
        kernel, energy = _removal(problem, structure, shape, keep)
        levels.append(Level(int(keep.sum()), problem.loss(kernel), np.packbits(keep)))
    return keep, levels


def _rounds(structure: Structure, shape: KernelShape) -> int:
    if structure.fixed_rate(shape) is not None:
        return 1
    bands = -(-shape.outputs // structure.rows_alike(shape))
    fit = EFFORT / (bands * shape.columns**3)
    return int(min(max(fit, ROUNDS[0]), ROUNDS[1]))


def _removal(
    problem: Problem, structure: Structure, shape: KernelShape, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The refitted kernel, and what removing each weight with its group would cost.

    Both (columns, outputs). Weights share their group's cost equally, so that
    `Structure.choose` finds it as their sum. In overlapping groups the weights are
    taken one by one.
    """
    kernel, energy = np.zeros_like(problem.weights), np.zeros_like(problem.weights)
    groups = None
    if structure.partition:
        numbers = np.arange(structure.group_count(shape), dtype=np.float64)
        numbers = structure.spread(numbers.reshape(structure.group_grid(shape)), shape)
        groups = np.asarray(numbers).reshape(keep.shape)
    for rows, columns in alike(keep):
        if not len(columns):
            continue
        place = np.ix_(columns, rows)
        inverse = problem.inverse(columns)
        kernel[place] = inverse @ problem.target[place]
        energy[place] = _joint(inverse, kernel[place], groups, rows, columns)
    return kernel, np.maximum(energy, 0)


def _joint(
    inverse: np.ndarray,
    kernel: np.ndarray,
    groups: np.ndarray | None,
    rows: np.ndarray,
    columns: np.ndarray,
) -> np.ndarray:
    """Cost of removing each weight, or its share of the cost of its group."""
    single = np.square(kernel) / np.diag(inverse)[:, None]
    if groups is None:
        return single
    energy = single
    # Outputs of one support mostly cut their columns alike, whatever the numbers.
    cuts: dict[bytes, list[int]] = {}
    for index, row in enumerate(rows):
        _, cut = np.unique(groups[columns, row], return_inverse=True)
        cuts.setdefault(cut.astype(np.int32).tobytes(), []).append(index)
    for text, members in cuts.items():
        cut = np.frombuffer(text, np.int32)
        sizes = np.bincount(cut)
        for size in np.unique(sizes[sizes > 1]):
            # All groups of one size at once: (groups, columns of a group).
            inside = np.flatnonzero(sizes[cut] == size)
            inside = inside[np.argsort(cut[inside], kind="stable")].reshape(-1, size)
            part = kernel[inside][:, :, members]
            block = inverse[inside[:, :, None], inside[:, None, :]]
            cost = (part * np.linalg.solve(block, part)).sum(axis=1, keepdims=True)
            energy[inside[:, :, None], members] = cost / size
    return energy
