# SPDX-License-Identifier: Apache-2.0
"""Straight-through: weights lie on levels, what lies behind them is trained."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.methods.method import Method, require_numpy
from tfrewprune.methods.on_levels import OnLevels
from tfrewprune.structures import KernelShape, Structure


@dataclasses.dataclass(frozen=True)
class StraightThrough(OnLevels, Method):
    """Every step moves latent weights by the gradient at their nearest levels.

    The weights that the model computes with lie on levels at every step: outputs and
    gradients are those of the quantized model, and the optimizer's step is added to the
    latent weights as if rounding were the identity. A refresh fits the scale to the
    latent weights anew. Source: Courbariaux et al., "BinaryConnect", arXiv 1511.00363,
    algorithm 1; the scale as in Rastegari et al., arXiv 1603.05279, section 3.1.

    Args:
        levels: What weights lie on.
    """

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
        if previous:
            latent, live = self._moved(kernel, previous, xp), previous["live"]
        else:
            latent, live = kernel, (kernel != 0).astype(np.float32)
        # The first step starts from the weights as they are, on levels or not.
        scale = self.levels.scale(latent)
        return {"latent": latent, "shown": kernel, "live": live, "scale": scale}

    def follow(self, kernel, state, xp=np) -> dict:
        latent = self._moved(kernel, state, xp)
        nearest = self.levels.nearest(latent / state["scale"], xp) * state["scale"]
        shown = xp.where(state["live"] > 0, nearest, xp.zeros_like(nearest))
        return {"latent": latent, "shown": shown}

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
        return state["shown"]

    def _moved(self, kernel, state, xp):
        """Latent weights after a step; those that are removed stay zero."""
        moved = state["latent"] + (kernel - state["shown"])
        # Not told by a zero of the latent weight: in a long training some pass there.
        return xp.where(state["live"] > 0, moved, xp.zeros_like(moved))
