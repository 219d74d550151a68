# SPDX-License-Identifier: Apache-2.0
"""Cuts the rows of a weight matrix into bands."""

from __future__ import annotations

import numpy as np

from tfrewprune.payload.format import BAND_ROWS, BandedMatrix, PayloadError, encode


def pack_matrix(weights: np.ndarray, band_rows: int | None = None) -> bytes:
    weights = np.asarray(weights)
    if weights.dtype != np.float32 or weights.ndim != 2 or 0 in weights.shape:
        raise PayloadError(
            "a weight matrix must be float32 [O >= 1, K >= 1], received "
            f"{weights.dtype} {list(weights.shape)}"
        )
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
    return encode(BandedMatrix(rows, columns, row_id, start, column, value))
