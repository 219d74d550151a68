# SPDX-License-Identifier: Apache-2.0
"""ADMM: training is pulled towards its own projection, onto structure or levels."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tfrewprune.levels import Levels
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

    The published learning rate is periodic: it begins anew at each refresh and falls in
    between. Compile the model with a schedule that restarts as often as Z is refreshed,
    for `n` refreshes in a phase of `steps` steps
    `keras.optimizers.schedules.CosineDecayRestarts(1e-3, steps // (n + 1), t_mul=1)`.

    With `levels` the projection is the one onto them: of the weights that are left,
    removed ones stay zero. Source: Ren et al., "ADMM-NN", arXiv 1812.11677; Ye et al.,
    section on quantization. `Quantization` makes it, and what follows.

    Args:
        growth: Factor of the strength (rho) at each refresh.
        levels: What weights shall lie on, in place of the structure.

    Raises:
        ValueError: `growth` below 1.
    """

    controlled: ClassVar[bool] = False
    default_strength: ClassVar[float] = 1e-3

    growth: float = 1.3
    levels: Levels | None = None

    def __post_init__(self):
        if self.levels is not None:
            object.__setattr__(self, "levels", Levels.get(self.levels))
        if not self.growth >= 1:
            raise ValueError(
                f"Argument `growth` must be at least 1. Received: {self.growth!r}"
            )

    @property
    def prunes(self) -> bool:
        """Whether it projects onto the structure."""
        return self.levels is None

    @property
    def projects(self) -> bool:
        """Whether it must be told how many weights are left."""
        return self.prunes

    def get_config(self) -> dict:
        levels = None if self.levels is None else self.levels.get_config()
        return {**super().get_config(), "levels": levels}

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
        moved = kernel + previous["dual"] if previous else kernel
        if self.levels is None:
            keep = shape.weights if keep is None else keep
            target = structure.project(moved, keep)
        else:
            # Not the zeros of `moved`: what is removed is removed from the kernel.
            target = self.levels.project(np.where(kernel == 0, 0, moved))
        dual = moved - target if previous else np.zeros_like(kernel)
        return {"target": target, "dual": dual}

    def penalty(self, kernel, structure: Structure, shape: KernelShape, state, xp=np):
        distance = kernel - state["target"] + state["dual"]
        return 0.5 * xp.sum(xp.square(distance))
