# SPDX-License-Identifier: Apache-2.0
"""Masks that tighten while the model trains."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import keras
import numpy as np

from tfrewprune.methods import Magnitude
from tfrewprune.pipeline.clock import PhaseClock
from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.attachment import set_masks
from tfrewprune.wrappers.moments import inner_optimizer, second_moment
from tfrewprune.wrappers.selection import Kernels, select_groups, weight_cost
from tfrewprune.wrappers.shown import hide_masks, show_masks
from tfrewprune.wrappers.targets import Target, resolve


class GradualPrune(PhaseClock):
    """Tightens the masks along a `GradualMagnitude` schedule while the model trains.

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
        super().__init__(recipe.method.every)
        self.recipe = recipe
        self._start: dict[tuple, float] = {}
        self._shared_start = 1.0
        self._step: int | None = None  # of the phase; None before its first epoch

    def on_train_begin(self, logs=None):
        self._due = self.every
        self._step = None
        show_masks(self.model)
        chosen = [t for t in resolve(self.model, self.recipe) if t.reason is None]
        alive = {t.path_key: _alive(t) for t in chosen}
        self._start = {t.path_key: t.shape.weights / alive[t.path_key] for t in chosen}
        shared = [target for target in chosen if target.rule.rate is None]
        dense = sum(weight_cost(t, self.recipe) * t.shape.weights for t in shared)
        kept = sum(weight_cost(t, self.recipe) * alive[t.path_key] for t in shared)
        self._shared_start = dense / kept if shared else 1.0

    def on_train_end(self, logs=None):
        hide_masks(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if self._step is None:
            self._step = epoch * ((self.params or {}).get("steps") or 0)

    def on_train_batch_begin(self, batch, logs=None):
        steps = self.recipe.method.steps
        if steps is not None and steps.due(self._step):
            self._tell(self._epoch)

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        if self.recipe.method.steps is None:
            super().on_train_batch_end(batch, logs)

    def tick(self, progress: float) -> None:
        method, step = self.recipe.method, self._step

        def ease(rate: float | None, start: float) -> float | None:
            if rate is None or method.steps is None:
                return rate and method.rate_at(progress, rate, start)
            return 1 / (1 - method.steps.sparsity_at(step))

        targets = [
            dataclasses.replace(
                target,
                rule=dataclasses.replace(
                    target.rule,
                    rate=ease(target.rule.rate, self._start[target.path_key]),
                ),
            )
            for target in resolve(self.model, self.recipe)
            if target.reason is None
        ]
        rate = ease(self.recipe.rate, self._shared_start)
        if all((target.rule.rate or rate) == 1 for target in targets):
            return
        # Without the method, whose schedule allows no rate but its last.
        recipe = self.recipe.replace(rate=rate, start_rate=1, method=Magnitude())
        scored = {target.path_key: target.kernel() for target in targets}
        comparable = method.score != "lamp"
        if method.score == "fisher":
            costs = removal_costs(self.model, targets, scored)
            scored, comparable = costs or scored, costs is not None
        masks = select_groups(targets, scored, recipe, defaultdict(list), comparable)
        set_masks(self.model, targets, masks)


def _alive(target: Target) -> int:
    """Weights of groups that are not zero, at least 1."""
    survivors = target.structure.surviving_groups(target.kernel())
    return max(1, target.structure.kept(survivors, target.shape))


def removal_costs(
    model: keras.Model, targets: list[Target], kernels: Kernels
) -> Kernels | None:
    """|w| sqrt(v) of kernels; None where the optimizer has no second moment v.

    Their squares, w^2 v, estimate what removing a weight does to the loss, and so can
    be compared across layers.
    """
    costs, optimizer = {}, inner_optimizer(model)
    for target in targets:
        if second_moment(optimizer, target.variable) is None:
            return None
        moment = target.gather(lambda variable: second_moment(optimizer, variable))
        root = np.sqrt(np.maximum(moment, 1e-30)).astype(np.float32)
        costs[target.path_key] = np.abs(kernels[target.path_key]) * root
    return costs
