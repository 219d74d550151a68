# SPDX-License-Identifier: Apache-2.0
"""Pattern: every kernel keeps one of a few sets of positions, or is removed."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure, check_extents
from tfrewprune.structures.tiles import tile_spread, tile_sums, tiles

Patterns = tuple[tuple[int, ...], ...]

#: Kernels and natural patterns that mining looks at, at most.
SAMPLE = 20_000
CANDIDATES = 256


@dataclasses.dataclass(frozen=True)
class Pattern(Structure):
    """Each kernel keeps `entries` of its positions, in one of `size` patterns.

    The patterns of a layer are a small *library*; every kernel takes the one that keeps
    most of it. Where a rate asks for fewer weights than that leaves (above 9 / 4 for a
    3x3 kernel), the kernels that then hold least are removed whole: *connectivity*.
    Smaller rates are impossible and keep every kernel with its pattern. Kernels with no
    more than `entries` positions (1x1, `Dense`) keep all of them: connectivity alone.

    With `rows=1` each kernel chooses for itself, as in the papers. With `rows=16` the
    kernels of 16 filters that read one channel share pattern and survival, so that a
    band of the runtime shares its columns and runs at full speed.

    Groups overlap: for each pattern the weights inside it and those outside it, in
    every kernel. The penalty (`pulled`) is the sum over kernels of the weights outside
    the best pattern, from which patterns emerge, and of those inside it in the weakest
    kernels, from which connectivity does.

    Sources: Niu et al., "PatDNN", arXiv 2001.00138 (library of natural patterns,
    connectivity); Ma et al., "PCONV", arXiv 1909.05073 (given patterns). Like theirs
    but for the centre, which has to earn its place here.

    Args:
        entries: Positions that a kernel keeps, at least 1.
        rows: Neighbouring filters whose kernels share a pattern, at least 1.
        size: Patterns in a library that `fitted` mines.
        library: Tuples of positions, equally many in each; position `row * width +
            column` of a 2-D kernel. None has `fitted` mine it (`mine_patterns`) from
            the sets of the `entries` largest weights of all kernels.

    Raises:
        ValueError: A size below 1, a library that is none, or (when groups are asked
            for) one that is still open or does not fit the kernel.

    Example:

    >>> structure = Pattern(library=((0, 1, 3, 4), (1, 2, 4, 5)))
    >>> structure.group_grid(KernelShape(9, 8, 40))  # inside 2, outside 2
    (4, 8, 40)
    """

    entries: int = 4
    rows: int = 1
    size: int = 8
    library: Patterns | None = dataclasses.field(default=None, repr=False)
    partition: ClassVar[bool] = False
    in_block_rows: ClassVar[bool] = True

    def __post_init__(self):
        check_extents(self, "entries", "rows", "size")
        if self.library is None:
            return
        try:
            library = tuple(tuple(sorted(map(int, p))) for p in self.library)
        except TypeError:
            library = ()
        lengths = {len(pattern) for pattern in library}
        if (
            lengths != {self.entries}
            or len(set(library)) != len(library)
            or any(len(set(p)) != len(p) or p[0] < 0 for p in library)
        ):
            raise ValueError(
                "Argument `library` of Pattern must hold one or more different tuples "
                f"of {self.entries} different positions (`entries`). "
                f"Received: library={self.library!r}"
            )
        object.__setattr__(self, "library", library)

    def fitted(self, kernel: np.ndarray) -> Pattern:
        if self.library is not None or len(kernel) <= self.entries:
            return self
        energy = tile_sums(np.square(kernel), 2, self.rows).reshape(len(kernel), -1)
        library = mine_patterns(energy, self.entries, self.size)
        return dataclasses.replace(self, library=library)

    def patterns(self, shape: KernelShape) -> Patterns:
        """The sets of positions a kernel of `shape` may keep.

        Raises:
            ValueError: The library is open, or names positions the kernel has not.
        """
        if shape.positions <= self.entries:
            return (tuple(range(shape.positions)),)
        if self.library is None:
            raise ValueError(
                f"{self} has no library yet. Give one, or take "
                "`structure.fitted(kernel)`; `attach` and `wrap` do so."
            )
        last = max(pattern[-1] for pattern in self.library)
        if last >= shape.positions:
            raise ValueError(
                f"The library of {self} names position {last}, but the kernel has "
                f"{shape.positions} positions, counted from 0."
            )
        return self.library

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        parts = len(_parts(self.patterns(shape), shape.positions))
        return (parts, shape.channels, tiles(shape.outputs, self.rows))

    def sums(self, values, shape: KernelShape, xp=np):
        grid = self.group_grid(shape)
        values = xp.reshape(tile_sums(values, 2, self.rows, xp), (shape.positions, -1))
        parts = _parts(self.patterns(shape), shape.positions)
        return xp.reshape(xp.matmul(xp.array(parts), values), grid)

    def spread(self, groups, shape: KernelShape, xp=np):
        grid = self.group_grid(shape)
        parts = _parts(self.patterns(shape), shape.positions)
        weights = xp.matmul(xp.array(parts.T), xp.reshape(groups, (grid[0], -1)))
        weights = xp.reshape(weights, (shape.positions, *grid[1:]))
        return tile_spread(weights, 2, self.rows, shape.outputs, xp)

    def candidates(
        self, scores: np.ndarray, shape: KernelShape
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each kernel with its best pattern: the score and the weights inside."""
        patterns = self.patterns(shape)
        sizes = self.group_sizes(shape)[0]
        return scores[: len(patterns)].max(axis=0), sizes

    def groups_of(
        self, chosen: np.ndarray, scores: np.ndarray, shape: KernelShape
    ) -> np.ndarray:
        patterns = self.patterns(shape)
        parts = _parts(patterns, shape.positions)
        # A part survives if it holds a weight of the kernel's pattern.
        touching = parts @ parts[: len(patterns)].T > 0
        return touching[:, self._best(scores, shape)] & chosen

    def left(self, rms: np.ndarray, shape: KernelShape, threshold: float) -> np.ndarray:
        left, count = self.above(rms, shape, threshold), len(self.patterns(shape))
        if count < len(rms):
            left[count:] |= self._is_best(rms, shape) & (rms[count:] >= threshold)
        return left

    def pulled(
        self, rms: np.ndarray, shape: KernelShape, keep: np.ndarray | None = None
    ) -> np.ndarray | None:
        """1 for the weights outside the best pattern, and inside in weak kernels.

        Patterns other than a kernel's best one do not count. Weak are the kernels that
        `keep` removes, so that a falling number of weights pulls the weakest first.
        Where that is open, it is the kernels that hold less inside than the average
        kernel outside: as large weights as theirs must go in any case. Inside kernels
        that are not weak nothing is pulled.
        """
        count = len(self.patterns(shape))
        if count == len(rms):
            return None  # no weight lies outside: groups like others
        best = self._is_best(rms, shape)
        if keep is None:
            outside = np.where(best, rms[count:], 0).max(axis=0)
            weak = rms[:count].max(axis=0) < np.sqrt(np.mean(np.square(outside)))
        else:
            weak = ~keep[:count].any(axis=0)
        return np.concatenate([best & weak, best]).astype(np.float32)

    def rows_alike(self, shape: KernelShape) -> int:
        return min(self.rows, shape.outputs)

    def _is_best(self, scores: np.ndarray, shape: KernelShape) -> np.ndarray:
        """Boolean (patterns, ...): whether it is the one that `_best` numbers."""
        numbers = np.arange(len(self.patterns(shape)))
        return numbers[:, None, None] == self._best(scores, shape)

    def _best(self, scores: np.ndarray, shape: KernelShape) -> np.ndarray:
        """Number of the pattern that keeps most of each kernel."""
        return np.argmax(scores[: len(self.patterns(shape))], axis=0)


def mine_patterns(energy: np.ndarray, entries: int, size: int) -> Patterns:
    """A small library that keeps much of the kernels.

    Candidates are the *natural patterns*, the sets of the `entries` largest positions
    of a kernel, the frequent ones first. Of them the library takes, one at a time, the
    pattern that adds most to what every kernel keeps in its best one. Taking the most
    frequent instead, as PatDNN does, leaves 2 to 3 % less energy on a ResNet-8.

    Args:
        energy: Squared weights, (positions, kernels).
        entries: Positions in a pattern.
        size: Patterns wanted; fewer come back if kernels have no more.

    Returns:
        Positions in ascending order, pattern by pattern.
    """
    energy = energy[:, :: -(-energy.shape[1] // SAMPLE)]
    largest = np.sort(np.argsort(-energy, axis=0, kind="stable")[:entries], axis=0)
    sets, counts = np.unique(largest, axis=1, return_counts=True)
    sets = sets[:, np.argsort(-counts, kind="stable")[:CANDIDATES]]
    kept = np.stack([energy[positions].sum(axis=0) for positions in sets.T])
    best = np.zeros(energy.shape[1], energy.dtype)
    library: list[int] = []
    while len(library) < min(size, len(kept)):
        gains = np.maximum(kept, best).sum(axis=1)
        gains[library] = -np.inf
        library.append(int(np.argmax(gains)))
        best = np.maximum(best, kept[library[-1]])
    return tuple(tuple(map(int, sets[:, index])) for index in library)


@functools.lru_cache(maxsize=256)
def _parts(patterns: Patterns, positions: int) -> np.ndarray:
    """Rows of 0 and 1 over the positions: inside each pattern, then outside each.

    Nothing lies outside patterns of all positions: then there are no such rows.
    """
    inside = np.zeros((len(patterns), positions), np.float32)
    for row, pattern in zip(inside, patterns, strict=True):
        row[list(pattern)] = 1
    outside = 1 - inside
    parts = np.concatenate([inside, outside]) if outside.any() else inside
    parts.flags.writeable = False  # shared by everybody who asks
    return parts
