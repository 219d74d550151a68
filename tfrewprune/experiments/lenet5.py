# SPDX-License-Identifier: Apache-2.0
"""LeNet-5 on MNIST: reweighted pruning beside its baselines.

The network is the one of the pruning papers: convolutions 20 and 50 of 5 x 5,
fully connected 500 and 10, 430,500 weights without biases. ``dense`` is that model,
trained from scratch. All other methods of a seed start from it and have the same
data, the same number of further epochs (two phases of ``phase_epochs``) and the same
optimizer and learning rates:

- ``dense-longer``: both phases without penalty or mask, the control;
- ``reweighted-block``: ``Block(16, 1)`` at the block rates;
- ``group-lasso-block``: the same structure and rates, static penalty;
- ``reweighted-unstructured``: single weights at the unstructured rates;
- ``tfmot-unstructured``, ``tfmot-block-rates``: magnitude pruning by tfmot,
  single weights (it has no blocks for convolutions) at each of the two rates.

Hyper-parameters were chosen on the last 5,000 training images. The test set is
read only by the last stage, ``measure``.

Run ``python -m tfrewprune.experiments.lenet5``; ``--quick`` for a trial of a minute.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tfrewprune.experiments import datasets, training
from tfrewprune.experiments.experiment import Experiment
from tfrewprune.experiments.tables import Summary

LAYERS = ("conv1", "conv2", "fc1", "fc2")

UNSTRUCTURED_RATES = {"conv1": 1.6, "conv2": 13, "fc1": 145, "fc2": 5}
"""71.8x together, chosen like the block rates."""

BLOCK_RATES = {"conv1": 1.25, "conv2": 5, "fc1": 60, "fc2": 3.3}
"""31.7x together: about what a reweighted run left of each layer, groups with an rms
above 0.01, judged on the validation images."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hyper-parameters of an experiment, the same for every seed.

    Attributes:
        dense_epochs: Training of the shared dense model from scratch.
        phase_epochs: Length of each of the two phases every method has.
        learning_rate: Adam's rate at the start of a phase, falling to 0 as a cosine.
        reweighted_block: Penalty strength.
        reweighted_unstructured: Penalty strength.
        group_lasso_block: Penalty strength.
        images: How many training images are used; None for all.
        evaluation_images: How many validation and test images; None for all.
        seconds: Length of a timing.
    """

    dense_epochs: int = 12
    phase_epochs: int = 8
    learning_rate: float = 1e-3
    reweighted_block: float = 4e-6
    reweighted_unstructured: float = 5e-6
    group_lasso_block: float = 1.5e-4
    images: int | None = None
    evaluation_images: int | None = None
    seconds: float = 3.0


QUICK = Plan(
    dense_epochs=1, phase_epochs=1, images=2560, evaluation_images=500, seconds=0.2
)
METHODS = (
    "dense",
    "dense-longer",
    "reweighted-block",
    "group-lasso-block",
    "tfmot-block-rates",
    "reweighted-unstructured",
    "tfmot-unstructured",
)


def lenet5():
    """Returns an untrained LeNet-5 for 28 x 28 x 1 images; its outputs are logits."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, activation="relu", name="fc1"),
            layers.Dense(10, name="fc2"),
        ],
        name="lenet5",
    )


def recipe(method: str, plan: Plan):
    """Returns the :class:`tfrewprune.Recipe` of one of our methods.

    Raises:
        ValueError: ``method`` is none of the three.
    """
    import tfrewprune
    from tfrewprune.methods import GroupLasso, Reweighted

    choices = {
        "reweighted-block": (
            tfrewprune.Block(16, 1),
            BLOCK_RATES,
            Reweighted(),
            plan.reweighted_block,
        ),
        "reweighted-unstructured": (
            tfrewprune.Unstructured(),
            UNSTRUCTURED_RATES,
            Reweighted(),
            plan.reweighted_unstructured,
        ),
        "group-lasso-block": (
            tfrewprune.Block(16, 1),
            BLOCK_RATES,
            GroupLasso(),
            plan.group_lasso_block,
        ),
    }
    if method not in choices:
        raise ValueError(f"Expected one of {sorted(choices)}, got {method!r}.")
    structure, rates, engine, strength = choices[method]
    return tfrewprune.Recipe(
        rules=[
            tfrewprune.Rule(name, structure=structure, rate=rate)
            for name, rate in rates.items()
        ],
        method=engine,
        strength=strength,
        reweighted_epochs=plan.phase_epochs,
        retrain_epochs=plan.phase_epochs,
    )


class LeNet5(Experiment):
    """The experiment; see the module."""

    name = "lenet5"
    title = "LeNet-5 on MNIST"
    methods = METHODS
    full_plan = Plan()
    quick_plan = QUICK

    def load_data(self) -> datasets.ImageData:
        return datasets.mnist()

    def train(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> tuple[Any, dict]:
        model, plan = self.start(seed, data), self.plan
        if method == "dense":
            return model, {"epochs": {"dense": plan.dense_epochs}}
        if method.startswith("tfmot-"):
            return self._tfmot(method, seed, model), {"epochs": self._epochs()}
        fit = training.fit_arguments(data)
        if method == "dense-longer":
            for _ in range(2):
                training.compile_for(model, data, plan.phase_epochs, plan.learning_rate)
                model.fit(epochs=plan.phase_epochs, **fit)
            return model, {"epochs": self._epochs()}
        import tfrewprune

        chosen = recipe(method, plan)
        training.compile_for(model, data, plan.phase_epochs, plan.learning_rate)
        result = tfrewprune.compress(model, chosen, **fit)
        return result.model, {
            "epochs": self._epochs(),
            "recipe": chosen.get_config(),
            "scores": result.scores,
        }

    def start(self, seed: int, data: datasets.ImageData):
        """Returns the dense model all methods of ``seed`` start from.

        Trained on first use, then read from the work folder.
        """
        import keras

        path, plan = self.path("start", seed, ".keras"), self.plan
        keras.utils.set_random_seed(seed)
        if path.exists():
            model = keras.models.load_model(path, compile=False)
        else:
            model = lenet5()
            training.compile_for(model, data, plan.dense_epochs, plan.learning_rate)
            model.fit(epochs=plan.dense_epochs, **training.fit_arguments(data))
            model.save(path)
        # From here on the same order of batches for every method.
        keras.utils.set_random_seed(1000 + seed)
        return model

    def _epochs(self) -> dict[str, int]:
        plan = self.plan
        return {
            "dense": plan.dense_epochs,
            "phase 1": plan.phase_epochs,
            "phase 2": plan.phase_epochs,
        }

    def _tfmot(self, method: str, seed: int, model):
        rates = BLOCK_RATES if method == "tfmot-block-rates" else UNSTRUCTURED_RATES
        weights = self.path("start", seed, ".npz")
        np.savez(weights, **layer_weights(model))
        output = self.path(method, seed, "")
        command = [
            *(sys.executable, "-m", "tfrewprune.experiments.tfmot_baseline"),
            *(os.fspath(weights), os.fspath(output)),
            *("--rates", json.dumps(rates)),
            *("--epochs", str(2 * self.plan.phase_epochs)),
            *("--batch-size", str(training.BATCH_SIZE)),
            *("--learning-rate", str(self.plan.learning_rate)),
            *("--seed", str(1000 + seed)),
            *("--threads", str(self.threads)),
        ]
        if self.plan.images:
            command += ["--train-images", str(self.plan.images)]
        subprocess.run(
            command, check=True, env={**os.environ, "TF_USE_LEGACY_KERAS": "1"}
        )
        with np.load(self.path(method, seed, ".npz")) as arrays:
            for name in LAYERS:
                model.get_layer(name).set_weights(
                    [arrays[f"{name}/kernel"], arrays[f"{name}/bias"]]
                )
        return model

    def export(self, method: str, seed: int, model) -> Path:
        if method.startswith("tfmot-"):  # The very file that a user of tfmot has.
            return self.path(method, seed, ".tflite")
        return super().export(method, seed, model)

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        wanted = (
            ("dense", 1, 0.991),
            ("reweighted-unstructured", 70, 0.991),
            ("reweighted-block", 30, 0.990),
        )
        return [
            (
                f"{method}: rate >= {rate}x, test accuracy >= {accuracy:.1%}",
                summary[method]["rate"] >= rate
                and summary[method]["test_accuracy"] >= accuracy,
            )
            for method, rate, accuracy in wanted
            if "test_accuracy" in summary.get(method, {})
        ]


def layer_weights(model) -> dict[str, np.ndarray]:
    """Returns ``{"conv1/kernel": ..., "conv1/bias": ...}`` of a LeNet-5."""
    return {
        f"{name}/{part}": value
        for name in LAYERS
        for part, value in zip(
            ("kernel", "bias"), model.get_layer(name).get_weights(), strict=True
        )
    }


if __name__ == "__main__":
    LeNet5.main()
