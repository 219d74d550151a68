# SPDX-License-Identifier: Apache-2.0
"""Gradual pruning: the mask tightens while the network trains."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tfrewprune.methods.method import Method

SCHEDULES = ("geometric", "cubic")
SCORES = ("magnitude", "fisher")


@dataclasses.dataclass(frozen=True)
class GradualMagnitude(Method):
    """No penalty: every few steps the groups of least score go, until the rate is met.

    Needs no strength, and is the safer choice for blocks at extreme rates.

    - `"geometric"`: after a share f of the phase 1 / rate^f of the weights are left, so
      that every cut removes the same fraction of what is there;
    - `"cubic"`: 1 - s (1 - (1 - f)^3) are left, with s = 1 - 1 / rate (Zhu and Gupta,
      "To prune, or not to prune", arXiv 1710.01878, equation 1): fast at first.

    A model with masks in place goes on from their rate: towards an extreme rate, begin
    with a cut by `hard_prune` to about 10x, whose weights cost nothing, and spend the
    phase where the choice matters.

    Args:
        schedule: `"geometric"` or `"cubic"`.
        score: `"magnitude"`: a group's rms, across layers by LAMP. `"fisher"`: the root
            of its mean w^2 v, across layers as it is, where v is the optimizer's second
            moment of the weight, a running mean of its squared gradient: what removing
            it costs to first order. Optimizers without one (SGD) are scored by
            magnitude.
        every: Epochs between two cuts; at least one step. On JAX, where a new mask
            compiles a new step, at least one epoch.

    Raises:
        ValueError: An unknown schedule or score, or `every` not above 0.
    """

    penalized: ClassVar[bool] = False
    gradual: ClassVar[bool] = True

    schedule: str = "geometric"
    score: str = "magnitude"
    every: float = 0.1

    def __post_init__(self):
        for name, known in (("schedule", SCHEDULES), ("score", SCORES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected one of {known}. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
        if not self.every > 0:
            raise ValueError(
                f"Argument `every` must be above 0. Received: every={self.every!r}"
            )

    def rate_at(self, progress: float, rate: float, start: float = 1.0) -> float:
        """Dense / kept weights after a share `progress` of the phase.

        Args:
            progress: 0 to 1.
            rate: Dense / kept weights at the end.
            start: The same at the beginning; from a `start` above `rate` nothing moves.

        Example:

        >>> GradualMagnitude().rate_at(0.5, 16)
        4.0
        """
        further = max(1.0, rate / start)
        if self.schedule == "geometric":
            return start * further**progress
        removed = (1 - 1 / further) * (1 - (1 - progress) ** 3)
        return start / (1 - removed)
