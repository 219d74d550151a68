# SPDX-License-Identifier: Apache-2.0
"""Cuts the rows of a weight matrix into bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfrewprune.payload.cost import CostModel, LayerShape, default_cost_model
from tfrewprune.payload.format import BandedMatrix, PayloadError, encode


@dataclass(frozen=True, eq=False)
class Packing:
    """A weight matrix cut into bands, and what that is expected to cost."""

    matrix: BandedMatrix
    cost_model: CostModel

    def predict(self, shape: LayerShape) -> float:
        """Returns the predicted microseconds of the packed layer."""
        matrix = self.matrix
        counts = (matrix.band_rows, matrix.band_count, matrix.column_count)
        return self.cost_model.packed(shape, *counts)

    def encode(self) -> bytes:
        """Returns the payload."""
        return encode(self.matrix)


def pack_matrix(weights: np.ndarray, band_rows: int | None = None) -> bytes:
    weights = np.asarray(weights)
    if weights.dtype != np.float32 or weights.ndim != 2 or 0 in weights.shape:
        raise PayloadError(
            "a weight matrix must be float32 [O >= 1, K >= 1], received "
            f"{weights.dtype} {list(weights.shape)}"
        )
    return pack_layer(weights, LayerShape(*weights.shape, 1), band_rows).encode()


def pack_layer(weights, shape, band_rows=None, cost_model=None):
    rows, columns = weights.shape
    r = band_rows or 16
    groups = -(-rows // r)
    padded = np.zeros((groups * r, columns), np.float32)
    padded[:rows] = weights
    padded += 0.0
    blocks = padded.reshape(groups, r, columns)
    support = (blocks != 0).any(axis=1)
    kept = np.flatnonzero(support.any(axis=1))
    row_id = np.arange(groups * r).reshape(groups, r)[kept]
    row_id = np.minimum(row_id, rows)
    band, column = np.nonzero(support[kept])
    start = np.concatenate([[0], np.cumsum(support[kept].sum(axis=1))])
    value = blocks[kept[band], :, column]
    matrix = BandedMatrix(rows, columns, row_id, start, column, value)
    return Packing(matrix, cost_model or default_cost_model())
