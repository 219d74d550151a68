# SPDX-License-Identifier: Apache-2.0
"""MLPerf Tiny's visual-wake-words MobileNet, pruned without training.

Its own images are not at hand. Calibration and test images are those of CIFAR-10,
three times as large; the "accuracy" is the share of test images for which the pruned
model decides as the dense one does. It says little: the dense model finds a person in
2 of 1,000 of these images. And 87 % of its pointwise weights are below 1e-6 as it
comes: rates such as these take nothing that does anything. Seeds are draws of the 256
calibration images.

- ``one-shot-Rx``, ``magnitude-Rx``: the pointwise convolutions in ``Block(16, 1)``;
- ``latency-P%``: rates by a limit on the predicted latency, in parts of the dense one.

Run ``python -m tfrewprune.experiments.one_shot_vww``; ``--quick`` for a trial.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfrewprune.experiments import datasets
from tfrewprune.experiments.experiment import Experiment
from tfrewprune.experiments.one_shot import calibration
from tfrewprune.experiments.tables import Summary

RATES = (1.5, 2)
LATENCIES = (80, 65)
METHODS = (
    "pretrained",
    *(f"{how}-{rate}x" for rate in RATES for how in ("one-shot", "magnitude")),
    *(f"latency-{percent}%" for percent in LATENCIES),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings of the experiment, the same for every seed.

    Attributes:
        inputs: Calibration images.
        images: How many training images there are to draw them from.
        evaluation_images: How many validation and test images.
        seconds: Length of a timing.
    """

    inputs: int = 256
    images: int = 3000
    evaluation_images: int = 1000
    seconds: float = 1.0


def pretrained():
    """Returns the pretrained model.

    Raises:
        FileNotFoundError: it is not there.
    """
    import keras

    path = datasets.model_path("mlperf_tiny/vww_96.keras")
    return keras.models.load_model(path, compile=False)


def recipe(model, rate: float | None):
    """Returns the recipe: pointwise convolutions, by name."""
    import tfrewprune

    names = [
        layer.name
        for layer in model.layers
        if getattr(layer, "kernel_size", None) == (1, 1)
    ]
    rule = tfrewprune.Rule(names, structure=tfrewprune.Block(16, 1))
    if rate is None:
        return tfrewprune.Recipe(rule)
    return tfrewprune.Recipe(rule, rate=rate, method="magnitude")


class OneShotVWW(Experiment):
    """The experiment; see the module."""

    name = "one_shot_vww"
    title = "MLPerf Tiny visual wake words, pruned without training (% like dense)"
    methods = METHODS
    full_plan = Plan()
    quick_plan = Plan(64, 200, 100, 0.1)

    def load_data(self) -> datasets.ImageData:
        plan = self.plan
        few = datasets.cifar10().head(
            plan.images, plan.evaluation_images, plan.evaluation_images
        )
        model = pretrained()

        def large(images: np.ndarray) -> np.ndarray:
            return (images.repeat(3, axis=1).repeat(3, axis=2) / 255).astype("float32")

        parts = {}
        for name in ("train", "validation", "test"):
            images = large(getattr(few, f"x_{name}"))
            parts[f"x_{name}"] = images
            scores = model.predict(images, batch_size=100, verbose=0)
            parts[f"y_{name}"] = scores.argmax(axis=-1)
        return datasets.ImageData(**parts)

    def train(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> tuple[Any, dict]:
        import tfrewprune

        model = pretrained()
        if method == "pretrained":
            shares = np.bincount(data.y_test, minlength=2) / len(data.y_test)
            return model, {"dense_classes": shares.tolist()}
        how, amount = method.split("-")[0], method.rsplit("-", 1)[-1]
        if how == "magnitude":
            chosen = recipe(model, float(amount[:-1]))
            tfrewprune.hard_prune(model, chosen)
            return tfrewprune.strip(model), {}
        inputs = calibration(data, self.plan.inputs, seed)
        if how == "latency":
            result = tfrewprune.prune_one_shot(
                model,
                inputs,
                recipe=recipe(model, None),
                constraints={"latency_ms": amount},
            )
        else:
            chosen = recipe(model, float(amount[:-1]))
            result = tfrewprune.prune_one_shot(model, inputs, recipe=chosen)
        return result.model, {
            "losses": result.losses,
            "output_error": result.output_error,
            "pruning_seconds": result.seconds,
        }

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        found = []
        for rate in RATES:
            ours, other = (
                summary.get(f"{how}-{rate}x", {}).get("test_accuracy")
                for how in ("one-shot", "magnitude")
            )
            if ours is not None and other is not None:
                goal = (
                    f"{rate}x: decides like dense ({ours:.1%}), magnitude {other:.1%}"
                )
                found.append((goal, ours > other))
        return found


if __name__ == "__main__":
    OneShotVWW.main()
