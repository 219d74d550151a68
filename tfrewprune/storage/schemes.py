# SPDX-License-Identifier: Apache-2.0
"""Ways to store a sparse weight matrix, in bits that a decoder cannot do without.

Storage with all indices counted, as in Ma et al., "Non-Structured DNN Weight Pruning:
Is It Beneficial in Any Platform?" (arXiv 1907.02124). Every scheme is taken at its
best: index widths and block sizes are chosen for each layer. Not counted is what all of
them need alike and once: the shape, the widths, the length of a section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

#: Extents of blocks that are tried, beside the whole matrix.
BLOCK_ROWS = (4, 8, 16, 32, 64)
BLOCK_COLUMNS = (4, 16, 64, 256)
#: Widths of a gap index that are tried, in bits.
GAP_BITS = range(1, 17)


class Coding(NamedTuple):
    """One way to store a matrix.

    Attributes:
        values: Numbers stored, surviving weights and zeros between them.
        metadata_bits: All else.
        how: What was chosen, such as `4-bit gaps`.
    """

    values: int
    metadata_bits: int
    how: str = ""

    def bytes(self, bits: float) -> int:
        """Size with so many bits a number."""
        return int(-(-(self.values * bits + self.metadata_bits) // 8))


def index_bits(count: int) -> int:
    """Bits that tell `count` things apart."""
    return max(count - 1, 0).bit_length()


def gap_codings(mask: np.ndarray, taps: int) -> Iterator[Coding]:
    """Row by row, each weight with the number of zeros before it.

    A gap of k bits that is too small is bridged by a filler: the largest gap, and a
    zero as its weight (Han et al., Deep Compression, arXiv 1510.00149).
    """
    places = np.flatnonzero(mask)
    gaps = np.diff(places, prepend=-1) - 1
    for width in GAP_BITS:
        entries = len(places) + int((gaps >> width).sum())
        yield Coding(entries, entries * width, f"{width}-bit gaps")


def csr_codings(mask: np.ndarray, taps: int) -> Iterator[Coding]:
    """Compressed sparse rows: a column a weight, a pointer a row and one more."""
    rows, columns = mask.shape
    kept = int(np.count_nonzero(mask))
    pointers = (rows + 1) * kept.bit_length()
    yield Coding(kept, kept * index_bits(columns) + pointers)


def bitmap_codings(mask: np.ndarray, taps: int) -> Iterator[Coding]:
    """A bit a weight of the dense matrix."""
    yield Coding(int(np.count_nonzero(mask)), mask.size)


def block_codings(mask: np.ndarray, taps: int) -> Iterator[Coding]:
    """Blocks of p x q, each with its own surviving rows and columns.

    Surviving are told by bitmaps of p and q bits, or by lists with their lengths; where
    blocks lose rows alone or columns alone, one of both. With the whole matrix as the
    block this is the storage of filter and column pruning.
    """
    rows, columns = mask.shape
    if not mask.any():
        yield Coding(0, 1, "empty")
        return
    heights = [extent for extent in BLOCK_ROWS if extent < rows] + [rows]
    widths = [extent for extent in BLOCK_COLUMNS if extent < columns] + [columns]
    for p in heights:
        # Once over the large matrix; widths work on what is left of it.
        upright = np.logical_or.reduceat(mask, np.arange(0, rows, p), axis=0)
        high = np.minimum(p, rows - np.arange(0, rows, p))[:, None]
        for q in widths:
            cuts = np.arange(0, columns, q)
            wide = np.minimum(q, columns - cuts)
            kept_columns = np.add.reduceat(upright, cuts, axis=1, dtype=np.int64)
            flat = np.logical_or.reduceat(mask, cuts, axis=1)
            starts = np.arange(0, rows, p)
            kept_rows = np.add.reduceat(flat, starts, axis=0, dtype=np.int64)
            size = f"{p} x {q}"
            inside = int((kept_rows * kept_columns).sum())
            bits = int((high + wide).sum())
            yield Coding(inside, bits, f"{size}, bitmaps")
            lists = kept_rows * index_bits(p) + kept_columns * index_bits(q)
            counts = kept_rows.size * (index_bits(p + 1) + index_bits(q + 1))
            yield Coding(inside, int(lists.sum()) + counts, f"{size}, lists")
            whole = int((high * kept_columns).sum())
            yield Coding(whole, int(wide.sum()) * len(high), f"{size}, columns")
            whole = int((kept_rows * wide).sum())
            yield Coding(whole, int(high.sum()) * len(wide), f"{size}, rows")


def pattern_codings(mask: np.ndarray, taps: int) -> Iterator[Coding]:
    """Kernels: for each that survives its channel and its pattern's number.

    The patterns, `taps` bits each, and the number of kernels of each filter stand in
    front (filter-kernel-weight storage of PatDNN, arXiv 2001.00138). Only for kernels
    of several positions.
    """
    if taps == 1:
        return
    rows, columns = mask.shape
    channels = columns // taps
    kernels = mask.reshape(rows, taps, channels).transpose(0, 2, 1).reshape(-1, taps)
    alive = kernels[kernels.any(axis=1)]
    patterns = len(np.unique(np.packbits(alive, axis=1), axis=0))
    numbers = len(alive) * (index_bits(patterns) + index_bits(channels))
    front = patterns * taps + rows * index_bits(channels + 1)
    yield Coding(int(alive.sum()), numbers + front, f"{patterns} patterns")


SCHEMES: dict[str, Callable[[np.ndarray, int], Iterator[Coding]]] = {
    "gap": gap_codings,
    "csr": csr_codings,
    "bitmap": bitmap_codings,
    "block": block_codings,
    "pattern": pattern_codings,
}


def best(codings: tuple[Coding, ...], bits: float) -> Coding | None:
    """The smallest of them with so many bits a weight."""
    return min(codings, key=lambda coding: coding.bytes(bits), default=None)


def worth_keeping(codings: Iterator[Coding]) -> tuple[Coding, ...]:
    """Those that can be the smallest at some number of bits a weight."""
    kept: list[Coding] = []
    for coding in sorted(codings):
        if not kept or coding.metadata_bits < kept[-1].metadata_bits:
            kept.append(coding)
    return tuple(kept)
