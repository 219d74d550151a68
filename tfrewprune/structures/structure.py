# SPDX-License-Identifier: Apache-2.0
"""The interface of a structure: which weights live or die together."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from tfrewprune.registry import Registered
from tfrewprune.structures.layout import KernelShape

# Added under the square root so that its gradient is finite at an all-zero group
# (papers: TensorFlow's `norm` yields NaN there). Far below any float32 weight that
# matters: 1e-20 is an rms of 1e-10.
TINY = 1e-20


class Structure(Registered, abc.ABC, kind="structure", example="Block(16, 1)"):
    """A way to cut a kernel into groups of weights that are removed together.

    A kernel is a (positions, channels, outputs) tensor, see `KernelLayout`. A structure
    is a frozen dataclass, holds no state, and answers three questions:

    - `group_grid(shape)`: the shape of the array that holds one number a group;
    - `sums(values, shape, xp)`: the sum of `values` over every group;
    - `spread(groups, shape, xp)`: every weight gets the sum of its groups' numbers.

    Group sizes, norms, choice, projection, penalty, reports and masks follow from these
    and are written once. All array arguments may be numpy arrays (`xp=numpy`) or
    backend tensors (`xp=keras.ops`, differentiable).

    These have defaults for a plain partition whose groups are chosen one by one;
    other structures override them:

    - `partition`: False where a weight belongs to several groups (rows and columns at
      once); it then survives only if all of them do;
    - `candidates(scores, shape)` and `groups_of(chosen, scores, shape)`: what is ranked
      in place of the groups (kernels, each with its best pattern);
    - `select(scores, shape, weights, minimum)`: the choice, where it is no ranking
      of candidates (N of M neighbours, rows and columns);
    - `choose(energy, weights, minimum)`: the choice, where the score of a group depends
      on which others are gone (rows and columns);
    - `fixed_rate(shape)`, `nominal_rate`: the rate, where the structure alone decides
      it;
    - `pulled(rms, shape, keep)`: which groups a penalty leaves alone;
    - `rows_alike(shape)`: how many outputs share their columns, as the runtime likes;
    - `fitted(kernel)`: the same structure with its free choices made for one kernel (a
      library of patterns, an order of rows);
    - `at_output()`: what stands for it where no output may go (rows and columns).

    Defining a subclass registers it: it is found by its class name when a configuration
    is read back.
    """

    #: Whether every weight belongs to exactly one group.
    partition: ClassVar[bool] = True
    #: Whether the last axis of the grid counts bands of neighbouring outputs, each
    #: with several groups: what `Balanced` can balance.
    in_block_rows: ClassVar[bool] = False
    #: What it cuts into groups: `"matrix"`, each weight matrix by itself, or another
    #: unit that layers have, such as the `"heads"` of an attention layer.
    unit: ClassVar[str] = "matrix"

    @abc.abstractmethod
    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        """Shape of an array with one entry per group."""

    @abc.abstractmethod
    def sums(self, values, shape: KernelShape, xp: Any = np):
        """Sum of `values` (positions, channels, outputs) over each group."""

    @abc.abstractmethod
    def spread(self, groups, shape: KernelShape, xp: Any = np):
        """Array of `group_grid(shape)` -> (positions, channels, outputs).

        The adjoint of `sums`: the value of a weight is the sum over its groups, in a
        partition its group's value.
        """

    def mask(self, keep: np.ndarray, shape: KernelShape) -> np.ndarray:
        """Boolean (positions, channels, outputs): the weights that survive.

        Args:
            keep: Boolean array of `group_grid(shape)`.
            shape: Extent of the kernel.
        """
        return self.spread((~keep).astype(np.float32), shape) == 0

    def kept(self, keep: np.ndarray, shape: KernelShape) -> int:
        """Number of weights that survive."""
        if self.partition:
            return int(self.group_sizes(shape)[keep].sum())
        return int(np.count_nonzero(self.mask(keep, shape)))

    def fixed_rate(self, shape: KernelShape) -> float | None:
        """Dense / kept weights where that is not free to choose; else None."""
        return None

    @property
    def nominal_rate(self) -> float | None:
        """`fixed_rate` of a kernel that it divides without a rest."""
        return None

    def fitted(self, kernel: np.ndarray) -> Structure:
        """This structure with what it leaves open decided by a kernel's weights."""
        return self

    def at_output(self) -> Structure:
        """What stands for it in a layer whose outputs are those of the model.

        An output whose weights are all gone is a class that cannot be told any more.
        """
        return self

    def settles(self, other: Structure) -> bool:
        """Whether this is `other`, with what `other` leaves open (None) decided."""
        return type(self) is type(other) and all(
            getattr(other, field.name) in (None, getattr(self, field.name))
            for field in dataclasses.fields(self)
        )

    def pulled(
        self, rms: np.ndarray, shape: KernelShape, keep: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Factors 0 to 1 for the penalty of each group; None for 1 everywhere.

        A group that the structure keeps in any case must not be pulled down: the
        weights inside the best pattern of a kernel, for instance.

        Args:
            rms: Root mean square of every group.
            shape: Extent of the kernel.
            keep: The groups that `select` would keep now, where a rate is wanted; None
                if the penalty alone decides how many go.
        """
        return None

    def select(
        self, scores: np.ndarray, shape: KernelShape, weights: float, minimum: int = 0
    ) -> np.ndarray:
        """Boolean group mask: the best groups for as long as their weights fit.

        Ties are broken by position: of equal scores the first group in C order is
        kept, so that the number of survivors is exact (a percentile's would not be).

        Args:
            scores: One number a group, larger is better.
            shape: Extent of the kernel.
            weights: How many weights may survive.
            minimum: Candidates (groups, or kernels with their pattern) that survive
                whatever `weights` is.
        """
        values, sizes = self.candidates(scores, shape)
        order = np.argsort(-values, axis=None, kind="stable")
        running = np.cumsum(sizes.ravel()[order])
        fit = int(np.searchsorted(running, weights * (1 + 1e-9), side="right"))
        chosen = keep_largest(values, min(values.size, max(fit, minimum)))
        return self.groups_of(chosen, scores, shape)

    def candidates(
        self, scores: np.ndarray, shape: KernelShape
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `select` ranks: the score and the number of weights of each candidate.

        Two arrays of one shape; the groups themselves, if there is nothing else to say.
        """
        return scores, self.group_sizes(shape)

    def groups_of(
        self, chosen: np.ndarray, scores: np.ndarray, shape: KernelShape
    ) -> np.ndarray:
        """Boolean group mask that lets the chosen `candidates` survive."""
        return chosen

    def above(
        self, scores: np.ndarray, shape: KernelShape, threshold: float
    ) -> np.ndarray:
        """Boolean group mask: the candidates that score at least `threshold`."""
        values, _ = self.candidates(scores, shape)
        return self.groups_of(values >= threshold, scores, shape)

    def left(self, rms: np.ndarray, shape: KernelShape, threshold: float) -> np.ndarray:
        """Boolean group mask: what a penalty has not emptied below `threshold`.

        More than `above` where groups overlap: also what goes in any case.
        """
        return self.above(rms, shape, threshold)

    def rows_alike(self, shape: KernelShape) -> int:
        """How many outputs, neighbours or banded by likeness, keep the same columns.

        Outputs that keep nothing do not count.
        """
        return 1

    def group_count(self, shape: KernelShape) -> int:
        """Number of groups."""
        return int(np.prod(self.group_grid(shape), dtype=np.int64))

    def group_sizes(self, shape: KernelShape) -> np.ndarray:
        """Number of weights of every group: int64 array of `group_grid(shape)`.

        In a partition only the groups at a ragged edge differ from the others.
        """
        return _group_sizes(self, shape)

    def rms(self, kernel, shape: KernelShape, xp: Any = np):
        """Root mean square of every group; differentiable, also at zero.

        The mean, not the sum, makes groups of different size comparable: ragged edge
        blocks with one another, rows with columns, and layers with one another.
        """
        inverse = (1.0 / self.group_sizes(shape)).astype(np.float32)
        if inverse.size and (inverse == inverse.flat[0]).all():
            inverse = inverse.flat[0]
        else:
            inverse = xp.array(inverse)
        return xp.sqrt(self.sums(xp.square(kernel), shape, xp) * inverse + TINY)

    def scores(self, kernel: np.ndarray, shape: KernelShape) -> np.ndarray:
        """What a budget ranks groups by, larger is better: their rms."""
        return self.rms(kernel, shape)

    def choose(
        self, energy: np.ndarray, weights: float, minimum: int = 0
    ) -> np.ndarray:
        """Boolean group mask: `select` by what the weights themselves are worth.

        Groups are ranked by the root of their mean energy, which for squared weights is
        their rms: as penalty and pruning do, and because small groups (ragged edges)
        would otherwise go first.

        Args:
            energy: What each weight is worth, (positions, channels, outputs), at least
                0: its square, or that times a second moment of its gradient.
            weights: How many weights may survive.
            minimum: As in `select`.
        """
        shape = KernelShape(*energy.shape)
        mean = self.sums(energy, shape) / self.group_sizes(shape)
        return self.select(np.sqrt(mean), shape, weights, minimum)

    def project(self, kernel: np.ndarray, weights: float) -> np.ndarray:
        """Nearest kernel (Euclidean) of this structure with at most `weights` weights.

        Near, not nearest, where groups differ in size or overlap.
        """
        shape = KernelShape(*kernel.shape)
        keep = self.choose(np.square(kernel), weights)
        return np.where(self.mask(keep, shape), kernel, 0).astype(kernel.dtype)

    def surviving_groups(self, kernel: np.ndarray) -> np.ndarray:
        """Boolean array of `group_grid`: groups with a non-zero weight."""
        shape = KernelShape(*kernel.shape)
        return self.sums((kernel != 0).astype(np.float32), shape) > 0

    def __str__(self) -> str:
        """Short text such as `Block(16, 1)`; what `fitted` decides is left out."""
        texts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not field.repr:
                continue
            if not isinstance(value, bool) and isinstance(value, int | Structure):
                texts.append(str(value))
            elif value != field.default:
                texts.append(f"{field.name}={value!r}")
        name = type(self).__name__
        return f"{name}({', '.join(texts)})" if texts else name


@functools.lru_cache(maxsize=1024)
def _group_sizes(structure: Structure, shape: KernelShape) -> np.ndarray:
    ones = np.broadcast_to(np.float64(1.0), tuple(shape))
    sizes = np.rint(structure.sums(ones, shape)).astype(np.int64)
    sizes.flags.writeable = False  # shared by everybody who asks
    return sizes


def check_extents(structure: Structure, *names: str) -> None:
    """Refuses fields that are not integers of at least 1."""
    for name in names:
        extent = getattr(structure, name)
        if isinstance(extent, bool) or not isinstance(extent, int) or extent < 1:
            raise ValueError(
                f"Argument `{name}` of {type(structure).__name__} must be an integer "
                f"of at least 1. Received: {name}={extent!r}"
            )


def keep_largest(scores: np.ndarray, keep: int) -> np.ndarray:
    """Boolean mask with exactly `keep` entries: the largest scores, first come first.

    Raises:
        ValueError: `keep` is negative or larger than the number of scores.
    """
    scores = np.asarray(scores)
    if not 0 <= keep <= scores.size:
        raise ValueError(
            f"Argument `keep` must lie between 0 and the number of groups "
            f"({scores.size}). Received: keep={keep}"
        )
    order = np.argsort(-scores, axis=None, kind="stable")
    mask = np.zeros(scores.size, dtype=bool)
    mask[order[:keep]] = True
    return mask.reshape(scores.shape)
