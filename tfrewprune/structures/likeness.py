# SPDX-License-Identifier: Apache-2.0
"""Bands of rows whose large weights lie in the same columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfrewprune.structures.layout import KernelShape, matrix_from_kernel
from tfrewprune.structures.structure import Structure


def in_bands(structure: Structure, shape: KernelShape) -> bool:
    """Whether some but not all outputs share what survives, in the order they have."""
    fixed = getattr(structure, "cluster", False)
    return not fixed and 1 < structure.rows_alike(shape) < shape.outputs


def like_order(
    pruned: Sequence[tuple[np.ndarray, Structure]], count: int
) -> np.ndarray:
    """Outputs in an order in which neighbours are alike in all matrices together.

    Args:
        pruned: Kernels (positions, channels, outputs) that make the same outputs, with
            the structures they are pruned in.
        count: Number of outputs.

    Returns:
        int ``[count]``: the output that comes first, second and so on. The order they
        have where groups are gone of some outputs that others still have: bands would
        lose what they have in common.
    """
    energies, rows = [], 1
    for kernel, structure in pruned:
        shape = KernelShape(*kernel.shape)
        if _is_cut(kernel, structure, shape):
            return np.arange(count)
        energy = np.square(matrix_from_kernel(kernel), dtype=np.float32)
        energies.append(energy / max(float(energy.sum()), 1e-30))
        rows = max(rows, structure.rows_alike(shape))
    if not energies:
        return np.arange(count)
    return np.array(order_by_likeness(np.concatenate(energies, axis=1), rows))


def _is_cut(kernel: np.ndarray, structure: Structure, shape: KernelShape) -> bool:
    alive = structure.mask(structure.surviving_groups(kernel), shape)
    alive = alive.reshape(shape.columns, shape.outputs)
    return bool((alive.any(axis=1) & ~alive.all(axis=1)).any())


def order_by_likeness(energy: np.ndarray, rows: int) -> tuple[int, ...]:
    """Orders the rows of a matrix so that every `rows` consecutive ones are alike.

    A band starts with the row of most energy that is left and takes, one at a time, the
    row that has most in common with it: the largest product with the band's summed
    energy. So columns that are large in one row of a band are large in the others, and
    survive together; rows of little energy end up in bands that lose most.

    Args:
        energy: Squared weights, (rows of the matrix, columns), not negative.
        rows: Rows of a band; the last one may have fewer.

    Returns:
        The number of each row, band after band.

    Example:

    >>> order_by_likeness(np.array([[9, 0], [0, 4], [8, 1], [0, 5]]), 2)
    (0, 2, 3, 1)
    """
    energy = np.asarray(energy, np.float32)
    common = energy @ energy.T
    total = energy.sum(axis=1)
    free = np.ones(len(energy), bool)
    order: list[int] = []
    shared = total
    for place in range(len(energy)):
        starts = place % rows == 0
        row = int(np.argmax(np.where(free, total if starts else shared, -np.inf)))
        shared = common[row] if starts else shared + common[row]
        free[row] = False
        order.append(row)
    return tuple(order)
