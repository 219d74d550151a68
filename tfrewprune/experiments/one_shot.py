# SPDX-License-Identifier: Apache-2.0
"""The pretrained MLPerf Tiny ResNet-8 on CIFAR-10, pruned without training.

``Block(16, 1)``; the rate counts the convolutions but the first. Seeds are draws of
the 256 unlabelled calibration images from the training part.

- ``one-shot-Rx``: :func:`tfrewprune.prune_one_shot`, filters where they are;
- ``arranged-Rx``: the same with like filters side by side first, which is the default;
- ``magnitude-Rx``: the smallest groups by LAMP score are set to zero;
- ``refitted-Rx``: the same groups, and what is left refitted (``hard_prune`` with
  ``data``);
- ``START-Rx-Nepochs``: N epochs of masked retraining from one-shot, from magnitude, or
  (``rates``) from magnitude at the rates that one-shot gives the layers, with the same
  images (random crops and flips), optimizer and learning rates; ``-slow`` from a
  quarter of that learning rate on, which a start that is near its end may prefer.
  Of the two the better one on validation images counts, for each start.

Run ``python -m tfrewprune.experiments.one_shot``; ``--quick`` for a trial of a minute.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from tfrewprune.experiments import datasets, precision, training
from tfrewprune.experiments.experiment import Experiment
from tfrewprune.experiments.resnet8 import pretrained
from tfrewprune.experiments.tables import Summary

RATES = (1.33, 1.6, 2, 3)
#: Retrainings, by rate.
EPOCHS = {4: (0, 5, 20, 60), 2: (5, 20)}
#: Test accuracy to reach without training, by rate.
GOALS = {1.33: 0.856, 1.6: 0.834, 2: 0.797}

METHODS = (
    "pretrained",
    *(f"{how}-{rate}x" for rate in RATES for how in ("one-shot", "magnitude")),
    *(f"arranged-{rate}x" for rate in (1.6, 2, 4)),
    "refitted-2x",
    *(
        f"{how}-{rate}x-{epochs}epochs{pace}"
        for pace in ("", "-slow")
        for rate, lengths in EPOCHS.items()
        for epochs in lengths
        for how in ("one-shot", "rates", "magnitude")
        if epochs or (how != "rates" and not pace)
    ),
)
_NAME = re.compile(
    r"(one-shot|arranged|rates|magnitude|refitted)-([\d.]+)x(?:-(\d+)epochs)?(-slow)?"
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hyper-parameters of an experiment, the same for every seed.

    Attributes:
        inputs: Calibration images.
        learning_rate: Adam's rate at the start of a retraining, falling to 0 as a
            cosine.
        slow: Its share for a slow one.
        images: How many training images are used; None for all.
        evaluation_images: How many validation and test images; None for all.
        most_epochs: Longer retrainings are cut to this length; None for none.
        seconds: Length of a timing.
    """

    inputs: int = 256
    learning_rate: float = 2e-3
    slow: float = 0.25
    images: int | None = None
    evaluation_images: int | None = None
    most_epochs: int | None = None
    seconds: float = 1.0


QUICK = Plan(inputs=64, images=640, evaluation_images=500, most_epochs=1, seconds=0.1)


def recipe(model, rate: float):
    """Returns the recipe of all methods: every convolution but the first, by name."""
    import tfrewprune

    names = [layer.name for layer in model.layers if hasattr(layer, "kernel_size")]
    rule = tfrewprune.Rule(names[1:], structure=tfrewprune.Block(16, 1))
    return tfrewprune.Recipe(rule, rate=rate, method="magnitude")


def calibration(data: datasets.ImageData, count: int, seed: int) -> np.ndarray:
    """Returns ``count`` training images, drawn by ``seed``."""
    order = np.random.default_rng(seed).permutation(len(data.x_train))
    return data.x_train[order[:count]]


class OneShot(Experiment):
    """The experiment; see the module."""

    name = "one_shot"
    title = "MLPerf Tiny ResNet-8 on CIFAR-10, pruned without training"
    methods = METHODS
    full_plan = Plan()
    quick_plan = QUICK

    def load_data(self) -> datasets.ImageData:
        return datasets.cifar10()

    def train(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> tuple[Any, dict]:
        import keras

        import tfrewprune

        keras.utils.set_random_seed(seed)
        model = pretrained()
        if method == "pretrained":
            return model, {}
        start, rate, epochs, slow = _NAME.fullmatch(method).groups()
        chosen = recipe(model, float(rate))
        inputs = calibration(data, self.plan.inputs, seed)
        details: dict[str, Any] = {}
        if start in ("one-shot", "arranged", "rates"):
            chosen = chosen.replace(arrange=start == "arranged")
            result = tfrewprune.prune_one_shot(model, inputs, recipe=chosen)
            if start != "rates":
                model = result.model
            else:
                tfrewprune.hard_prune(model, result.rates)
                model = tfrewprune.strip(model)
            details = {
                "losses": result.losses,
                "output_error": result.output_error,
                "pruning_seconds": result.seconds,
            }
        else:
            refit = inputs if start == "refitted" else None
            tfrewprune.hard_prune(model, chosen, data=refit)
            model = tfrewprune.strip(model)
        length = int(epochs or 0)
        if self.plan.most_epochs is not None:
            length = min(length, self.plan.most_epochs)
        if length:
            learning_rate = self.plan.learning_rate * (self.plan.slow if slow else 1)
            model = self._retrained(model, chosen, length, learning_rate, seed, data)
        return model, details

    def _retrained(
        self, model, chosen, epochs: int, learning_rate: float, seed: int, data
    ):
        import tfrewprune

        model = precision.for_training(model)
        tfrewprune.mask_zeros(model, chosen)
        steps = training.step_count(data, epochs)
        training.compile_for(model, learning_rate, steps, from_logits=False)
        fit = training.crop_arguments(data, seed, margin=4, flips=True)
        tfrewprune.masked_retrain(model, chosen, epochs=epochs, **fit)
        return precision.for_deployment(tfrewprune.strip(model))

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        found = []
        for rate, wanted in GOALS.items():
            ours = summary.get(f"one-shot-{rate}x", {}).get("test_accuracy")
            if ours is not None:
                goal = f"{rate}x without training: test accuracy >= {wanted:.1%}"
                found.append((f"{goal} ({ours:.2%})", ours >= wanted))
        retrainings = [(rate, n) for rate, lengths in EPOCHS.items() for n in lengths]
        for rate, epochs in retrainings:
            starts = [
                _better(summary, f"{how}-{rate}x-{epochs}epochs")
                for how in ("one-shot", "magnitude")
            ]
            if None not in starts:
                goal = (
                    f"{rate}x, {epochs} epochs: one-shot start ({starts[0]:.2%}) "
                    f"above magnitude start ({starts[1]:.2%})"
                )
                found.append((goal, starts[0] > starts[1]))
        return found


def _better(summary: Summary, method: str) -> float | None:
    """Test accuracy by the learning rate that is better on validation images."""
    rows = [summary.get(name, {}) for name in (method, f"{method}-slow")]
    rows = [row for row in rows if "test_accuracy" in row]
    if not rows:
        return None
    return max(rows, key=lambda row: row["validation_accuracy"])["test_accuracy"]


if __name__ == "__main__":
    OneShot.main()
