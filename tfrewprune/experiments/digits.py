# SPDX-License-Identifier: Apache-2.0
"""Spoken digits, the whole product: sound in, digits out, as they are spoken.

Recordings of ``fsdd.npz`` are strung together, with pauses, loudness and noise at
random; a network of two GRU layers is trained on that, pruned by blocks, converted, and
run by :class:`tfrewprune.Streamer` in pieces of 100 ms. The accuracy is the share of
digits that are told once and right while they are spoken or before the next; a second
or a wrong answer, or one in a pause, counts as wrong. All six speakers are in every
part, and no recording in two: takes 0 to 4 are the official test part, 5 to 9 are for
validation.

The rate counts the gate matrices. Run ``python -m tfrewprune.experiments.digits``;
``--quick`` for a trial of a minute.
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import numpy as np

from tfrewprune.experiments import gates, keywords
from tfrewprune.experiments.datasets import data_path
from tfrewprune.experiments.experiment import Experiment
from tfrewprune.experiments.rows import Row
from tfrewprune.experiments.tables import Summary

LAYERS = ("gru_1", "gru_2")
RATE = 10
ROWS = tuple(Row("block-16x1", method, RATE) for method in ("reweighted", "gradual"))
CHUNK = keywords.RATE // 10
"""Samples that the microphone gives at a time."""


@dataclasses.dataclass(frozen=True)
class DigitData:
    """The three parts of the recordings, each strung together.

    Attributes:
        train: Takes from 10 on.
        validation: Takes 5 to 9.
        test: Takes 0 to 4.
    """

    train: keywords.Spoken
    validation: keywords.Spoken
    test: keywords.Spoken


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hyper-parameters of the experiment, the same for every row and seed.

    Attributes:
        units: Width of the GRU layers.
        batch: (pieces a batch, frames a piece, batches an epoch).
        dense_epochs: Training of the shared dense model from scratch.
        epochs: (under the method, under the mask).
        learning_rates: Adam's, of the dense model from scratch and of all that follows.
        images: How many training recordings are used; None for all.
        evaluation_images: How many validation and test recordings; None for all.
        seconds: Length of a timing.
    """

    units: int = 128
    batch: tuple[int, int, int] = (32, 40, 100)
    dense_epochs: int = 16
    epochs: tuple[int, int] = (8, 8)
    learning_rates: tuple[float, float] = (2e-3, 3e-3)
    images: int | None = None
    evaluation_images: int | None = None
    seconds: float = 1.0


QUICK = Plan(
    units=32,
    batch=(8, 40, 10),
    dense_epochs=1,
    epochs=(1, 1),
    images=60,
    evaluation_images=10,
    seconds=0.1,
)


def fsdd(
    path: str | os.PathLike[str] | None = None,
    train: int | None = None,
    evaluation: int | None = None,
) -> DigitData:
    """Loads the spoken digits: 2,400 + 300 + 300 recordings.

    Args:
        path: ``.npz`` file with ``audio``, ``offsets``, ``label``, ``take``; by default
            ``data_path("fsdd.npz")``.
        train: How many recordings of the training part, drawn at random; None for all.
        evaluation: The same of each of the others.

    Raises:
        FileNotFoundError: the file is not there.
    """
    with np.load(path or data_path("fsdd.npz")) as archive:
        audio, offsets = archive["audio"], archive["offsets"]
        label, take = archive["label"].astype(np.int64), archive["take"]

    def part(chosen: np.ndarray, count: int | None, seed: int) -> keywords.Spoken:
        numbers = np.random.default_rng(0).permutation(np.flatnonzero(chosen))[:count]
        recordings = [audio[offsets[i] : offsets[i + 1]] for i in numbers]
        return keywords.string_together(recordings, label[numbers] + 1, seed)

    return DigitData(
        train=part(take >= 10, train, seed=1),
        validation=part((take >= 5) & (take < 10), evaluation, seed=2),
        test=part(take < 5, evaluation, seed=3),
    )


class _Whole:
    """A Keras model where a :class:`tfrewprune.Streamer` is expected."""

    def __init__(self, model: Any):
        self.model = model

    def push(self, frames: np.ndarray) -> np.ndarray:
        return self.model.predict(frames[None], verbose=0)[0]


class Digits(Experiment):
    """The experiment; see the module."""

    name = "digits"
    title = "Spoken digits in a stream, 2 x GRU"
    methods = ("dense", *(row.name for row in ROWS))
    full_plan = Plan()
    quick_plan = QUICK

    def load_data(self) -> DigitData:
        return fsdd(train=self.plan.images, evaluation=self.plan.evaluation_images)

    def data(self) -> DigitData:
        return self.load_data()

    def train(
        self, method: str, seed: int, data: DigitData
    ) -> tuple[Any, dict[str, Any]]:
        model, plan = self.start(seed, data), self.plan
        pieces = keywords.pieces(data.train, 1000 + seed, *plan.batch)
        rate = plan.learning_rates[1]
        if method == "dense":
            gates.fit(model, pieces, sum(plan.epochs), rate)
            return model, {"epochs": plan.epochs}
        (row,) = (row for row in ROWS if row.name == method)
        recipe = row.recipe(LAYERS, row.rate, *plan.epochs)
        details = {**row.to_dict(), "recipe": recipe.get_config()}
        return gates.prune(model, recipe, pieces, rate), details

    def start(self, seed: int, data: DigitData):
        """Returns the dense model all methods of ``seed`` start from."""
        plan = self.plan

        def make():
            model = keywords.network(plan.units, 11)
            pieces = keywords.pieces(data.train, seed, *plan.batch)
            gates.fit(model, pieces, plan.dense_epochs, plan.learning_rates[0])
            return model

        return self.kept("start", seed, make)

    def scores(self, model, data: DigitData, part: str) -> dict[str, float]:
        spoken = getattr(data, part)
        events = keywords.Spotter(_Whole(model)).push(spoken.audio)
        return {"accuracy": keywords.accuracy(events, spoken)}

    def count(self, model) -> dict[str, Any]:
        return gates.count_weights(model, LAYERS)

    def deployed(
        self, method: str, seed: int, model, data: DigitData
    ) -> dict[str, Any]:
        """Returns accuracy and speed of the packed file in a stream, and its bytes."""
        import tfrewprune
        from tfrewprune.benchmark.compare import compare_models

        dense = self.export(method, seed, model)
        packed = self.path(method, seed, ".packed.tflite")
        tfrewprune.convert(dense, output=packed)
        spoken = data.test
        spotter = keywords.Spotter(tfrewprune.Streamer(packed, num_threads=1))
        started = time.process_time()
        events = [
            event
            for begin in range(0, len(spoken.audio), CHUNK)
            for event in spotter.push(spoken.audio[begin : begin + CHUNK])
        ]
        spent = time.process_time() - started
        frames = keywords.frames_of(spoken.audio, 0, 50)[None]
        timing = compare_models(
            *(packed, dense),
            min_seconds=self.plan.seconds,
            inputs=[frames],
            with_cost=False,
        )
        return {
            "litert_accuracy": keywords.accuracy(events, spoken),
            "real_time_factor": len(spoken.audio) / keywords.RATE / spent,
            "dense_bytes": dense.stat().st_size,
            "packed_bytes": packed.stat().st_size,
            "packed_layers": timing.to_dict()["claimed_nodes"],
            "latency": [timing.to_dict()],
        }

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        found = []
        for row in ROWS:
            factor = summary.get(row.name, {}).get("real_time_factor")
            if factor is not None:
                goal = (
                    f"{row.name}: at least 100x faster than real time, pushed by"
                    f" 100 ms (it is {factor:.0f}x)"
                )
                found.append((goal, factor >= 100))
        return found


if __name__ == "__main__":
    Digits.main()
