# SPDX-License-Identifier: Apache-2.0
"""Sparsity over training steps, as tfmot's pruning schedules give it."""

from __future__ import annotations

import dataclasses
from typing import Any

_CONSTANT = ("target_sparsity", "begin_step", "end_step", "frequency")
_KNOWN = ("PolynomialDecay", "ConstantSparsity")
_AFTER_ALL = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class StepSchedule:
    """Sparsity from `initial_sparsity` to `final_sparsity` between two steps.

    At a share p of the way final + (initial - final) (1 - p)^power of the weights are
    gone (Zhu and Gupta, arXiv 1710.01878, equation 1, with power 3).

    Args:
        initial_sparsity: Share of zeros at `begin_step`.
        final_sparsity: Share of zeros from `end_step` on.
        begin_step: Step of the first cut; steps count from 0 in each phase.
        end_step: Step of the last cut; -1 goes on cutting, where both sparsities agree.
        power: Exponent.
        frequency: Steps between two cuts.

    Raises:
        ValueError: Impossible numbers.

    Example:

    >>> StepSchedule(0.0, 0.75, 0, 100).sparsity_at(50)
    0.65625
    """

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int
    power: float = 3
    frequency: int = 100

    def __post_init__(self):
        endless = self.end_step == -1 and self.initial_sparsity == self.final_sparsity
        if not (
            0 <= self.initial_sparsity < 1
            and 0 < self.final_sparsity < 1
            and self.frequency >= 1
            and self.begin_step >= 0
            and (endless or self.end_step >= self.begin_step)
        ):
            raise ValueError(
                "A schedule needs sparsities of at least 0 and below 1, one above 0 at "
                "the end, steps in order and a frequency of at least 1. Received: "
                f"{self}"
            )

    @classmethod
    def of(cls, schedule: Any) -> StepSchedule:
        """The schedule that a tfmot `PruningSchedule`, or its config, describes.

        Knows `PolynomialDecay` and `ConstantSparsity` by their entries; tfmot need not
        be installed.

        Raises:
            ValueError: It is none, or of another kind.
        """
        if isinstance(schedule, cls):
            return schedule
        config = schedule
        if not isinstance(config, dict) and hasattr(config, "get_config"):
            config = config.get_config()
        if isinstance(config, dict):
            config = dict(config.get("config", config))
            if set(config) <= set(_CONSTANT) and "target_sparsity" in config:
                config["initial_sparsity"] = config["final_sparsity"] = config.pop(
                    "target_sparsity"
                )
                config.setdefault("end_step", -1)
            try:
                return cls(**config)
            except TypeError:
                pass
        raise ValueError(
            "Expected a tfmot PolynomialDecay or ConstantSparsity, its config, or what "
            f"answers a step by (should_prune, sparsity). Received: {schedule!r}"
        )

    @property
    def final_rate(self) -> float:
        """Dense / kept weights at the end."""
        return 1 / (1 - self.final_sparsity)

    @property
    def last_step(self) -> int:
        """Step from which on the final sparsity is reached."""
        return max(self.begin_step, self.end_step)

    def due(self, step: int) -> bool:
        """Whether the step is one that cuts."""
        inside = step >= self.begin_step and (
            self.end_step < 0 or step <= self.end_step
        )
        return inside and (step - self.begin_step) % self.frequency == 0

    def sparsity_at(self, step: int) -> float:
        """Share of zeros that a cut at this step makes."""
        span = self.end_step - self.begin_step
        share = min(1.0, max(0.0, (step - self.begin_step) / span)) if span > 0 else 1.0
        left = (self.initial_sparsity - self.final_sparsity) * (1 - share) ** self.power
        return self.final_sparsity + left


@dataclasses.dataclass(frozen=True)
class CalledSchedule:
    """A schedule of the user's, asked as tfmot asks: `(should_prune, sparsity)`.

    Args:
        schedule: What is called with a step, which counts from 0 in each phase; its
            `begin_step` and `end_step`, if it has them, say when it is through.

    Raises:
        ValueError: It answers otherwise, or ends at an impossible sparsity.
    """

    schedule: Any

    def __post_init__(self):
        if not self.final_rate > 1:
            raise ValueError(
                "A schedule needs a sparsity above 0 at the end. Received: "
                f"{self.schedule!r}, which ends at {self.sparsity_at(self._end)}"
            )

    @staticmethod
    def is_for(schedule: Any) -> bool:
        """Whether a schedule answers by a call of its own, and not as tfmot's do."""
        kinds = type(schedule).__mro__
        calling = next((kind for kind in kinds if "__call__" in vars(kind)), None)
        return calling is not None and calling.__name__ not in _KNOWN

    @property
    def final_rate(self) -> float:
        """Dense / kept weights at the end."""
        return 1 / (1 - self.sparsity_at(self._end))

    @property
    def last_step(self) -> int:
        """Step from which on the final sparsity is reached, as far as it is known."""
        names = ("begin_step", "end_step")
        return max(0, *(int(getattr(self.schedule, name, 0)) for name in names))

    def due(self, step: int) -> bool:
        """Whether the step is one that cuts."""
        return self._answer(step)[0]

    def sparsity_at(self, step: int) -> float:
        """Share of zeros that a cut at this step makes."""
        return self._answer(step)[1]

    @property
    def _end(self) -> int:
        end = int(getattr(self.schedule, "end_step", -1))
        return end if end >= 0 else _AFTER_ALL

    def _answer(self, step: int) -> tuple[bool, float]:
        answer = self.schedule(step)
        try:
            due, sparsity = answer
            due, sparsity = bool(due), float(sparsity)
        except (TypeError, ValueError):
            due, sparsity = False, -1.0
        if not 0 <= sparsity < 1:
            raise ValueError(
                "A schedule must answer a step by (should_prune, sparsity), with a "
                f"sparsity of at least 0 and below 1. Received: {answer!r} of "
                f"{self.schedule!r} at step {step}"
            )
        return due, sparsity
