# SPDX-License-Identifier: Apache-2.0
"""MLPerf Tiny's visual-wake-words MobileNet, pruned without training.

Its own images are not at hand. Half of the images here are those of CIFAR-10, three
times as large, where the dense model hardly ever finds a person; half are squares of
100 to 224 pixels cut out of the one photograph of a person that there is, at random
places and mirrored at random, where it finds one in a third, with all probabilities
from 0.03 to 0.9. The "accuracy" is the share of test images for which the pruned model
decides as the dense one does. 87 % of the pointwise weights are below 1e-6 as the model
comes: 1.5x and 2x take nothing that does anything. Seeds are draws of the 256
calibration images.

- ``one-shot-Rx``, ``magnitude-Rx``: the pointwise convolutions in ``Block(16, 1)``,
  filters where they are;
- ``arranged-Rx``: one-shot with like filters side by side first, which is the default;
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

RATES = (1.5, 2, 8, 16)
LATENCIES = (80, 65)
METHODS = (
    "pretrained",
    *(
        f"{how}-{rate}x"
        for rate in RATES
        for how in ("one-shot", "arranged", "magnitude")
    ),
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


def cut_out(photograph: np.ndarray, count: int, random: np.random.Generator):
    """Returns squares of a photograph as images of 96 x 96, (count, 96, 96, 3).

    Args:
        photograph: (height, width, 3), at least 100 each.
        count: How many.
        random: Gives sizes, places and which are mirrored.
    """
    pixels, images = np.arange(96), []
    for _ in range(count):
        size = int(random.integers(100, min(photograph.shape[:2]) + 1))
        top, left = (
            int(random.integers(0, extent - size + 1))
            for extent in photograph.shape[:2]
        )
        places = (pixels + 0.5) * size / 96
        rows, columns = top + places.astype(int), left + places.astype(int)
        if random.random() < 0.5:
            columns = columns[::-1]
        images.append(photograph[np.ix_(rows, columns)])
    return np.stack(images)


class OneShotVWW(Experiment):
    """The experiment; see the module."""

    name = "one_shot_vww"
    title = "MLPerf Tiny visual wake words, pruned without training (% like dense)"
    methods = METHODS
    full_plan = Plan()
    quick_plan = Plan(64, 200, 100, 0.1)

    def load_data(self) -> datasets.ImageData:
        plan, model = self.plan, pretrained()
        sizes = (plan.images, plan.evaluation_images, plan.evaluation_images)
        halves = [(size + 1) // 2 for size in sizes]
        few = datasets.cifar10().head(*halves)
        photograph, random = datasets.photograph(), np.random.default_rng(0)
        parts = {}
        for name, size in zip(("train", "validation", "test"), sizes, strict=True):
            small = getattr(few, f"x_{name}")
            large = small.repeat(3, axis=1).repeat(3, axis=2)
            squares = cut_out(photograph, size - len(large), random)
            images = np.concatenate([large, squares]).astype(np.float32) / 255
            images = images[random.permutation(size)]
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
            chosen = chosen.replace(arrange=how == "arranged")
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
                for how in ("arranged", "magnitude")
            )
            if ours is not None and other is not None:
                goal = (
                    f"{rate}x: decides like dense ({ours:.1%}), magnitude {other:.1%}"
                )
                found.append((goal, ours > other or ours == other == 1))
        return found


if __name__ == "__main__":
    OneShotVWW.main()
