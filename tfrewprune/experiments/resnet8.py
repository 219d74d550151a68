# SPDX-License-Identifier: Apache-2.0
"""The pretrained MLPerf Tiny ResNet-8 on CIFAR-10, pruned to a quarter in blocks.

``Block(16, 1)``; the rate counts all kernels, those left dense included. Three
methods, each from the pretrained weights, with the same images (random crops and
flips), epochs, optimizer and learning rates:

- ``dense``: no penalty and no mask, the control;
- ``reweighted-block``: :func:`tfrewprune.compress`;
- ``magnitude-block``: pruned at once by magnitude, then retrained for all epochs.

``reweighted-block-longer`` goes on where ``reweighted-block`` of the same seed ended:
same masks, more epochs from a new start of the learning rate. It shows what the number
of epochs costs, and is compared with no other method.

``pretrained`` is the model as it came. It was trained by its authors on all
50,000 training images, so its accuracy on our 5,000 validation images, the last
training ones, is higher than on the test images; they still rank hyper-parameters.
The test set is read only by the last stage, ``measure``.

Run ``python -m tfrewprune.experiments.resnet8``; ``--quick`` for a trial of a minute.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tfrewprune.experiments import datasets, precision, training
from tfrewprune.experiments.experiment import Experiment
from tfrewprune.experiments.tables import Summary

RATE = 4.0
LONGER = "reweighted-block-longer"
METHODS = ("pretrained", "dense", "reweighted-block", "magnitude-block", LONGER)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hyper-parameters of an experiment, the same for every seed.

    Attributes:
        penalty_epochs: Length of the phase under the penalty.
        retrain_epochs: Length of the phase under the mask.
        longer_epochs: Epochs under the mask that :data:`LONGER` adds.
        learning_rate: Adam's rate at the start of a phase, falling to 0 as a cosine.
        strength: Penalty strength.
        images: How many training images are used; None for all.
        evaluation_images: How many validation and test images; None for all.
        seconds: Length of a timing.
    """

    penalty_epochs: int = 20
    retrain_epochs: int = 40
    longer_epochs: int = 90
    learning_rate: float = 2e-3
    strength: float = 3e-5
    images: int | None = None
    evaluation_images: int | None = None
    seconds: float = 3.0


QUICK = Plan(
    penalty_epochs=1,
    retrain_epochs=1,
    longer_epochs=1,
    images=1280,
    evaluation_images=500,
    seconds=0.2,
)


def pretrained():
    """Returns the pretrained model; its outputs are probabilities.

    Raises:
        FileNotFoundError: it is not there.
    """
    import keras

    path = datasets.model_path("mlperf_tiny/pretrainedResnet.h5")
    return keras.models.load_model(path, compile=False)


def recipe(method: str, plan: Plan, model):
    """Returns the :class:`tfrewprune.Recipe` of a pruning method.

    The first convolution and the classifier stay dense; the budget of the others
    makes up for them, so that :data:`RATE` holds over all kernels together.

    Raises:
        ValueError: ``method`` is none of the two.
    """
    import tfrewprune
    from tfrewprune.methods import Magnitude, Reweighted

    methods = {"reweighted-block": Reweighted(), "magnitude-block": Magnitude()}
    if method not in methods:
        raise ValueError(f"Expected one of {sorted(methods)}, got {method!r}.")
    sizes = [
        math.prod(layer.kernel.shape)
        for layer in model.layers
        if hasattr(layer, "kernel")
    ]
    total, dense = sum(sizes), sizes[0] + sizes[-1]
    together = plan.penalty_epochs + plan.retrain_epochs
    penalized = method == "reweighted-block"
    return tfrewprune.Recipe(
        rules=[tfrewprune.Rule("*", structure=tfrewprune.Block(16, 1))],
        method=methods[method],
        rate=(total - dense) / (total / RATE - dense),
        strength=plan.strength,
        reweighted_epochs=plan.penalty_epochs,
        retrain_epochs=plan.retrain_epochs if penalized else together,
        skip_first=True,
        skip_last=True,
    )


class ResNet8(Experiment):
    """The experiment; see the module."""

    name = "resnet8"
    title = "MLPerf Tiny ResNet-8 on CIFAR-10"
    methods = METHODS
    full_plan = Plan()
    quick_plan = QUICK

    def load_data(self) -> datasets.ImageData:
        return datasets.cifar10()

    def train(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> tuple[Any, dict]:
        import keras

        if method == LONGER:
            return self._train_longer(seed, data)
        keras.utils.set_random_seed(seed)
        model, plan = pretrained(), self.plan
        if method == "pretrained":
            return model, {}
        model = precision.for_training(model)
        phases = {"phase 1": plan.penalty_epochs, "phase 2": plan.retrain_epochs}
        crops = training.crops_and_flips(data, seed)
        validation = (data.x_validation, data.y_validation)
        fit = {"validation_data": validation, "verbose": 2}
        if method == "dense":
            for epochs in phases.values():
                self._compile(model, data, epochs)
                model.fit(crops, epochs=epochs, **fit)
            return precision.for_deployment(model), {"epochs": phases}
        import tfrewprune

        chosen = recipe(method, plan, model)
        if chosen.method.penalized:
            self._compile(model, data, chosen.reweighted_epochs)
            tfrewprune.reweighted_train(model, chosen, crops, **fit)
        return self._prune_and_retrain(model, chosen, crops, data), {
            "epochs": phases,
            "recipe": chosen.get_config(),
        }

    def _train_longer(self, seed: int, data: datasets.ImageData) -> tuple[Any, dict]:
        import keras

        path = self.path("reweighted-block", seed, ".keras")
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not there: run stage 'train' of reweighted-block, seed"
                f" {seed}, with the same --work folder first."
            )
        model = keras.models.load_model(path, compile=False)
        epochs = self.plan.longer_epochs
        chosen = dataclasses.replace(
            recipe("reweighted-block", self.plan, model), retrain_epochs=epochs
        )
        keras.utils.set_random_seed(100 + seed)  # other crops than before
        model = precision.for_training(model)
        crops = training.crops_and_flips(data, 100 + seed)
        # The zeros score least: it is the same mask again.
        return self._prune_and_retrain(model, chosen, crops, data), {
            "epochs": {"phase 2, longer": epochs},
            "recipe": chosen.get_config(),
        }

    def _prune_and_retrain(self, model, chosen, crops, data: datasets.ImageData):
        import tfrewprune

        tfrewprune.hard_prune(model, chosen)
        self._compile(model, data, chosen.retrain_epochs)
        validation = (data.x_validation, data.y_validation)
        tfrewprune.masked_retrain(
            model, chosen, crops, validation_data=validation, verbose=2
        )
        return precision.for_deployment(tfrewprune.strip(model))

    def _compile(self, model, data: datasets.ImageData, epochs: int) -> None:
        rate = self.plan.learning_rate
        training.compile_for(model, data, epochs, rate, from_logits=False)

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        start = summary.get("pretrained", {})
        found = []
        for method in ("reweighted-block", LONGER):
            ours = summary.get(method, {})
            if "test_accuracy" not in start or "test_accuracy" not in ours:
                continue
            lost = start["test_accuracy"] - ours["test_accuracy"]
            goal = (
                f"{method}: rate >= {RATE}x, at most 2 points of test accuracy lost"
                f" against the pretrained model (lost {100 * lost:.2f})"
            )
            found.append((goal, bool(ours["rate"] >= RATE and lost <= 0.02)))
        return found


if __name__ == "__main__":
    ResNet8.main()
