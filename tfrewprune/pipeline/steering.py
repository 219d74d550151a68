# SPDX-License-Identifier: Apache-2.0
"""Callbacks that lead training to the rate asked for: strength and masks over time."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections import defaultdict

import keras
import numpy as np
from keras import ops

from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.attachment import set_masks
from tfrewprune.wrappers.selection import Kernels, select_groups, weight_cost
from tfrewprune.wrappers.targets import Target, resolve

#: Bounds of a controlled penalty's largest pull on a weight. The upper one is a hundred
#: times the gradient of a usual task; more would only blow up what is left.
WEAKEST, STRONGEST = 1e-9, 1.0

#: Steps between two looks where the length of an epoch is unknown.
STEPS = 43


class PhaseClock(keras.callbacks.Callback, abc.ABC):
    """Calls `tick(progress)` every few steps of a phase, 0 <= progress <= 1.

    Args:
        every: Epochs between two ticks; at least one step.
    """

    def __init__(self, every: float = 0.1):
        super().__init__()
        self.every = every
        self._epoch = 0
        self._due = 0.0

    @abc.abstractmethod
    def tick(self, progress: float) -> None:
        """Looks at the model and acts; its weights are up to date."""

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._due < epoch:  # a run goes on that ticked before it was cut short
            self._due = epoch + self.every - 1e-9

    def on_train_batch_end(self, batch, logs=None):
        steps = (self.params or {}).get("steps")
        position = self._epoch + ((batch + 1) / steps if steps else 0)
        due = position >= self._due if steps else (batch + 1) % STEPS == 0
        if due:
            self._due = position + self.every - 1e-9
            self._tell(position)

    def on_epoch_end(self, epoch, logs=None):
        params = self.params or {}
        last = epoch + 1 >= (params.get("epochs") or 1)
        if last or not params.get("steps"):
            self._tell(epoch + 1)

    def _tell(self, position: float) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        epochs = (self.params or {}).get("epochs") or 1
        self.tick(min(1.0, position / max(1, epochs)))


@dataclasses.dataclass
class _Goal:
    """Kernels that share a penalty strength, and what shall be left of them."""

    targets: list[Target]
    costs: list[float]
    rate: float
    at_start: float = 1.0
    before: float = math.inf

    def left(self, step: float) -> tuple[float, float]:
        """(weights of groups that are not emptied yet, all weights), as they cost.

        Args:
            step: Learning rate: emptied weights jump about zero by as much in Adam.
        """
        left = total = 0.0
        for target, cost in zip(self.targets, self.costs, strict=True):
            structure, shape = target.structure, target.shape
            kernel = target.kernel()
            threshold = max(target.penalty.method.negligible, 2 * step)
            survivors = structure.above(structure.rms(kernel, shape), shape, threshold)
            left += structure.kept(survivors, shape) * cost
            total += shape.weights * cost
        return left, total


class StrengthControl(PhaseClock):
    """Has the penalty's strength follow the rate, so that nobody needs to tune it.

    Weights are counted as left while the rms of their group is above the method's
    `negligible` and above twice the learning rate. Their number shall fall
    geometrically from what it is at the start to 1 / rate of all weights at the end:
    where more are left the strength grows, where fewer are left it shrinks, by a factor
    of at most 2 a look, and by 15 % more where nothing has moved since the last look.
    Where it starts does not matter, and `hard_prune` then removes what is nearly empty
    already.

    Kernels with a rate of their own are controlled one by one, those under a budget
    together.

    Adds `strength` to the logs: the geometric mean over the kernels.

    Args:
        recipe: Rates and budget; kernels with a strength of their own are left alone.
        every: Epochs between two looks.

    Raises:
        ValueError: The recipe leaves no strength open; at the start of `fit`, a kernel
            carries no penalty.
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

    def on_train_begin(self, logs=None):
        self._due = 0.0
        shared = _Goal([], [], self.recipe.rate or 1.0)
        self._goals = []
        for target in resolve(self.model, self.recipe):
            if target.reason is not None or not self.recipe.is_controlled(target.rule):
                continue
            if target.penalty is None:
                raise ValueError(
                    f"StrengthControl: layer {target.path!r} carries no penalty. Call "
                    "attach(model, recipe) before fit."
                )
            if target.rule.rate is not None:
                self._goals.append(_Goal([target], [1.0], target.rule.rate))
                continue
            shared.targets.append(target)
            shared.costs.append(weight_cost(target, self.recipe))
        self._goals += [shared] if shared.targets else []
        for goal in self._goals:
            left, total = goal.left(self._step())
            goal.at_start, goal.before = total / max(left, 1.0), math.inf

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if epoch:  # where weights were restored, no look has been taken at them yet
            for goal in self._goals:
                goal.before, _ = goal.left(self._step())

    def tick(self, progress: float) -> None:
        step = self._step()
        for goal in self._goals:
            left, total = goal.left(step)
            fallen = (max(goal.rate, goal.at_start) / goal.at_start) ** progress
            wanted = total / (goal.at_start * fallen)
            factor = math.exp(np.clip(math.log(max(left, 1.0) / wanted), -0.7, 0.7))
            if left > wanted and left >= 0.97 * goal.before:
                factor *= 1.15
            goal.before = left
            for target in goal.targets:
                if len(goal.targets) == 1:
                    target.penalty.keep = wanted / goal.costs[0]
                unit = target.penalty.method.largest_pull
                pull = target.penalty.strength * factor * unit
                target.penalty.strength = min(max(pull, WEAKEST), STRONGEST) / unit

    def _step(self) -> float:
        return float(ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        strengths = [t.penalty.strength for goal in self._goals for t in goal.targets]
        if logs is not None and strengths:
            logs["strength"] = float(np.exp(np.mean(np.log(strengths))))


class GradualPrune(PhaseClock):
    """Tightens the masks along a `GradualMagnitude` schedule while the model trains.

    The schedule begins at the rate of the masks in place: a model that `hard_prune` has
    cut to 10x goes on from there.

    Args:
        recipe: Method, rates and budget.

    Raises:
        ValueError: The recipe's method is not gradual.
    """

    def __init__(self, recipe: Recipe):
        if not recipe.method.gradual:
            raise ValueError(
                "GradualPrune: expected a recipe with a gradual method, such as "
                "Recipe(rate=8, method=GradualMagnitude()). Received: "
                f"method={recipe.method!r}"
            )
        jax = keras.backend.backend() == "jax"
        super().__init__(max(1.0, recipe.method.every) if jax else recipe.method.every)
        self.recipe = recipe

    def on_train_begin(self, logs=None):
        self._due = self.every
        targets = self._targets()
        shared = [target for target in targets if target.rule.rate is None]
        self._start = _rate_now(shared, self.recipe)
        self._own_start = {t.path_key: _rate_now([t], self.recipe) for t in targets}

    def tick(self, progress: float) -> None:
        def ease(rate: float | None, start: float) -> float | None:
            if rate is None:
                return None
            return self.recipe.method.rate_at(progress, rate, start)

        targets = [
            dataclasses.replace(
                target,
                rule=dataclasses.replace(
                    target.rule,
                    rate=ease(target.rule.rate, self._own_start[target.path_key]),
                ),
            )
            for target in self._targets()
        ]
        recipe = self.recipe.replace(rate=ease(self.recipe.rate, self._start))
        kernels = {target.path_key: target.kernel() for target in targets}
        costs = None
        if recipe.method.score == "fisher":
            costs = removal_costs(self.model, targets, kernels)
        scored = kernels if costs is None else costs
        masks = select_groups(
            targets, scored, recipe, defaultdict(list), comparable=costs is not None
        )
        set_masks(self.model, targets, masks)

    def _targets(self) -> list[Target]:
        return [t for t in resolve(self.model, self.recipe) if t.reason is None]


def _rate_now(targets: list[Target], recipe: Recipe) -> float:
    """All weights / those that masks in place keep, as they cost."""
    left = total = 0.0
    for target in targets:
        cost = weight_cost(target, recipe)
        mask = target.mask
        kept = target.shape.weights
        if mask is not None and mask.groups is not None:
            kept = mask.structure.kept(mask.groups, target.shape)
        left += kept * cost
        total += target.shape.weights * cost
    return total / max(left, 1.0)


def removal_costs(
    model: keras.Model, targets: list[Target], kernels: Kernels
) -> Kernels | None:
    """|w| sqrt(v) of kernels; None where the optimizer has no second moment v.

    Their squares, w^2 v, estimate what removing a weight does to the loss, and so can
    be compared across layers.
    """
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    moments = getattr(optimizer, "_velocities", None)  # Adam and its relatives
    if not moments:
        return None
    costs = {}
    for target in targets:
        moment = moments[optimizer._get_variable_index(target.variable)]
        moment = target.spec.layout.to_kernel(ops.convert_to_numpy(moment))
        root = np.sqrt(np.maximum(moment, 1e-30)).astype(np.float32)
        costs[target.path_key] = np.abs(kernels[target.path_key]) * root
    return costs


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
