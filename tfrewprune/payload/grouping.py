# SPDX-License-Identifier: Apache-2.0
"""Ways to cut the rows of a matrix into bands, by their supports.

The support of a row is the set of its columns that are not 0, held as a bit set. A
*grouping* is an integer array ``[B, R]``: the rows of every band, ascending, with the
number of rows in the place of an idle lane. Rows without support are in no band.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_POPCOUNT = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(
    axis=1, dtype=np.uint8
)
# Multiply-adds spent on comparing rows with each other; beyond, columns are sampled.
_MAX_COMPARISONS = 1 << 30
_MAX_COMPARED_ROWS = 4096


class RowSupport:
    """The supports of the rows of a matrix.

    Attributes:
        rows: Number of rows.
        columns: Number of columns.
        counts: Weights other than 0, by row.
        bits: Supports, uint8 ``[rows + 1, ceil(columns / 8)]``; the last is empty.
    """

    def __init__(self, weights: np.ndarray):
        self.rows, self.columns = weights.shape
        self.bits = np.zeros((self.rows + 1, -(-self.columns // 8)), np.uint8)
        # A slice at a time, so that no second matrix of this size is ever held.
        step = max(1, (1 << 24) // self.columns)
        for first in range(0, self.rows, step):
            part = weights[first : first + step] != 0
            self.bits[first : first + len(part)] = np.packbits(part, axis=1)
        self.counts = popcount(self.bits[:-1])

    @property
    def kept(self) -> int:
        return int(self.counts.sum())

    def union(self, grouping: np.ndarray) -> np.ndarray:
        """Returns the bit set of every band's columns, ``[B, ceil(columns / 8)]``."""
        union = np.zeros((len(grouping), self.bits.shape[1]), np.uint8)
        for lane in grouping.T:
            union |= self.bits[lane]
        return union


def popcount(bits: np.ndarray) -> np.ndarray:
    """Returns the number of set bits in every row of a uint8 array."""
    return _POPCOUNT[bits].sum(axis=1, dtype=np.int64)


def scattered_bands(grouping: np.ndarray, idle: int) -> int:
    """Returns how many bands are not R neighbouring rows: these store row by row.

    Args:
        grouping: Rows of every band, ``[B, R]``.
        idle: What stands for a lane without row.
    """
    steps = np.diff(grouping.astype(np.int64), axis=1)
    apart = ((steps != 1) | (grouping[:, 1:] == idle)).any(axis=1)
    return int(np.count_nonzero(apart))


def neighbours(support: RowSupport, band_rows: int) -> np.ndarray:
    """Groups rows 0 .. R-1, R .. 2R-1, and so on: what block pruning makes."""
    bands = -(-support.rows // band_rows)
    grouping = np.arange(bands * band_rows).reshape(bands, band_rows)
    grouping = np.minimum(grouping, support.rows)
    occupied = np.append(support.counts > 0, False)[grouping].any(axis=1)
    return grouping[occupied]


def survivors(support: RowSupport, band_rows: int) -> np.ndarray:
    """Groups neighbours among the rows that are not all zero: filter pruning."""
    return _fill(np.flatnonzero(support.counts), band_rows, support.rows)


def similar(support: RowSupport, band_rows: int) -> np.ndarray:
    """Groups rows of equal support first, then rows of similar support.

    The matrix reorder of RTMobile (Dong et al., DAC 2020), with bands of fixed height:
    rows of equal support fill whole bands; of what is left, the row with the largest
    support takes the rows that differ least from it, until all are taken.
    """
    return next(similar_for(support, (band_rows,)))


def similar_for(
    support: RowSupport, all_band_rows: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Yields ``similar`` for several heights; rows are compared only once."""
    occupied = np.flatnonzero(support.counts)
    as_void = support.bits[occupied].view(f"V{support.bits.shape[1]}").ravel()
    _, first, kind = np.unique(as_void, return_index=True, return_inverse=True)
    kind = kind.reshape(-1)
    # Kinds in the order of their first rows keep the bands close to that order.
    order = np.argsort(first[kind], kind="stable")
    sizes = np.bincount(np.argsort(np.argsort(first))[kind])
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    differences: _Differences | None = None
    for band_rows in all_band_rows:
        whole = place < np.repeat(sizes - sizes % band_rows, sizes)
        bands = [occupied[order[whole]].reshape(-1, band_rows)]
        rest = np.sort(occupied[order[~whole]])
        if 0 < len(rest) <= band_rows or len(rest) > _MAX_COMPARED_ROWS:
            bands.append(_fill(rest, band_rows, support.rows))
        elif len(rest):
            if differences is None or not differences.covers(rest):
                differences = _Differences(support, rest)
            bands.append(differences.group(rest, band_rows, support.rows))
        grouping = np.sort(np.concatenate(bands), axis=1)
        yield grouping[np.argsort(grouping[:, 0], kind="stable")]


class _Differences:
    """How much the supports of rows differ, pair by pair."""

    def __init__(self, support: RowSupport, rows: np.ndarray):
        self.rows = rows
        self.counts = support.counts
        width = support.bits.shape[1]
        affordable = max(8, _MAX_COMPARISONS // (8 * len(rows) ** 2))
        sampled = np.linspace(0, width - 1, min(width, affordable)).astype(np.int64)
        sets = np.unpackbits(support.bits[np.ix_(rows, sampled)], axis=1)
        sets = sets.astype(np.float32)
        size = sets.sum(axis=1)
        common = sets @ sets.T
        self.matrix = size[:, None] + size[None, :] - 2 * common

    def covers(self, rows: np.ndarray) -> bool:
        return bool(np.isin(rows, self.rows, assume_unique=True).all())

    def group(self, rows: np.ndarray, band_rows: int, idle: int) -> np.ndarray:
        at = np.searchsorted(self.rows, rows)
        free = np.ones(len(rows), bool)
        bands = []
        for seed in np.argsort(-self.counts[rows], kind="stable"):
            if not free[seed]:
                continue
            free[seed] = False
            members = [seed]
            # Half of the band by likeness to the seed, then by likeness to the band.
            for wanted in sorted({band_rows // 2, band_rows}):
                candidates = np.flatnonzero(free)
                missing = min(wanted - len(members), len(candidates))
                if missing <= 0:
                    continue
                block = self.matrix[np.ix_(at[members], at[candidates])]
                distance = block.sum(axis=0)
                if missing < len(candidates):
                    nearest = np.argpartition(distance, missing - 1)[:missing]
                    candidates = candidates[nearest]
                free[candidates] = False
                members.extend(candidates)
            bands.append(_fill(rows[members], band_rows, idle))
        return np.concatenate(bands)


def _fill(rows: np.ndarray, band_rows: int, idle: int) -> np.ndarray:
    """Cuts a list of rows into bands; the last one may have idle lanes."""
    bands = -(-len(rows) // band_rows)
    grouping = np.full(bands * band_rows, idle, np.int64)
    grouping[: len(rows)] = rows
    return grouping.reshape(bands, band_rows)
