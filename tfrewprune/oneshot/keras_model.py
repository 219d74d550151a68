# SPDX-License-Identifier: Apache-2.0
"""A Keras model and a recipe as layers to prune without training."""

from __future__ import annotations

import math

import keras
import numpy as np

from tfrewprune.calibration.keras_network import KerasNetwork
from tfrewprune.oneshot.constraints import LayerCost
from tfrewprune.oneshot.pruning import Job
from tfrewprune.oneshot.source import Source
from tfrewprune.payload.cost import LayerShape
from tfrewprune.pipeline.summary import layer_row, model_rate
from tfrewprune.recipe import Recipe
from tfrewprune.rows import LayerRow
from tfrewprune.wrappers.kernels import macs_per_weight
from tfrewprune.wrappers.targets import Target, resolve


class KerasSource(Source):
    """A built Keras model; it is changed in place.

    Args:
        model: The model.
        recipe: Which layers, structures and rates.
        data: Checked calibration inputs.
    """

    def __init__(self, model: keras.Model, recipe: Recipe, data: list[np.ndarray]):
        self.model = model
        self._targets = resolve(model, recipe)
        self.network = KerasNetwork(model, self._targets, data)
        self._dense = self.network.state()
        targets = {t.path_key: t for t in self._targets if t.spec is not None}
        sites = {site.key: site for site in self.network.sites}
        self.jobs = []
        self.idle = [
            _cost(target) for key, target in targets.items() if key not in sites
        ]
        for key, site in sites.items():
            target = targets[key]
            pruned = target.reason is None
            if target.rule is not None and target.rule.skip:
                self.idle.append(_cost(target))
                continue
            self.jobs.append(
                Job(
                    site,
                    _cost(target),
                    target.structure if pruned else None,
                    target.rule.rate if pruned else None,
                    recipe.minimum_groups,
                )
            )
        kernels = sum(math.prod(t.variable.shape) for t in targets.values())
        total = sum(math.prod(variable.shape) for variable in model.weights)
        self.other_weights = total - kernels
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


def _cost(target: Target) -> LayerCost:
    shape = target.shape
    structure = target.structure
    size = None
    try:
        pixels = macs_per_weight(target.layer, target.spec)
        size = LayerShape(shape.outputs, shape.columns, pixels, shape.positions)
    except ValueError:  # its input has no fixed size
        pass
    alike = structure.rows_alike(shape) if structure is not None else 1
    return LayerCost(size, shape.weights, alike)
