# SPDX-License-Identifier: Apache-2.0
"""Chooses how a weight matrix is packed: candidates -> cost -> choice.

A candidate is a grouping of rows into bands (``grouping``) of 4, 8, 16 or 32 rows, or
no bands at all (``irregular``). For a layer whose size is known the candidate with the
least predicted time (``cost``) is taken, otherwise the bands with the fewest bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from tfrewprune.payload.cost import AnyCost, LayerShape, default_cost_model
from tfrewprune.payload.format import (
    BAND_ROWS,
    BandedMatrix,
    are_neighbours,
    encode,
    payload_size,
)
from tfrewprune.payload.grouping import (
    RowSupport,
    neighbours,
    popcount,
    scattered_bands,
    similar_for,
    survivors,
)
from tfrewprune.payload.irregular import IrregularPacking
from tfrewprune.payload.values import AS_FLOAT32, PayloadError, ValueForm

# Rows leave their order only for a gain above this: stores of neighbouring rows are
# contiguous, and the search costs time.
_WORTH_REORDERING = 0.97
_LITTLE_PADDING = 1.05


@dataclass(frozen=True, eq=False)
class Packing:
    """A way to pack a weight matrix.

    Attributes:
        weights: The matrix, float32 ``[O, K]``.
        grouping: Rows of every band, ``[B, R]``; O where a lane is idle.
        columns_of_bands: Bit set of every band's columns.
        column_count: Columns of all bands together.
        kept: Weights other than 0.
        form: What a weight is stored as.
    """

    weights: np.ndarray
    grouping: np.ndarray
    columns_of_bands: np.ndarray
    column_count: int
    kept: int
    form: ValueForm = AS_FLOAT32

    @property
    def band_rows(self) -> int:
        return self.grouping.shape[1]

    @property
    def band_count(self) -> int:
        return self.grouping.shape[0]

    @property
    def payload_bytes(self) -> int:
        rows, columns = self.weights.shape
        counts = (self.band_rows, self.band_count, self.column_count)
        neighbours = are_neighbours(self.grouping, rows)
        return payload_size(rows, columns, *counts, self.form, neighbours)

    def predict(self, shape: LayerShape, cost_model: AnyCost | None = None) -> float:
        """Returns the predicted microseconds of a packed layer of this shape."""
        model = cost_model or default_cost_model()
        return model.packed(
            shape,
            self.band_rows,
            self.band_count,
            self.column_count,
            scattered_bands(self.grouping, self.weights.shape[0]),
        )

    def to_matrix(self) -> BandedMatrix:
        """Returns the banded matrix."""
        rows, columns = self.weights.shape
        start = np.zeros(self.band_count + 1, np.int64)
        np.cumsum(popcount(self.columns_of_bands), out=start[1:])
        column = np.empty(self.column_count, np.int64)
        value = np.zeros((self.column_count, self.band_rows), self.form.dtype)
        for band, members in enumerate(self.grouping):
            owned = slice(start[band], start[band + 1])
            bits = np.unpackbits(self.columns_of_bands[band], count=columns)
            column[owned] = np.flatnonzero(bits)
            lanes = np.flatnonzero(members < rows)
            block = self.weights[members[lanes]][:, column[owned]]
            value[owned, lanes] = self.form.store(block, members[lanes][:, None]).T
        if self.form.scale is None:
            value += value.dtype.type(0)  # -0.0 becomes +0.0
        return BandedMatrix(
            *(rows, columns, self.grouping, start, column, value), self.form.scale
        )

    def encode(self) -> bytes:
        """Returns the payload."""
        return encode(self.to_matrix())


def pack_matrix(weights: np.ndarray, band_rows: int | None = None) -> bytes:
    """Packs a weight matrix into as few bytes as possible.

    Args:
        weights: float32 ``[O, K]``: rows are outputs, columns (kh, kw, cin). Finite.
        band_rows: 4, 8, 16 or 32 rows in a band; None takes what needs fewest bytes.

    Returns:
        The payload, see ``tflite_ops/format/PAYLOAD.md``. ``unpack_matrix`` gives the
        weights back, every zero as +0.0.

    Raises:
        PayloadError: If ``weights`` is no finite float32 matrix, or ``band_rows`` is
            not one of the four.

    Example:
        >>> payload = pack_matrix(np.eye(16, 64, dtype=np.float32))
        >>> unpack_matrix(payload).shape
        (16, 64)
    """
    return smallest_packing(weights, band_rows).encode()


def smallest_packing(weights: np.ndarray, band_rows: int | None = None) -> Packing:
    """The bands that `pack_matrix` packs a matrix into; arguments as there."""
    return _choose(weights, band_rows, lambda packing: packing.payload_bytes)


def pack_layer(
    weights: np.ndarray,
    shape: LayerShape,
    band_rows: int | None = None,
    cost_model: AnyCost | None = None,
    form: ValueForm = AS_FLOAT32,
) -> Packing | IrregularPacking:
    """Finds the way to pack a layer that is predicted to run fastest.

    Args:
        weights: float32 ``[O, K]``, finite.
        shape: Size of the layer.
        band_rows: 4, 8, 16 or 32 rows in a band; None tries all, and no bands at all.
        cost_model: Predicts times; None is that of this machine.
        form: What to store the weights as; it must hold them exactly.

    Returns:
        The packing; nothing is copied before its ``encode``.

    Raises:
        PayloadError: As for ``pack_matrix``.
    """
    model = cost_model or default_cost_model()

    def cost(packing: Packing | IrregularPacking) -> float:
        return packing.predict(shape, model)

    banded = replace(_choose(weights, band_rows, cost), form=form)
    form.check_exact(banded.weights)
    if band_rows is not None or model.irregular_cost is None:
        return banded
    irregular = IrregularPacking.of(banded.weights, shape, form)
    return min(banded, irregular, key=cost)


def _choose(
    weights: np.ndarray, band_rows: int | None, cost: Callable[[Packing], float]
) -> Packing:
    weights = _checked(weights)
    if band_rows is not None and band_rows not in BAND_ROWS:
        raise PayloadError(
            f"band_rows must be one of {BAND_ROWS}, received {band_rows}"
        )
    heights = BAND_ROWS if band_rows is None else (band_rows,)
    support = RowSupport(weights)
    kept = support.kept

    def packing(grouping: np.ndarray) -> Packing:
        union = support.union(grouping)
        return Packing(weights, grouping, union, int(popcount(union).sum()), kept)

    best = min(map(packing, _in_order(support, heights)), key=cost)
    # With little padding, or with next to nothing pruned, no order is much better.
    if best.column_count * best.band_rows > _LITTLE_PADDING * kept < 0.9 * weights.size:
        reordered = min(map(packing, similar_for(support, heights)), key=cost)
        if cost(reordered) < _WORTH_REORDERING * cost(best):
            best = reordered
    return best


def _in_order(support: RowSupport, heights: tuple[int, ...]) -> Iterator[np.ndarray]:
    for band_rows in reversed(heights):
        yield neighbours(support, band_rows)
        if not support.counts.all():
            yield survivors(support, band_rows)


def _checked(weights: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights)
    if weights.dtype != np.float32 or weights.ndim != 2 or 0 in weights.shape:
        raise PayloadError(
            "a weight matrix must be float32 [O >= 1, K >= 1], received "
            f"{weights.dtype} {list(weights.shape)}"
        )
    if not np.isfinite(weights).all():
        raise PayloadError("a weight matrix must be finite, received NaN or Inf")
    return weights
