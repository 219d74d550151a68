# SPDX-License-Identifier: Apache-2.0
"""Trains the demo's dense baseline and its pruned model, with equal epochs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfrewprune.demo.data import Digits
from tfrewprune.demo.network import BATCH_SIZE, build_network, compile_network
from tfrewprune.pipeline import (
    hard_prune,
    masked_retrain,
    reweighted_train,
    strip,
)
from tfrewprune.recipe import Recipe
from tfrewprune.rows import LayerRow
from tfrewprune.rule import Rule
from tfrewprune.structures import Block
from tfrewprune.wrappers import hooked_kernels

EpochLog = Callable[[str, int, int, Mapping[str, float]], None]
"""Called after an epoch: phase, epoch (from 1), epochs of the phase, Keras' logs."""


@dataclass(frozen=True)
class Plan:
    """Lengths of the phases, and how far to prune.

    Attributes:
        warm_up_epochs: Plain training of the model that will be pruned.
        reweighted_epochs: Training under the penalty.
        retrain_epochs: Training under the mask. The dense baseline gets the sum of
            the three.
        strength: Penalty strength.
        rates: Pruning rates of the multiplications to try, the highest first.
        allowed_loss: The first rate is taken that loses at most this much accuracy
            against the baseline on the validation part, else the last.
    """

    warm_up_epochs: int = 4
    reweighted_epochs: int = 10
    retrain_epochs: int = 8
    strength: float = 3e-5
    rates: tuple[float, ...] = (16, 8, 4)
    allowed_loss: float = 0.01

    @property
    def epochs(self) -> int:
        return self.warm_up_epochs + self.reweighted_epochs + self.retrain_epochs

    def recipe(self, rate: float) -> Recipe:
        """All layers but the first convolution and the classifier, 16x1 blocks.

        The budget counts multiplications of all layers together; how much each layer
        loses is left to the penalty.
        """
        return Recipe(
            rules=(Rule("*", structure=Block(16, 1)),),
            strength=self.strength,
            rate=rate,
            budget="macs",
            reweighted_epochs=self.reweighted_epochs,
            retrain_epochs=self.retrain_epochs,
        )


@dataclass(frozen=True)
class Pruned:
    """The pruned model and how it came about.

    Attributes:
        model: The stripped model.
        rate: The rate that was chosen.
        rows: What was kept in each layer.
        survivors: Layer name to boolean `[bands, columns]`.
        history: Phase name to Keras' history.
        tried: Rate to validation accuracy, in the order tried.
    """

    model: keras.Model
    rate: float
    rows: list[LayerRow]
    survivors: dict[str, np.ndarray]
    history: dict[str, dict[str, list[float]]]
    tried: dict[float, float]


def train_dense(
    data: Digits, plan: Plan, seed: int, log: EpochLog
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains the baseline for as many epochs as the pruned model gets altogether."""
    model = build_network(seed)
    compile_network(model, plan.epochs, len(data.train))
    history = model.fit(
        data.train.images,
        data.train.labels,
        epochs=plan.epochs,
        **_fit_options(data, "dense baseline", plan.epochs, log),
    )
    return model, history.history


def train_pruned(
    data: Digits, plan: Plan, seed: int, baseline: float, log: EpochLog
) -> Pruned:
    """Warm-up, reweighted training, hard pruning, retraining, stripping.

    Args:
        data: The digits; the test part is not touched.
        plan: The phases.
        seed: The baseline's seed, so that both start from the same weights.
        baseline: Validation accuracy of the dense baseline.
        log: Hears of every epoch.
    """
    examples = (data.train.images, data.train.labels)
    model = build_network(seed)
    history = {}
    compile_network(model, plan.warm_up_epochs, len(data.train))
    options = _fit_options(data, "warm-up", plan.warm_up_epochs, log)
    history["warm-up"] = model.fit(
        *examples, epochs=plan.warm_up_epochs, **options
    ).history

    compile_network(model, plan.reweighted_epochs, len(data.train))
    options = _fit_options(data, "reweighted training", plan.reweighted_epochs, log)
    history["reweighted"] = reweighted_train(
        model, plan.recipe(plan.rates[0]), *examples, **options
    ).history

    reweighted = model.get_weights()
    tried: dict[float, float] = {}
    for rate in plan.rates:
        model.set_weights(reweighted)
        recipe = plan.recipe(rate)
        rows = hard_prune(model, recipe)
        compile_network(model, plan.retrain_epochs, len(data.train))
        phase = f"masked retraining, {rate:g}x"
        options = _fit_options(data, phase, plan.retrain_epochs, log)
        history["retrain"] = masked_retrain(model, recipe, *examples, **options).history
        tried[rate] = history["retrain"]["val_accuracy"][-1]
        if tried[rate] >= baseline - plan.allowed_loss:
            break
    survivors = {
        target.path: target.structure.surviving_groups(target.kernel()).T
        for target in hooked_kernels(model)
        if target.structure is not None
    }
    return Pruned(strip(model), rate, rows, survivors, history, tried)


def structure_name(row: LayerRow) -> str:
    """`Block(16, 1)`, or nothing for a layer that stayed dense."""
    return "" if row.structure is None else str(row.structure)


def _fit_options(data: Digits, phase: str, epochs: int, log: EpochLog) -> dict:
    def tell(epoch: int, logs: Mapping[str, float] | None) -> None:
        log(phase, epoch + 1, epochs, logs or {})

    return {
        "batch_size": BATCH_SIZE,
        "validation_data": (data.validation.images, data.validation.labels),
        "verbose": 0,
        "callbacks": [keras.callbacks.LambdaCallback(on_epoch_end=tell)],
    }
