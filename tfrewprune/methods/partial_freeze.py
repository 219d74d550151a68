# SPDX-License-Identifier: Apache-2.0
"""Partial freeze: weights near a level are fixed to it, the others make up for it."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.methods.method import Method, require_numpy
from tfrewprune.methods.on_levels import OnLevels
from tfrewprune.structures import KernelShape, Structure


@dataclasses.dataclass(frozen=True)
class PartialFreeze(OnLevels, Method):
    """Rounds that each fix a share of the free weights, the nearest, to their levels.

    The scale is fitted at the start; the last round fixes all that is left. Removed
    weights are fixed at zero from the start. Source: the code of Ren et al., "ADMM-NN",
    arXiv 1812.11677, where each level takes the 30 % nearest of its own weights.

    Args:
        levels: What weights shall lie on.
        share: Of the free weights that a round fixes, above 0 and at most 1.
        rounds: Their number; the first is at the start, others at refreshes.

    Raises:
        ValueError: Impossible numbers.
    """

    share: float = 0.5
    rounds: int = 5

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.share <= 1 or self.rounds < 1:
            raise ValueError(
                "A partial freeze needs a share above 0 and at most 1, and at least 1 "
                f"round. Received: share={self.share!r}, rounds={self.rounds!r}"
            )

    def state(
        self,
        kernel,
        structure: Structure,
        shape: KernelShape,
        xp=np,
        previous=None,
        keep=None,
    ) -> dict:
        require_numpy(self, xp)
        if not previous:
            previous = {
                "frozen": np.zeros_like(kernel),
                "free": (kernel != 0).astype(np.float32),
                "scale": self.levels.scale(kernel),
                "round": np.float32(0),
            }
        free, frozen = previous["free"].copy(), previous["frozen"].copy()
        nearest = self.levels.on_levels(kernel, previous["scale"])
        candidates = np.flatnonzero(free)
        distance = np.abs(nearest - kernel).ravel()[candidates]
        count = len(candidates)
        if previous["round"] + 1 < self.rounds:
            count = int(np.ceil(self.share * count))
        chosen = candidates[np.argsort(distance, kind="stable")[:count]]
        free.flat[chosen] = 0
        frozen.flat[chosen] = nearest.flat[chosen]
        return {
            "frozen": frozen,
            "free": free,
            "scale": previous["scale"],
            "round": previous["round"] + 1,
        }

    def after_step(
        self,
        kernel,
        structure: Structure,
        shape: KernelShape,
        state,
        step,
        measure=1.0,
        xp=np,
    ):
        return xp.where(state["free"] > 0, kernel, state["frozen"])
