# SPDX-License-Identifier: Apache-2.0
"""Masks that tighten while the model trains."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import keras
import numpy as np

from tfrewprune.caller import warn_caller
from tfrewprune.pipeline.clock import PhaseClock
from tfrewprune.pipeline.dead_paths import mask_dead_paths
from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.attachment import set_masks
from tfrewprune.wrappers.budget import Budget
from tfrewprune.wrappers.moments import inner_optimizer
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.selection import Kernels, select_groups
from tfrewprune.wrappers.shown import hide_masks, show_masks
from tfrewprune.wrappers.targets import Target


class GradualPrune(PhaseClock):
    """Tightens the masks along a `GradualMagnitude` schedule while the model trains.

    Args:
        recipe: Method, rates and budget.

    Raises:
        ValueError: The recipe's method is not gradual.

    Warns:
        UserWarning: The phase has ended before the method's schedule of steps.
    """

    def __init__(self, recipe: Recipe):
        if not recipe.method.gradual:
            raise ValueError(
                "GradualPrune: expected a recipe with a gradual method, such as "
                "Recipe(rate=8, method=GradualMagnitude()). Received: "
                f"method={recipe.method!r}"
            )
        super().__init__(recipe.method.every)
        self.recipe = recipe
        self._start: dict[tuple, float] = {}
        self._dense = self._shared_start = 1.0
        self._asked: int | None = None  # the schedule, of the steps before this one
        self._cut = 0  # the last step that the schedule cuts at

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._due = self.every
        self._asked = None
        show_masks(self.model)
        targets = resolve(self.model, self.recipe)
        chosen = [target for target in targets if target.reason is None]
        alive = {target.path_key: _alive(target) for target in chosen}
        self._start = {t.path_key: t.shape.weights / alive[t.path_key] for t in chosen}
        budget = Budget.of(targets, self.recipe)
        self._dense = self._shared_start = 1.0
        if budget.targets:
            self._dense = max(1.0, budget.dense_excess)
            self._shared_start = self._dense / max(budget.excess(alive), 1e-6)

    def on_train_end(self, logs=None):
        hide_masks(self.model)
        schedule, steps = self.recipe.method.steps, self._steps
        if schedule is not None and steps < schedule.last_step:
            warn_caller(
                f"The phase ended after {steps} steps, its schedule ends at step "
                f"{schedule.last_step}: what is missing is cut at once. Train for more "
                "epochs, or give the schedule an earlier end.",
            )

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if self._asked is None:
            self._asked = self._steps

    def on_train_batch_begin(self, batch, logs=None):
        if self.recipe.method.steps is not None:
            self._cut_where_due()

    def on_train_batch_end(self, batch, logs=None):
        if self.recipe.method.steps is None:
            super().on_train_batch_end(batch, logs)
        else:
            self._count(batch)

    def on_epoch_end(self, epoch, logs=None):
        if self.recipe.method.steps is None:
            super().on_epoch_end(epoch, logs)
        elif self._is_last(epoch):
            self._cut_where_due()

    def _cut_where_due(self) -> None:
        """Cuts as the last step has it that was due since this was asked before."""
        asked = range(self._asked, self._steps + 1)
        self._asked = asked.stop
        due = [step for step in asked if self.recipe.method.steps.due(step)]
        if due:
            self._cut = due[-1]
            self._tell(self._epoch)

    def tick(self, progress: float) -> None:
        method = self.recipe.method

        def ease(rate: float, start: float) -> float:
            if method.steps is None:
                return method.rate_at(progress, rate, start)
            return 1 / (1 - method.steps.sparsity_at(self._cut))

        targets = []
        for target in resolve(self.model, self.recipe):
            if target.reason is None and target.rule.rate is not None:
                rate = ease(target.rule.rate, self._start[target.path_key])
                rule = dataclasses.replace(target.rule, rate=rate)
                target = dataclasses.replace(target, rule=rule)
            targets.append(target)
        allowed = self._dense / ease(self._dense, self._shared_start)
        chosen = [target for target in targets if target.reason is None]
        scored = {target.path_key: target.kernel() for target in chosen}
        comparable = method.score != "lamp"
        if method.score == "fisher":
            costs = removal_costs(self.model, chosen, scored)
            scored, comparable = costs or scored, costs is not None
        notes = defaultdict(list)
        masks = select_groups(targets, scored, self.recipe, notes, comparable, allowed)
        set_masks(self.model, chosen, masks)
        if method.remove_dead_paths:
            mask_dead_paths(self.model, chosen)


def _alive(target: Target) -> int:
    """Weights of groups that are not zero, at least 1."""
    survivors = target.structure.surviving_groups(target.kernel())
    return max(1, target.kept(survivors))


def removal_costs(
    model: keras.Model, targets: list[Target], kernels: Kernels
) -> Kernels | None:
    """|w| sqrt(v) of kernels; None where the optimizer has no second moment v.

    Their squares, w^2 v, estimate what removing a weight does to the loss, and so can
    be compared across layers.
    """
    costs, optimizer = {}, inner_optimizer(model)
    for target in targets:
        moment = target.squared_gradient(optimizer)
        if moment is None:
            return None
        root = np.sqrt(np.maximum(moment, 1e-30)).astype(np.float32)
        costs[target.path_key] = np.abs(kernels[target.path_key]) * root
    return costs
