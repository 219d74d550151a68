# SPDX-License-Identifier: Apache-2.0
"""Bands of rows whose large weights lie in the same columns."""

from __future__ import annotations

import numpy as np


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
