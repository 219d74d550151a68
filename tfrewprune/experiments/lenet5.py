# SPDX-License-Identifier: Apache-2.0
"""LeNet-5 on MNIST: every method on every structure at equal budgets.

The network is the one of the pruning papers: convolutions 20 and 50 of 5 x 5, fully
connected 500 and 10, 430,500 weights without biases. The table is :data:`ROWS`. All
runs of a seed start from the same dense model and have the same number of epochs, Adam,
and a learning rate that is constant while weights go and falls to 0 along a cosine
afterwards. Short rows have the same images, shifted by up to two pixels. Long rows are
shifted by one: at 230x the network can no longer learn more (with filters and columns,
8 + 16 epochs, two pixels leave 97.9 % of the validation images, one 98.4 %). Each
method chooses the rates of the layers by itself; none inherits another's.

What a run does: a first cut by magnitude, training under the method, the last cut,
removal of the paths that are dead, training of the rest under its mask. Short rows are
there to compare methods; they begin with the filters and neurons of largest norm alone,
:data:`UNITS`, physically, which makes all that follows several times cheaper. Long rows
are there to see how far one gets: they begin with the whole network, cut to
``first_cut``; taught ones follow the dense model's outputs as well as the labels. The
rate is that of LeNet-5 to what is left at the end; a row's own rate is what the method
was asked for.

Choices were made on the last 5,000 training images. The test set is read only by the
stage ``measure``. Run ``python -m tfrewprune.experiments.lenet5``; ``--quick`` for a
trial of a minute.
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

from tfrewprune.experiments import datasets, precision, training
from tfrewprune.experiments.experiment import Experiment, count_weights
from tfrewprune.experiments.rows import Row
from tfrewprune.experiments.tables import Summary

LAYERS = ("conv1", "conv2", "fc1", "fc2")
WEIGHTS = 430_500

UNITS = {"conv1": 12, "conv2": 28, "fc1": 128}
"""What the first cut of a short row leaves of 20, 50 and 500: 6.6x fewer weights."""

ROWS = (
    Row("single-weights", "gradual-fisher", 348, "long"),
    Row("single-weights", "reweighted-proximal", 348, "long"),
    Row("filters-and-columns", "gradual-fisher-paths", 232, "long"),
    Row("filters-and-columns", "reweighted", 180, "long"),
    Row("filters-and-columns", "reweighted", 180, "long", taught=True),
    Row("block-16x1", "gradual-fisher", 58, "long"),
    *(
        Row("single-weights", method, 330)
        for method in (
            "reweighted",
            "reweighted-proximal",
            "gradual-fisher",
            "gradual",
            "admm",
            "group-lasso",
            "one-shot",
            "primal-proximal",
            "tfmot",
        )
    ),
    *(
        Row(structure, method, rate)
        for structure, rate in (
            ("filters-and-columns", 190),
            ("block-16x1", 58),
            ("block-rows-and-columns", 58),
            ("pattern-and-connectivity", 58),
        )
        for method in ("reweighted", "gradual-fisher", "admm", "group-lasso")
    ),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hyper-parameters of an experiment, the same for every row and seed.

    Attributes:
        dense_epochs: Training of the shared dense model from scratch.
        epochs: (under the method, under the mask) of the rows of each length.
        first_cut: Rate of the first cut of long rows, by structure.
        shifts: Pixels that images are shifted by at most, by length.
        learning_rate: Adam's rate.
        images: How many training images are used; None for all.
        evaluation_images: How many validation and test images; None for all.
        seconds: Length of a timing.
    """

    dense_epochs: int = 10
    epochs: dict[str, tuple[int, int]] = dataclasses.field(
        default_factory=lambda: {"short": (8, 16), "long": (20, 40)}
    )
    first_cut: dict[str, float] = dataclasses.field(
        default_factory=lambda: {
            "single-weights": 10,
            "filters-and-columns": 4,
            "block-16x1": 8,
        }
    )
    shifts: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"short": 2, "long": 1}
    )
    learning_rate: float = 1e-3
    images: int | None = None
    evaluation_images: int | None = None
    seconds: float = 1.0


QUICK = Plan(
    dense_epochs=1,
    epochs={"short": (1, 1), "long": (1, 1)},
    images=2560,
    evaluation_images=500,
    seconds=0.2,
)


def lenet5(units: tuple[int, int, int] = (20, 50, 500)):
    """Returns an untrained LeNet-5 for 28 x 28 x 1 images; its outputs are logits.

    Args:
        units: Filters of the convolutions and neurons of the hidden layer.
    """
    import keras
    from keras import layers

    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(units[0], 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(units[1], 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(units[2], activation="relu", name="fc1"),
            layers.Dense(10, name="fc2"),
        ],
        name="lenet5",
    )


def of_weights(weights):
    """Returns a LeNet-5 of the width that ``weights`` have."""
    model = lenet5(tuple(len(bias) for bias in weights[1:6:2]))
    model.set_weights(weights)
    return model


def narrowed(model):
    """Returns a model with the :data:`UNITS` filters and neurons of largest norm."""
    import tfrewprune

    rates = {
        name: {
            "structure": tfrewprune.Filter(),
            "rate": model.get_layer(name).kernel.shape[-1] / units,
        }
        for name, units in UNITS.items()
    }
    whole = of_weights(model.get_weights())
    tfrewprune.hard_prune(whole, tfrewprune.Recipe(rates, method="Magnitude"))
    return tfrewprune.shrink(whole).model


class LeNet5(Experiment):
    """The experiment; see the module."""

    name = "lenet5"
    title = "LeNet-5 on MNIST"
    rows = ROWS
    methods = ("dense", *(row.name for row in rows))
    full_plan = Plan()
    quick_plan = QUICK

    def load_data(self) -> datasets.ImageData:
        return datasets.mnist()

    def train(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> tuple[Any, dict]:
        if method == "dense":
            model = self.start(seed, data)
            return model, {"epochs": [self.plan.dense_epochs]}
        (row,) = (row for row in self.rows if row.name == method)
        return self.pruned(row, seed, data)

    def pruned(self, row: Row, seed: int, data: datasets.ImageData) -> tuple[Any, dict]:
        """Returns the plain pruned model of a row and details for the record."""
        model = self.start(seed, data)
        epochs, start_rate = self.plan.epochs[row.length], 1.0
        if row.length == "short":
            model = narrowed(model)
        else:
            start_rate = self.plan.first_cut[row.structure]
        rate = row.rate * count_weights(model)["weights"] / WEIGHTS
        details = {**row.to_dict(), "epochs": epochs, "weights": WEIGHTS}
        if row.method == "tfmot":
            model = self._tfmot(row, seed, model, rate, sum(epochs))
        else:
            chosen = row.recipe(LAYERS, rate, *epochs).replace(start_rate=start_rate)
            details["recipe"] = chosen.get_config()
            model = self._prune(row, chosen, seed, model, data, details)
        return model, {**details, "rate": WEIGHTS / count_weights(model)["kept"]}

    def _prune(self, row: Row, chosen, seed: int, model, data, details: dict):
        """Trains, cuts, removes dead paths, trains what is left."""
        import tfrewprune

        fit = self._fit(seed, data, row.length)
        teacher = precision.for_training(self.start(seed, data)) if row.taught else None
        learn = (self.plan.learning_rate, fit, True, teacher)
        model = precision.for_training(model)
        training.train_and_cut(model, chosen, *learn)
        model = precision.for_deployment(tfrewprune.strip(model))
        scores = training.accuracy(model, data.x_validation, data.y_validation)
        details["validation_accuracy_after_cut"] = scores
        # Bands of 16 filters would no longer be bands with filters gone between them.
        smaller = tfrewprune.shrink(model, keep_shapes="block" in row.structure)
        model = precision.for_training(smaller.model)
        zeros_stay = tfrewprune.Recipe(
            tfrewprune.Rule(LAYERS, structure=tfrewprune.Unstructured()),
            method="Magnitude",
            threshold=1e-9,
            retrain_epochs=chosen.retrain_epochs,
        )
        tfrewprune.hard_prune(model, zeros_stay)
        model = training.retrain(model, zeros_stay, data, *learn)
        return precision.for_deployment(model)

    def _fit(
        self, seed: int, data: datasets.ImageData, length: str = "short"
    ) -> dict[str, Any]:
        return training.crop_arguments(data, 1000 + seed, self.plan.shifts[length])

    def start(self, seed: int, data: datasets.ImageData):
        """Returns the dense model all methods of ``seed`` start from.

        Trained on first use, then read from the work folder.
        """
        plan = self.plan

        def make():
            model = precision.for_training(lenet5())
            steps = training.step_count(data, plan.dense_epochs)
            training.compile_for(model, plan.learning_rate, steps)
            model.fit(epochs=plan.dense_epochs, **self._fit(seed, data))
            return precision.for_deployment(model)

        return self.kept("start", seed, make)

    def _tfmot(self, row: Row, seed: int, model, rate: float, epochs: int):
        """Runs tfmot in a process of its own, from the same start.

        It knows no budget: it gets the rates that a ranking of all weights by LAMP
        gives the dense model.
        """
        import tfrewprune

        names = [f"{name}/{part}" for name in LAYERS for part in ("kernel", "bias")]
        weights = dict(zip(names, model.get_weights(), strict=True))
        source, output = self.path("start", seed, ".npz"), self.path(row.name, seed, "")
        np.savez(source, **weights)
        magnitude = dataclasses.replace(row, method="one-shot")
        tfrewprune.hard_prune(model, magnitude.recipe(LAYERS, rate, 0, 0))
        counts = count_weights(tfrewprune.strip(model))["kept_in_layer"]
        rates = {name: weights[f"{name}/kernel"].size / counts[name] for name in LAYERS}
        command = [
            *(sys.executable, "-m", "tfrewprune.experiments.tfmot_baseline"),
            *(os.fspath(source), os.fspath(output)),
            *("--rates", json.dumps(rates)),
            *("--epochs", str(epochs)),
            *("--learning-rate", str(self.plan.learning_rate)),
            *("--seed", str(1000 + seed)),
            *("--threads", str(self.threads)),
        ]
        if self.plan.images:
            command += ["--train-images", str(self.plan.images)]
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
        subprocess.run(command, check=True, env=environment)
        with np.load(self.path(row.name, seed, ".npz")) as arrays:
            found = of_weights([arrays[name] for name in names])
        return tfrewprune.shrink(found, keep_shapes=True).model

    def export(self, method: str, seed: int, model) -> Path:
        if method.startswith("tfmot"):  # The very file that a user of tfmot has.
            return self.path(method, seed, ".tflite")
        return super().export(method, seed, model)

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        wanted = (
            ("single-weights", 348, 0.990),
            ("filters-and-columns", 232, 0.987),
            ("block-16x1", 60, 0.990),
        )
        found = []
        for structure, rate, accuracy in wanted:
            rows = [
                summary.get(row.name, {}) for row in ROWS if row.structure == structure
            ]
            rows = [row for row in rows if "test_accuracy" in row]
            if rows:
                goal = f"{structure}: rate >= {rate}x, test accuracy >= {accuracy:.1%}"
                reached = any(
                    row["rate"] >= rate and row["test_accuracy"] >= accuracy
                    for row in rows
                )
                found.append((goal, reached))
        return found


if __name__ == "__main__":
    LeNet5.main()
