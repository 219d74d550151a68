# SPDX-License-Identifier: Apache-2.0
"""The penalty's strength follows the rate; which callbacks a method needs."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from tfrewprune.caller import warn_caller
from tfrewprune.pipeline.clock import PhaseClock
from tfrewprune.pipeline.gradual import GradualPrune
from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.moments import (
    gradient_scale,
    inner_optimizer,
    reach,
    step_of_gradient,
)
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.selection import shares
from tfrewprune.wrappers.targets import Target

#: Steps in which a model shows what a stronger penalty does to it. Where looks come
#: faster the strength grows as much less: with 22 steps an epoch and a look every other
#: step it would be at its bound, and all groups empty, before the first group is.
RESPONSE = 16

#: Strengths below hardly move anything: they may grow at full pace.
GENTLE = 1e-5

#: Where the strength begins: how hard the usual group is pulled, in gradients of the
#: loss. From next to nothing, a phase of 220 steps is half over before anything moves
#: (phones of single frames at 16x: 60.1 -> 62.2 % of validation frames).
BEGINNING = 0.3

#: The same where the optimizer does not know gradients, or not yet: too weak to move
#: anything. Those of a recurrent layer's gates are so small that 1e-5 empties all of
#: them in fifty steps.
NEXT_TO_NOTHING = 1e-7

#: Steps, and looks at most, by which the control looks ahead: groups that shrink are
#: taken to go on. Between a penalty that is strong enough and the first group that it
#: empties lie so many that otherwise, where groups are alike, the strength is far too
#: large for all of them by then.
LEAD, FURTHEST = 200, 10

#: Times the weights wanted that are left after a phase which did not work.
FAR = 1.5

#: Bounds of a controlled penalty's largest pull on a weight. Where survivors are spared
#: the groups beside them are pulled away from norms a hundred times the epsilon that
#: the largest pull is stated for: 1 stopped single weights on their last quarter.
WEAKEST, STRONGEST = 1e-9, 10.0


@dataclasses.dataclass
class _Goal:
    """A kernel with a strength of its own, and how many weights it shall keep."""

    target: Target
    weights: float
    at_start: float = 1.0
    before: float = math.inf
    seen: np.ndarray | None = None
    start: np.ndarray | None = None
    size: float = 0.0  # median rms at the start
    step: float = 0.0  # as far do weights move
    travelled: float = 0.0  # at most, by all steps

    def excess(self, optimizer: keras.optimizers.Optimizer, ahead: float = 0) -> float:
        """How many times the weights wanted are in groups that are not emptied `ahead`
        looks later, if all go on as they do."""
        target, method = self.target, self.target.penalty.method
        structure, shape = target.structure, target.shape
        pull = target.penalty.strength * method.pull(0)
        self.step = step = reach(optimizer, target.variable, pull)
        rms = structure.rms(target.kernel(), shape)
        shrunk = 0.0 if self.seen is None else np.minimum(rms - self.seen, 0)
        self.seen = rms
        left = structure.left(rms + ahead * shrunk, shape, method.emptied_below(step))
        return max(target.kept(left) / self.weights, 1e-6)

    def begin(self, optimizer: keras.optimizers.Optimizer, steps: int) -> None:
        """Raises the strength to where it is felt, once gradients are known.

        Args:
            optimizer: What moves the weights.
            steps: How often it has.
        """
        gradient = self._gradient(optimizer, steps) if self.start is not None else 0.0
        if not gradient:
            return
        penalty = self.target.penalty
        felt = BEGINNING * gradient / penalty.method.pull(float(np.median(self.seen)))
        penalty.strength = max(penalty.strength, felt)
        self.start = None

    def _gradient(self, optimizer: keras.optimizers.Optimizer, steps: int) -> float:
        """Root mean square of the loss's gradient in a weight; 0 while unknown."""
        if gradient_scale(optimizer, self.target.variable) is not None:
            scales = self.target.gather(
                lambda weights: ops.broadcast_to(
                    gradient_scale(optimizer, weights), weights.shape
                )
            )
            return math.sqrt(float(np.square(scales).mean()))
        far = step_of_gradient(optimizer)
        moved = float(np.square(self.target.kernel() - self.start).mean())
        return math.sqrt(moved / steps) / far if far and steps else 0.0

    def wanted(self, progress: float) -> float:
        """The same on the way from what it is at the start to 1."""
        return self.at_start / max(1.0, self.at_start) ** progress


class StrengthControl(PhaseClock):
    """Has the penalty's strength follow the rate, so that nobody needs to tune it.

    Weights are counted as left while the rms of their group is above what the method
    calls emptied (`Method.emptied_below`), and will be 200 steps later if it goes on
    shrinking as it does. Their number shall fall
    geometrically from what it is at the start to 1 / rate of all weights at the end:
    where more are left the strength grows, where fewer are left it shrinks, by a factor
    of at most 2 a look, and by 15 % more where nothing has moved since the last look.
    Where looks are less than 16 steps apart it grows as much less, since weights take
    time to follow.
    It starts from a third of the loss's gradients, and `hard_prune` then removes what
    is nearly empty already.

    Each kernel has a strength of its own: those of one budget would not empty alike
    under a common one, since gradients differ from kernel to kernel, in the gates of a
    recurrent layer by orders of magnitude. What a kernel gets of a budget is what
    `hard_prune` would leave it of the weights as they are at the start.

    Args:
        recipe: Rates and budget; kernels with a strength of their own are left alone.
        every: Epochs between two looks.

    Raises:
        ValueError: The recipe leaves no strength open; at the start of `fit`, a kernel
            carries no penalty.

    Warns:
        UserWarning: The optimizer's steps were too short to empty groups.
    """

    def __init__(self, recipe: Recipe, every: float = 0.1):
        if not controls_strength(recipe):
            raise ValueError(
                "StrengthControl: expected a recipe whose method has a penalty, with a "
                "`rate` and without a `strength`, such as Recipe(rate=8). Received: "
                f"rate={recipe.rate}, strength={recipe.strength}, "
                f"method={recipe.method!r}"
            )
        super().__init__(every)
        self.recipe = recipe
        self._goals: list[_Goal] = []
        self._looked, self._progress = 0, 0.0  # steps and progress at the last look

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._due, self._looked, self._progress = 0.0, 0, 0.0
        targets = resolve(self.model, self.recipe)
        led = []
        for target in targets:
            if target.reason is not None or not self.recipe.is_controlled(target.rule):
                continue
            if target.penalty is None:
                raise ValueError(
                    f"StrengthControl: layer {target.path!r} carries no penalty. Call "
                    "attach(model, recipe) before fit."
                )
            led.append(target)
        weights = shares(targets, self.recipe)
        self._goals = [_Goal(target, weights[target.path_key]) for target in led]
        for goal in self._goals:
            goal.at_start = goal.excess(inner_optimizer(self.model))
            goal.size = float(np.median(goal.seen))

    def on_train_end(self, logs=None):
        short = [
            goal
            for goal in self._goals
            if goal.travelled < goal.size and goal.before > FAR * goal.wanted(1)
        ]
        if not short:
            return
        least = min(short, key=lambda goal: goal.travelled / goal.size)
        kind = type(inner_optimizer(self.model)).__name__
        warn_caller(
            f"{len(short)} of {len(self._goals)} kernels could not empty their groups "
            f"in this phase: the steps of {kind} together carry a weight of "
            f"{least.target.label!r} no further than {least.travelled:.2g}, and half "
            f"of its groups have an rms above {least.size:.2g}. Train for more epochs, "
            "with a larger learning rate, or by ReweightedProximal(), which needs no "
            "steps of the optimizer."
        )

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        # What a run that goes on after an interruption does not know counts in none.
        self._looked, self._progress = self._steps, self._progress_at(self._epoch)
        for goal in self._goals:
            if self._epoch:  # weights that were restored have not been looked at yet
                goal.before = goal.excess(inner_optimizer(self.model))
                goal.start = None
                keep = goal.wanted(self._progress) * goal.weights
                goal.target.penalty.keep = keep
                continue
            goal.start = goal.target.kernel()
            penalty = goal.target.penalty
            penalty.strength = min(penalty.strength, NEXT_TO_NOTHING)

    def tick(self, progress: float) -> None:
        steps = self._steps - self._looked
        haste = min(1.0, steps / RESPONSE)
        passed = max(progress - self._progress, 0.0)
        ahead = min(LEAD / max(steps, 1), FURTHEST)
        ahead = min(ahead, (1 - progress) / passed) if passed else 0.0
        self._looked, self._progress = self._steps, progress
        optimizer = inner_optimizer(self.model)
        for goal in self._goals:
            penalty = goal.target.penalty
            excess = goal.excess(optimizer, ahead)
            goal.travelled += steps * goal.step
            wanted = goal.wanted(progress + ahead * passed)
            penalty.keep = wanted * goal.weights
            change = np.clip(math.log(excess / wanted), -0.7, 0.7)
            if excess > wanted and excess >= 0.97 * goal.before:
                change += 0.14
            goal.before = excess
            unit = penalty.method.pull(0)
            pace = 1.0 if change < 0 or penalty.strength < GENTLE else haste
            pull = penalty.strength * math.exp(change * pace) * unit
            penalty.strength = min(max(pull, WEAKEST), STRONGEST) / unit
            goal.begin(optimizer, steps)


def controls_strength(recipe: Recipe) -> bool:
    """Whether a rate decides the penalty strength of some rule."""
    return recipe.method.penalized and any(
        recipe.is_controlled(rule) for rule in recipe.rules if not rule.skip
    )


def phase_callbacks(recipe: Recipe) -> list[keras.callbacks.Callback]:
    """The callbacks that a recipe's method needs beside `Reweight` and the logger."""
    if recipe.method.gradual:
        return [GradualPrune(recipe)]
    return [StrengthControl(recipe)] if controls_strength(recipe) else []
