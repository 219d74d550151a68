# SPDX-License-Identifier: Apache-2.0
"""A Keras model and a recipe as layers to prune without training."""

from __future__ import annotations

import keras
import numpy as np

from tfrewprune.calibration.keras_network import KerasNetwork
from tfrewprune.oneshot.pruning import Job
from tfrewprune.oneshot.source import Source, nothing_to_prune
from tfrewprune.pipeline.summary import layer_row, model_rate
from tfrewprune.recipe import Recipe
from tfrewprune.rows import NO_MATRIX, LayerRow
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.resources import layer_cost, other_weights
from tfrewprune.wrappers.targets import Target


class KerasSource(Source):
    """A built Keras model; it is changed in place.

    Args:
        model: The model.
        recipe: Which layers, structures and rates.
        data: Checked calibration inputs.

    Raises:
        ValueError: A rule matches no layer, or nothing is left to prune.
    """

    def __init__(self, model: keras.Model, recipe: Recipe, data: list[np.ndarray]):
        self.model = model
        self._targets = resolve(model, recipe)
        self.network = KerasNetwork(model, self._targets, data)
        self._dense = self.network.state()
        targets = {t.path_key: t for t in self._targets if t.spec is not None}
        sites = {site.key: site for site in self.network.sites}
        self.jobs = []
        idle = [t for t in self._targets if t.spec is None or t.path_key not in sites]
        costs = [layer_cost(target) for target in idle]
        self.idle = [cost for cost in costs if cost is not None]
        for key, site in sites.items():
            target = targets[key]
            pruned = target.reason is None
            cost = layer_cost(target)
            if target.rule is not None and target.rule.skip:
                self.idle.append(cost)
                continue
            self.jobs.append(
                Job(
                    site,
                    cost,
                    target.structure if pruned else None,
                    target.rule.rate if pruned else None,
                    recipe.minimum_groups,
                )
            )
        if all(job.structure is None for job in self.jobs):
            dense = [row for row in self.rows() if row.reason != NO_MATRIX]
            raise nothing_to_prune({row.layer: row.reason for row in dense})
        self.other_weights = other_weights(self._targets)
        self.other_bytes = 4 * self.other_weights

    def adapt_normalizations(self, data: list[np.ndarray]) -> int:
        return self.network.adapt_normalizations(self._dense, data)

    def result(self) -> keras.Model:
        return self.model

    def rows(self) -> list[LayerRow]:
        notes = {job.site.key: "; ".join(job.notes) or None for job in self.jobs}
        rows = []
        for target in self._targets:
            key = target.path_key if target.spec is not None else None
            reason = self.network.reasons.get(key)
            if target.reason is None and reason is not None:
                target = Target(
                    target.path, target.layer, target.spec, target.rule, reason
                )
            rows.append(layer_row(target, notes.get(key)))
        return rows

    def rate(self, rows: list[LayerRow]) -> float:
        return model_rate(self.model, rows)
