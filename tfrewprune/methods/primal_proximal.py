# SPDX-License-Identifier: Apache-2.0
"""Primal-proximal: training follows a shrunken copy of its weights."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tfrewprune.methods.method import Method, require_numpy, shrunk
from tfrewprune.structures import KernelShape, Structure


@dataclasses.dataclass(frozen=True)
class PrimalProximal(Method):
    """Penalty strength / 2 ||W - Z||^2, where Z is W with small groups shrunk away.

    A refresh sets Z_g = max(0, 1 - shrink / rms_g) W_g, the proximal operator of a
    group penalty: groups of an rms below `shrink` are zero in Z, large ones are hardly
    touched, and W is tied to Z by a quadratic, so that the data decides what large
    groups lose. Rates emerge from `shrink` and need not be set; no dual is kept. After
    Li, Gong et al., "SS-Auto", arXiv 2001.08839 (abstract; the closed form is ours).

    Where weights belong to several groups (rows and columns at once) they are shrunk by
    the product of their groups' factors.

    Args:
        shrink: Root mean square of a group below which Z drops it.

    Raises:
        ValueError: `shrink` not above 0.
    """

    controlled: ClassVar[bool] = False
    default_strength: ClassVar[float] = 1e-2

    shrink: float = 1e-2

    def __post_init__(self):
        if not self.shrink > 0:
            raise ValueError(
                f"Argument `shrink` must be above 0. Received: {self.shrink!r}"
            )

    @property
    def threshold(self) -> float:
        return self.shrink  # what the proximal step empties

    @property
    def negligible(self) -> float:
        return self.shrink

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
        rms = structure.rms(kernel, shape)
        factor = np.maximum(0, 1 - self.shrink / rms)
        target = shrunk(kernel, factor, structure, shape)
        return {"target": target.astype(np.float32)}

    def penalty(self, kernel, structure: Structure, shape: KernelShape, state, xp=np):
        return 0.5 * xp.sum(xp.square(kernel - state["target"]))
