# SPDX-License-Identifier: Apache-2.0
"""ADMM: training is pulled towards its own projection onto the structure."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tfrewprune.methods.method import Method, require_numpy
from tfrewprune.structures import KernelShape, Structure


@dataclasses.dataclass(frozen=True)
class ADMM(Method):
    """Penalty strength / 2 ||W - Z + U||^2 with Z the projection of W + U.

    The alternating direction method of multipliers for "at most so many weights, in
    groups": training moves W towards Z, a refresh sets Z to the projection of W + U
    onto the structure at the rate asked for, and adds to the dual U what is left of the
    difference. At the start Z is the projection of the pretrained weights and U is 0.
    `hard_prune` then maps W onto the structure, `masked_retrain` trains what is left.
    Source: Zhang et al., "A Systematic DNN Weight Pruning Framework using ADMM", arXiv
    1804.03294; the growing strength from Ye et al., arXiv 1903.09769, section 3.

    Needs a rate, and more refreshes than `Reweighted`: the published schedules have 10
    to 30 (`Recipe(refreshes=10)`).

    Args:
        growth: Factor of the strength (rho) at each refresh.

    Raises:
        ValueError: `growth` below 1.
    """

    projects: ClassVar[bool] = True
    controlled: ClassVar[bool] = False
    default_strength: ClassVar[float] = 1e-3

    growth: float = 1.3

    def __post_init__(self):
        if not self.growth >= 1:
            raise ValueError(
                f"Argument `growth` must be at least 1. Received: {self.growth!r}"
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
        keep = shape.weights if keep is None else keep
        if not previous:
            return {
                "target": structure.project(kernel, keep),
                "dual": np.zeros_like(kernel),
            }
        moved = kernel + previous["dual"]
        target = structure.project(moved, keep)
        return {"target": target, "dual": moved - target}

    def penalty(self, kernel, structure: Structure, shape: KernelShape, state, xp=np):
        distance = kernel - state["target"] + state["dual"]
        return 0.5 * xp.sum(xp.square(distance))
