# SPDX-License-Identifier: Apache-2.0
"""Balanced: another structure with equally many groups in every block row."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure


@dataclasses.dataclass(frozen=True)
class Balanced(Structure):
    """The groups of another structure, the same number of them in every block row.

    A block row is a band of outputs: the filters that a `Block` or a `Punched` spans,
    one filter for `Kernel` or `Unstructured`. Threads that share the bands then have
    equal work. Groups, penalty and mask are those of the other structure; only the
    choice differs. Source: Li et al., arXiv 2009.08065 (the `*_balanced` types of its
    code); Ma et al., arXiv 1909.05073 (PCONV, equal kernels per filter).

    Args:
        of: The structure to balance, its config or its name: one with several groups
            in every block row.

    Example:

    >>> from tfrewprune.structures import Block
    >>> keep = Balanced(Block(2, 1)).select(
    ...     np.array([[9, 1], [8, 2], [7, 3]]), KernelShape(1, 3, 4), weights=4)
    >>> keep.sum(axis=0)
    array([1, 1])
    """

    of: Structure

    def __post_init__(self):
        object.__setattr__(self, "of", Structure.get(self.of))
        if not self.of.in_block_rows:
            raise ValueError(
                "Argument `of` of Balanced must be a structure with several groups in "
                "every block row, such as Block(16, 1), Kernel() or Pattern(). "
                f"Received: of={self.of}"
            )

    @property
    def partition(self) -> bool:
        """Whether every weight belongs to exactly one group."""
        return self.of.partition

    def get_config(self) -> dict:
        return {**super().get_config(), "of": self.of.get_config()}

    def fitted(self, kernel: np.ndarray) -> Balanced:
        return Balanced(self.of.fitted(kernel))

    def settles(self, other: Structure) -> bool:
        return isinstance(other, Balanced) and self.of.settles(other.of)

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return self.of.group_grid(shape)

    def sums(self, values, shape: KernelShape, xp=np):
        return self.of.sums(values, shape, xp)

    def spread(self, groups, shape: KernelShape, xp=np):
        return self.of.spread(groups, shape, xp)

    def pulled(
        self, rms: np.ndarray, shape: KernelShape, keep: np.ndarray | None = None
    ) -> np.ndarray | None:
        return self.of.pulled(rms, shape, keep)

    def left(self, rms: np.ndarray, shape: KernelShape, threshold: float) -> np.ndarray:
        return self.of.left(rms, shape, threshold)

    def rows_alike(self, shape: KernelShape) -> int:
        return self.of.rows_alike(shape)

    def candidates(
        self, scores: np.ndarray, shape: KernelShape
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.of.candidates(scores, shape)

    def groups_of(
        self, chosen: np.ndarray, scores: np.ndarray, shape: KernelShape
    ) -> np.ndarray:
        return self.of.groups_of(chosen, scores, shape)

    def select(
        self, scores: np.ndarray, shape: KernelShape, weights: float, minimum: int = 0
    ) -> np.ndarray:
        """The best groups of every block row, as many as fit in all of them."""
        values, sizes = self.candidates(scores, shape)
        bands = values.shape[-1]
        order = np.argsort(-values.reshape(-1, bands), axis=0, kind="stable")
        ranked = np.take_along_axis(sizes.reshape(-1, bands), order, axis=0)
        running = np.cumsum(ranked.sum(axis=1))  # weights of n groups a block row
        fit = int(np.searchsorted(running, weights * (1 + 1e-9), side="right"))
        chosen = np.zeros(order.shape, bool)
        best = order[: max(fit, -(-minimum // bands))]
        np.put_along_axis(chosen, best, True, axis=0)
        return self.groups_of(chosen.reshape(values.shape), scores, shape)
