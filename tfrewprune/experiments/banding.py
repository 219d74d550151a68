# SPDX-License-Identifier: Apache-2.0
"""Are bands of like filters worth it after retraining? `tfrewprune.arrange`.

A network of two hidden layers names the phone of a frame of speech from eleven
frames around it. Its hidden layers are pruned to 1/16 in blocks of 16 neighbours, as
they are (`near`) and put side by side because they are alike, by each method: one cut
by magnitude, masks that tighten, a reweighted penalty. All start from the same dense
model of a seed and train for the same number of epochs with the same batches; no figure
is tuned for one of them.

The utterances of `ru_phones.npz` that it marks are the test set, every tenth of the
others validates. Every 48th frame is used, as neighbours are
nearly the same and two cores are few.

Run ``python -m tfrewprune.experiments.banding``; ``--quick`` for a trial of a minute.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from tfrewprune.experiments import datasets, training
from tfrewprune.experiments.experiment import Experiment
from tfrewprune.experiments.tables import Summary

RATE = 16.0
CONTEXT = 5  # frames before and after
WIDTH = 512
ENGINES = ("magnitude", "gradual", "reweighted")
METHODS = ("dense", *(f"{e}-{bands}" for e in ENGINES for bands in ("near", "alike")))


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hyper-parameters, the same for every method and seed.

    Attributes:
        dense_epochs: Length of the training that all methods start from.
        prune_epochs: Length of the phase in which masks tighten or a penalty acts.
        retrain_epochs: Length of the phase under the mask. Magnitude, which has no
            phase before, gets both.
        learning_rate: Adam's rate at the start of a phase, falling to 0 as a cosine.
        images: How many training frames are used; None for all.
        evaluation_images: How many validation and test frames; None for all.
    """

    dense_epochs: int = 6
    prune_epochs: int = 3
    retrain_epochs: int = 5
    learning_rate: float = 1e-3
    images: int | None = None
    evaluation_images: int | None = None


QUICK = Plan(
    dense_epochs=1,
    prune_epochs=1,
    retrain_epochs=1,
    images=2560,
    evaluation_images=500,
)


def phone_frames(
    path: str | os.PathLike[str] | None = None, every: int = 48
) -> datasets.ImageData:
    """Loads frames of speech with their context: (n, 11 x 40) standardised bands.

    Args:
        path: By default ``data_path("ru_phones.npz")``.
        every: One frame in so many is taken.

    Raises:
        FileNotFoundError: the file is not there.
    """
    with np.load(path or datasets.data_path("ru_phones.npz")) as archive:
        codes = np.cumsum(archive["features_delta"], axis=0, dtype=np.uint8)
        labels, offsets = archive["labels"], archive["offsets"]
        is_test = archive["is_test"].astype(bool)
    parts: dict[str, list] = {"train": [], "validation": [], "test": []}
    untested = 0
    for number, test in enumerate(is_test):
        part = "test"
        if not test:
            untested += 1
            part = "validation" if untested % 10 == 0 else "train"
        parts[part].append((int(offsets[number]), int(offsets[number + 1])))
    bands = codes.astype(np.float32)
    known = np.concatenate([bands[a:b] for a, b in parts["train"]])
    bands = (bands - known.mean(axis=0)) / known.std(axis=0)

    def frames(pieces: list) -> tuple[np.ndarray, np.ndarray]:
        x, y = [], []
        for start, stop in pieces:
            padded = np.pad(bands[start:stop], ((CONTEXT, CONTEXT), (0, 0)), "edge")
            span = 2 * CONTEXT + 1
            windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=0)
            x.append(windows[::every].transpose(0, 2, 1).reshape(-1, span * 40))
            y.append(labels[start:stop:every])
        return np.concatenate(x), np.concatenate(y).astype(np.int64)

    (x, y), (xv, yv), (xt, yt) = (frames(parts[part]) for part in parts)
    return datasets.ImageData(x, y, xv, yv, xt, yt)


def network():
    """Returns the untrained network; its outputs are logits."""
    import keras
    from keras import layers

    hidden = [
        layers.Dense(WIDTH, activation="relu", name=f"hidden{number}")
        for number in (1, 2)
    ]
    first = layers.Input(((2 * CONTEXT + 1) * 40,))
    return keras.Sequential([first, *hidden, layers.Dense(51, name="phones")])


def recipe(method: str, plan: Plan):
    """Returns the :class:`tfrewprune.Recipe` of a method other than ``dense``.

    Raises:
        ValueError: ``method`` is unknown.
    """
    import tfrewprune
    from tfrewprune.methods import GradualMagnitude, Magnitude, Reweighted

    engines = {
        "magnitude": Magnitude(),
        "gradual": GradualMagnitude(),
        "reweighted": Reweighted(),
    }
    if method not in METHODS[1:]:
        raise ValueError(f"Expected one of {METHODS[1:]}, got {method!r}.")
    engine = engines[method.split("-")[0]]
    both = plan.prune_epochs + plan.retrain_epochs
    return tfrewprune.Recipe(
        tfrewprune.Rule("hidden*", structure=tfrewprune.Block(16, 1)),
        method=engine,
        rate=RATE,
        reweighted_epochs=plan.prune_epochs,
        retrain_epochs=plan.retrain_epochs if engine.trains else both,
    )


class Banding(Experiment):
    """The experiment; see the module."""

    name = "banding"
    title = "Bands of neighbours and of like filters: phones, 16x, Block(16, 1)"
    methods = METHODS
    full_plan = Plan()
    quick_plan = QUICK

    def load_data(self) -> datasets.ImageData:
        return phone_frames()

    def network(self):
        """Returns the untrained network; layers named ``hidden*`` are pruned."""
        return network()

    def fit_arguments(self, data: datasets.ImageData) -> dict[str, Any]:
        """Keyword arguments of ``fit`` that all phases share."""
        return training.fit_arguments(data)

    def train(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> tuple[Any, dict]:
        import keras

        plan = self.plan

        def make():
            model = self.network()
            steps = training.step_count(data, plan.dense_epochs)
            training.compile_for(model, plan.learning_rate, steps)
            model.fit(epochs=plan.dense_epochs, **self.fit_arguments(data))
            return model

        model = self.kept("dense", seed, make)
        keras.utils.set_random_seed(1000 + seed)  # the same batches for every method
        if method == "dense":
            return model, {}
        import tfrewprune

        chosen = recipe(method, plan)
        fit = self.fit_arguments(data)
        if method.endswith("-alike"):
            tfrewprune.arrange(model, chosen)
        if chosen.method.trains:
            steps = training.step_count(data, chosen.reweighted_epochs)
            training.compile_for(model, plan.learning_rate, steps)
            tfrewprune.reweighted_train(model, chosen, **fit)
        tfrewprune.hard_prune(model, chosen)
        cut = training.accuracy(model, data.x_validation, data.y_validation)
        steps = training.step_count(data, chosen.retrain_epochs)
        training.compile_for(model, plan.learning_rate, steps)
        tfrewprune.masked_retrain(model, chosen, **fit)
        details = {"recipe": chosen.get_config(), "validation_accuracy_after_cut": cut}
        return tfrewprune.strip(model), details

    def _measure(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> dict[str, Any]:
        import keras

        # No timing: both kinds of bands run in the same kernel over as many weights.
        path = self.path(method, seed, ".keras")
        model = keras.models.load_model(path, compile=False)
        return {"test_accuracy": training.accuracy(model, data.x_test, data.y_test)}

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        return [
            (
                f"{engine}: bands of like filters are better by more than the spread",
                summary[alike]["test_accuracy"] - summary[near]["test_accuracy"]
                > max(summary[name]["test_accuracy_spread"] for name in (alike, near)),
            )
            for engine in ENGINES
            for alike, near in [(f"{engine}-alike", f"{engine}-near")]
            if all("test_accuracy" in summary.get(n, {}) for n in (alike, near))
        ]


if __name__ == "__main__":
    Banding.main()
