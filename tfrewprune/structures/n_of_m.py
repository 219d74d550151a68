# SPDX-License-Identifier: Apache-2.0
"""NofM: n of m neighbouring input channels survive, at every position and output."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.structures.layout import KernelShape
from tfrewprune.structures.structure import Structure, check_extents
from tfrewprune.structures.tiles import tiles


@dataclasses.dataclass(frozen=True)
class NofM(Structure):
    """Of `m` neighbouring input channels `n` survive, each output has its own.

    Runs of m channels are counted from the first one, at each kernel position anew. A
    run at the end that is shorter than m keeps n weights, too, or all it has if fewer.
    The structure alone decides the rate: m / n where m divides the channels. Source:
    Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv 2104.08378 (2:4).

    Args:
        n: Weights that survive, at least 1 and at most m.
        m: Length of a run of channels.

    Example:

    >>> NofM(2, 4).fixed_rate(KernelShape(9, 16, 40))
    2.0
    """

    n: int = 2
    m: int = 4

    def __post_init__(self):
        check_extents(self, "n", "m")
        if self.n > self.m:
            raise ValueError(
                "NofM keeps `n` of `m` neighbours, so n must be at most m. Received: "
                f"n={self.n}, m={self.m}"
            )

    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        return tuple(shape)

    def sums(self, values, shape: KernelShape, xp=np):
        return values

    def spread(self, groups, shape: KernelShape, xp=np):
        return groups

    def fixed_rate(self, shape: KernelShape) -> float:
        whole, rest = divmod(shape.channels, self.m)
        return shape.channels / (whole * self.n + min(rest, self.n))

    @property
    def nominal_rate(self) -> float:
        return self.m / self.n

    def select(
        self, scores: np.ndarray, shape: KernelShape, weights: float, minimum: int = 0
    ) -> np.ndarray:
        """The n best of every m, whatever `weights` and `minimum` are."""
        runs = tiles(shape.channels, self.m)
        missing = runs * self.m - shape.channels
        padded = np.pad(
            np.asarray(scores, np.float64),
            ((0, 0), (0, missing), (0, 0)),
            constant_values=-np.inf,
        )
        padded = padded.reshape(shape.positions, runs, self.m, shape.outputs)
        best = np.argsort(-padded, axis=2, kind="stable")[:, :, : self.n]
        keep = np.zeros(padded.shape, bool)
        np.put_along_axis(keep, best, True, axis=2)
        return keep.reshape(shape.positions, -1, shape.outputs)[:, : shape.channels]

    def pulled(
        self, rms: np.ndarray, shape: KernelShape, keep: np.ndarray | None = None
    ) -> np.ndarray:
        """1 for the weights that are not among the n best of their m."""
        return (~self.select(rms, shape, 0)).astype(np.float32)
