# SPDX-License-Identifier: Apache-2.0
"""Gradual pruning: the mask tightens while the network trains."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from tfrewprune.methods.method import Method
from tfrewprune.methods.step_schedule import CalledSchedule, StepSchedule

SCHEDULES = ("geometric", "cubic")
SCORES = ("lamp", "fisher", "magnitude")


@dataclasses.dataclass(frozen=True)
class GradualMagnitude(Method):
    """No penalty: every few steps the groups of least score go, until the rate is met.

    Needs no strength, and is the safer choice for blocks at extreme rates. A model that
    is cut already (`Recipe(start_rate=10)`, or a mask in place) is cut further from
    what it is.

    - `"geometric"`: a rate r0 at the start becomes r0 (rate / r0)^f after a share f of
      the phase, so that every cut removes the same fraction of what is there;
    - `"cubic"`: a share 1 - s of the weights is left, with s = s1 + (s0 - s1)(1 - f)^3
      from s0 = 1 - 1 / r0 to s1 = 1 - 1 / rate (Zhu and Gupta, "To prune, or not to
      prune", arXiv 1710.01878, equation 1): fast at first;
    - a tfmot `PolynomialDecay` or `ConstantSparsity`, or a schedule of your own that
      answers a step by `(should_prune, sparsity)` as they do: its sparsity, at its
      steps. It then also gives the recipe's rate. One of your own cannot be read back
      from JSON.

    Args:
        schedule: `"geometric"`, `"cubic"`, a schedule, or the config of a tfmot one.
        score: How groups of different layers compare; inside a layer the largest root
            mean square survives, whichever of the two.
            `"lamp"`: by their share of the layer's energy, see `lamp_scores`.
            `"magnitude"`: by their root mean square.
            `"fisher"`: everywhere by the mean of w^2 v, where v is the optimizer's
            second moment of the weight, a running mean of its squared gradient: what
            removing it costs to first order. With optimizers that keep none (SGD, Lion,
            of matrices Muon) this is `"lamp"`, and a note in the rows says so.
        every: Epochs between two cuts; at least one step. A tfmot schedule has its own.
        remove_dead_paths: After every cut also remove filters that nobody reads and
            columns whose filter is empty, and move the constants of such filters into
            the biases behind (as `purify` does). The next cut then compares what still
            counts, and the rate asked for is that of live weights. For structures that
            remove filters or columns; models whose graph is not known keep them.

    Raises:
        ValueError: An unknown schedule or score, or `every` not above 0.
    """

    penalized: ClassVar[bool] = False
    gradual: ClassVar[bool] = True

    schedule: str | StepSchedule | CalledSchedule = "geometric"
    score: str = "lamp"
    every: float = 0.1
    remove_dead_paths: bool = False

    def __post_init__(self):
        if not isinstance(self.schedule, str | CalledSchedule):
            called = CalledSchedule.is_for(self.schedule)
            made = CalledSchedule if called else StepSchedule.of
            object.__setattr__(self, "schedule", made(self.schedule))
        for name, known in (("schedule", SCHEDULES), ("score", SCORES)):
            value = getattr(self, name)
            if value not in known and not (name == "schedule" and self.steps):
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected one of {known}. "
                    f"Received: {name}={value!r}"
                )
        if not self.every > 0:
            raise ValueError(
                f"Argument `every` must be above 0. Received: every={self.every!r}"
            )

    @property
    def steps(self) -> StepSchedule | CalledSchedule | None:
        """The schedule, where it counts steps."""
        return None if isinstance(self.schedule, str) else self.schedule

    @property
    def final_rate(self) -> float | None:
        return self.steps and self.steps.final_rate

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if isinstance(self.schedule, CalledSchedule):
            config["schedule"] = {"called": repr(self.schedule.schedule)}
        return config

    def rate_at(self, progress: float, rate: float, start: float = 1.0) -> float:
        """Dense / kept weights after a share `progress` of the phase.

        Args:
            progress: Share of the phase, 0 to 1.
            rate: Dense / kept weights at the end.
            start: Dense / kept weights at the beginning.

        Example:

        >>> GradualMagnitude().rate_at(0.5, 16)
        4.0
        """
        if start >= rate:
            return rate
        if self.schedule == "geometric":
            return start * (rate / start) ** progress
        removed, last = 1 - 1 / start, 1 - 1 / rate
        return 1 / (1 - last - (removed - last) * (1 - progress) ** 3)
