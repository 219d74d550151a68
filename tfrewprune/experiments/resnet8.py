# SPDX-License-Identifier: Apache-2.0
"""The pretrained MLPerf Tiny ResNet-8 on CIFAR-10, pruned by several methods.

The table is :data:`ROWS`; the rate counts all kernels, the first convolution and the
classifier, which stay dense, included. All runs start from the pretrained weights and
have the same images (random crops and flips), epochs and optimizer; the learning rate
is constant while weights go and falls to 0 along a cosine afterwards. ``dense`` is
trained on like the others without penalty and mask: the control. Before blocks go, like
filters come side by side, as in `compress`. Taught rows follow the pretrained model as
well as the labels, which costs them a third more time.

``pretrained`` is the model as it came. It was trained by its authors on all 50,000
training images, so its accuracy on our 5,000 validation images, the last training
ones, is higher than on the test images; they still rank hyper-parameters. The test set
is read only by the last stage, ``measure``.

Run ``python -m tfrewprune.experiments.resnet8``; ``--quick`` for a trial of a minute.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrewprune.experiments import datasets, precision, training
from tfrewprune.experiments.experiment import Experiment, count_weights
from tfrewprune.experiments.rows import Row
from tfrewprune.experiments.tables import Summary

ROWS = (
    *(
        Row(structure, method, rate)
        for rate, structures in (
            (4.0, ("block-16x1", "single-weights", "pattern-and-connectivity")),
            (2.0, ("block-16x1",)),
        )
        for structure in structures
        for method in (
            "gradual-fisher",
            "reweighted",
            "admm",
            "group-lasso",
            "one-shot",
        )
    ),
    Row("block-8x1", "gradual-fisher", 4.0),
    Row("block-4x1", "gradual-fisher", 4.0),
    *(Row("block-16x1", "gradual-fisher", rate, taught=True) for rate in (4.0, 2.0)),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hyper-parameters of an experiment, the same for every row and seed.

    Attributes:
        epochs: (under the method, under the mask).
        learning_rate: Adam's rate.
        images: How many training images are used; None for all.
        evaluation_images: How many validation and test images; None for all.
        seconds: Length of a timing.
    """

    epochs: tuple[int, int] = (20, 40)
    learning_rate: float = 2e-3
    images: int | None = None
    evaluation_images: int | None = None
    seconds: float = 3.0


QUICK = Plan(epochs=(1, 1), images=1280, evaluation_images=500, seconds=0.2)


def pretrained():
    """Returns the pretrained model; its outputs are probabilities.

    Raises:
        FileNotFoundError: it is not there.
    """
    import keras

    path = datasets.model_path("mlperf_tiny/pretrainedResnet.h5")
    return keras.models.load_model(path, compile=False)


def recipe(row: Row, plan: Plan, model):
    """Returns the :class:`tfrewprune.Recipe` of a row.

    The first convolution and the classifier stay dense; the rate of the others makes up
    for them, so that the row's holds over all kernels together.
    """
    sizes = count_weights(model)["kept_in_layer"]
    first, *middle, last = sizes
    total, dense = sum(sizes.values()), sizes[first] + sizes[last]
    return row.recipe(
        middle, (total - dense) / (total / row.rate - dense), *plan.epochs
    )


class ResNet8(Experiment):
    """The experiment; see the module."""

    name = "resnet8"
    title = "MLPerf Tiny ResNet-8 on CIFAR-10"
    rows = ROWS
    start_name = "pretrained"
    methods = (start_name, "dense", *(row.name for row in rows))
    full_plan = Plan()
    quick_plan = QUICK

    def load_data(self) -> datasets.ImageData:
        return datasets.cifar10()

    def train(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> tuple[Any, dict]:
        import keras

        import tfrewprune

        model, plan = self.start(seed, data), self.plan
        if method == self.start_name:
            return model, {}
        keras.utils.set_random_seed(seed)
        model = precision.for_training(model)
        fit = self.fit_arguments(seed, data)
        learn = (plan.learning_rate, fit, False)
        details: dict[str, Any] = {"epochs": plan.epochs}
        if method == "dense":
            epochs = sum(plan.epochs)
            steps = training.step_count(data, epochs)
            training.compile_for(model, plan.learning_rate, steps, from_logits=False)
            model.fit(epochs=epochs, **fit)
            return precision.for_deployment(model), details
        (row,) = (row for row in self.rows if row.name == method)
        chosen = recipe(row, plan, model)
        tfrewprune.arrange(model, chosen)
        if row.taught:
            learn += (precision.for_training(self.start(seed, data)),)
        training.train_and_cut(model, chosen, *learn)
        cut = training.accuracy(model, data.x_validation, data.y_validation)
        model = training.retrain(model, chosen, data, *learn)
        return precision.for_deployment(model), {
            **details,
            **row.to_dict(),
            "recipe": chosen.get_config(),
            "validation_accuracy_after_cut": cut,
        }

    def start(self, seed: int, data: datasets.ImageData):
        """Returns the dense model that all runs of a seed start from."""
        return pretrained()

    def fit_arguments(self, seed: int, data: datasets.ImageData) -> dict[str, Any]:
        """Keyword arguments of ``fit`` that all phases of all methods share."""
        return training.crop_arguments(data, seed, margin=4, flips=True)

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        start = summary.get("pretrained", {})
        found = []
        for row in ROWS:
            ours = summary.get(row.name, {})
            if "test_accuracy" not in start or "test_accuracy" not in ours:
                continue
            lost, allowed = start["test_accuracy"] - ours["test_accuracy"], 0.01
            if row.rate < 4:
                allowed = 0.003
            goal = (
                f"{row.name}: at most {100 * allowed:g} points of test accuracy lost"
                f" against the pretrained model (lost {100 * lost:.2f})"
            )
            found.append((goal, bool(ours["rate"] >= row.rate and lost <= allowed)))
        return found


if __name__ == "__main__":
    ResNet8.main()
