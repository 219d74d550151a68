# SPDX-License-Identifier: Apache-2.0
"""Phone recognition with pruned GRUs: four methods at equal budgets, 10x to 300x.

The network is the one of RTMobile (arXiv 2002.11474) scaled to this machine and data:
two GRU layers and a linear output, one phone every 30 ms (see
:mod:`tfrewprune.experiments.phones`). The rate counts the twelve gate matrices, as the
paper does; the output layer stays dense. All runs of a seed start from the same dense
model and have the same number of epochs, pieces of sentences, optimizer and dropout.
The learning rate is constant while weights go and falls to 0 along a cosine afterwards.
``dense`` is trained on like the others: the control. Long rows have three times the
epochs, and so has their control, ``dense_long``. Taught rows follow the dense model as
well as the labels.

- ``reweighted_block-16x1``: the reweighted penalty, its strength following the rate;
- ``reweighted-proximal_block-16x1``: the same as a step after the optimizer's;
- ``gradual_block-16x1``: gradual magnitude pruning on the same structure;
- ``admm_bsp``: RTMobile's recipe, ADMM on columns of blocks, then on rows of blocks.

The phone error rate is the edit distance of collapsed sequences, silence dropped, over
true phones: of the likeliest phone of each step as it is, and of the likeliest sequence
under a bigram of phones ("decoded"). Beside the latter the curve that RTMobile's
authors measured on TIMIT: other speech, more of it, a network of nine times the
weights; compare how it bends, not where it lies.

Choices were made on the validation sentences. The test sentences are read only by the
stage ``measure``; the stage ``time`` runs the converted files. Run ``python -m
tfrewprune.experiments.speech``; ``--quick`` for a trial of a minute.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tfrewprune.experiments import gates, phones, precision
from tfrewprune.experiments.experiment import Experiment
from tfrewprune.experiments.rows import Row
from tfrewprune.experiments.tables import Summary

RATES = (10, 20, 30, 80, 100, 300)
LAYERS = ("gru_1", "gru_2")

ROWS = (
    tuple(
        Row(structure, method, rate)
        for rate in RATES
        for method, structure in (
            ("reweighted", "block-16x1"),
            ("reweighted-proximal", "block-16x1"),
            ("gradual", "block-16x1"),
            ("admm", "bsp"),
        )
    )
    + tuple(
        Row("block-16x1", method, rate, "long")
        for rate in (10, 30)
        for method in ("gradual", "reweighted")
    )
    + tuple(
        Row("block-16x1", "gradual", rate, length, taught=True)
        for rate, length in ((10, "short"), (30, "short"), (100, "short"), (10, "long"))
    )
)

CONTROLS = {"dense": "short", "dense_long": "long"}
"""Dense models that are trained on, with the length of the rows they stand beside."""

TIMIT = {
    1: 0.188,
    9.95: 0.188,
    20.34: 0.195,
    28.91: 0.196,
    79.5: 0.215,
    103.84: 0.232,
    301.28: 0.255,
}
"""RTMobile's phone error rate by rate: GRU 2 x 1024, Kaldi, 7,215 phones."""

LOSSES = {10: 0.0, 30: 0.01, 100: 0.04}
"""Phone error rate that may be lost against dense, by rate."""

NOISE = 0.005
"""What two seeds differ by: level means within this."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hyper-parameters of the experiment, the same for every row and seed.

    Attributes:
        units: Width of the GRU layers.
        dropout: After each of them.
        batch: Pieces a batch.
        steps: Of a piece, of the dense model from scratch and of all that follows:
            shorter ones give a method more updates of the weights in an epoch.
        dense_epochs: Training of the shared dense model from scratch.
        epochs: (under the method, under the mask) of the rows of each length; of a
            recipe with two steps half of each.
        start_rate: Largest rate of the first cut, by magnitude.
        learning_rates: Adam's, of the dense model from scratch and of all that follows.
        images: How many training sentences are used; None for all.
        evaluation_images: How many validation and test sentences; None for all.
        bfloat16: Whether training multiplies in bfloat16; what is deployed never does.
        timed_steps: Steps of the sentence that is timed.
        seconds: Length of a timing.
    """

    units: int = 320
    dropout: float = 0.3
    batch: int = 32
    steps: tuple[int, int] = (40, 20)
    dense_epochs: int = 16
    epochs: dict[str, tuple[int, int]] = dataclasses.field(
        default_factory=lambda: {"short": (6, 6), "long": (18, 18)}
    )
    start_rate: float = 4
    learning_rates: tuple[float, float] = (2e-3, 3e-3)
    images: int | None = None
    evaluation_images: int | None = None
    bfloat16: bool = False
    timed_steps: int = 100
    seconds: float = 1.5


QUICK = Plan(
    units=32,
    batch=8,
    steps=(20, 10),
    dense_epochs=1,
    epochs={"short": (2, 2), "long": (2, 2)},
    images=12,
    evaluation_images=3,
    timed_steps=10,
    seconds=0.1,
)


def network(
    plan: Plan, features: int, count: int, steps: int | None = None, batch=None
):
    """Returns an untrained network: ``(batch, steps, features)`` to scores of phones.

    Args:
        plan: Gives the width and the dropout.
        features: Values a step.
        count: Phones.
        steps: Length of the sequences, None leaves it open.
        batch: Number of sequences, None leaves it open.
    """
    import keras
    from keras import layers

    stack = [keras.Input((steps, features), batch_size=batch)]
    for name in LAYERS:
        stack.append(layers.GRU(plan.units, return_sequences=True, name=name))
        stack.append(layers.Dropout(plan.dropout))
    return keras.Sequential([*stack, layers.Dense(count, name="phone")], name="speech")


def recipe(row: Row, plan: Plan):
    """Returns the :class:`tfrewprune.Recipe` of a row."""
    import tfrewprune

    training, retraining = plan.epochs[row.length]
    if row.structure == "bsp":
        return tfrewprune.recipes.get(
            "rtmobile",
            row.rate,
            reweighted_epochs=training // 2,
            retrain_epochs=retraining // 2,
        )
    chosen = row.recipe(LAYERS, row.rate, training, retraining)
    return chosen.replace(start_rate=min(plan.start_rate, row.rate))


class Speech(Experiment):
    """The experiment; see the module."""

    name = "speech"
    title = "Phone recognition, 2 x GRU"
    rows = ROWS
    methods = (*CONTROLS, *(row.name for row in rows))
    full_plan = Plan()
    quick_plan = QUICK
    stages = ("train", "measure", "time")
    scored = ("accuracy", "phone_error_rate", "decoded_error_rate")
    published = {
        f"RTMobile, TIMIT {rate:g}x": {"rate": rate, "test_decoded_error_rate": errors}
        for rate, errors in TIMIT.items()
    }

    def load_data(self) -> phones.PhoneData:
        return phones.ru_phones()

    def train(
        self, method: str, seed: int, data: phones.PhoneData
    ) -> tuple[Any, dict[str, Any]]:
        model, plan = self._for_training(self.start(seed, data)), self.plan
        pieces = phones.segments(data, 1000 + seed, plan.batch, plan.steps[1])
        if method in CONTROLS:
            epochs = plan.epochs[CONTROLS[method]]
            gates.fit(model, pieces, sum(epochs), plan.learning_rates[1])
            return self._for_deployment(model), {"epochs": epochs}
        (row,) = (row for row in self.rows if row.name == method)
        chosen = recipe(row, plan)
        details = {**row.to_dict(), "epochs": plan.epochs[row.length]}
        details["recipe"] = chosen.get_config()

        def note(cut) -> None:
            details["validation_after_cut"] = self.scores(cut, data, "validation")

        teacher = self.start(seed, data) if row.taught else None
        rate = plan.learning_rates[1]
        model = gates.prune(model, chosen, pieces, rate, note, teacher)
        return self._for_deployment(model), details

    def _for_training(self, model):
        return precision.for_training(model) if self.plan.bfloat16 else model

    def _for_deployment(self, model):
        return precision.for_deployment(model) if self.plan.bfloat16 else model

    def start(self, seed: int, data: phones.PhoneData):
        """Returns the dense model all methods of ``seed`` start from.

        Trained on first use, then read from the work folder.
        """
        plan = self.plan

        def make():
            features = phones.STACK * data.x_train[0].shape[1]
            model = self._for_training(network(plan, features, len(data.phones)))
            pieces = phones.segments(data, seed, plan.batch, plan.steps[0])
            gates.fit(model, pieces, plan.dense_epochs, plan.learning_rates[0])
            return self._for_deployment(model)

        return self.kept("start", seed, make)

    def scores(self, model, data: phones.PhoneData, part: str) -> dict[str, float]:
        found = phones.keras_scores(model, getattr(data, f"x_{part}"))
        return self._errors(found, data, part)

    def _errors(self, found, data: phones.PhoneData, part: str) -> dict[str, float]:
        grammar = phones.grammar_of(data.y_train, len(data.phones))
        return phones.errors(found, getattr(data, f"y_{part}"), data.silence, grammar)

    def count(self, model) -> dict[str, Any]:
        return gates.count_weights(model, LAYERS)

    def deployed(
        self, method: str, seed: int, model, data: phones.PhoneData
    ) -> dict[str, Any]:
        """Returns errors of the packed file, frame by frame, and its bytes.

        Writes the files that the stage ``time`` runs.
        """
        import tfrewprune
        from tfrewprune.benchmark.recurrent import write_files

        packed = self.path(method, seed, ".packed.tflite")
        tfrewprune.convert(model, output=packed)
        streamer = tfrewprune.Streamer(packed)
        found = [
            streamer.stream().push(phones.steps_of(frames))[phones.DELAY :]
            for frames in data.x_test
        ]
        scores = self._errors(found, data, "test")
        fixed = network(
            self.plan, model.input_shape[-1], len(data.phones), self.plan.timed_steps, 1
        )
        fixed.set_weights(model.get_weights())
        written = write_files(fixed, self._timed(method, seed))
        return {
            **{f"litert_{name}": score for name, score in scores.items()},
            "dense_bytes": written["loop"].stat().st_size,
            "packed_bytes": packed.stat().st_size,
        }

    def _timed(self, method: str, seed: int) -> Path:
        """The folder of the files that are timed."""
        return self.path(method, seed, "-timed")

    def _time(self, method: str, seed: int, data: phones.PhoneData) -> dict[str, Any]:
        from tfrewprune.benchmark.recurrent import compare_files

        folder = self._timed(method, seed)
        if not folder.exists():
            raise FileNotFoundError(
                f"{folder} is not there: run stage 'measure' of {method}, seed {seed},"
                " with the same --work folder first."
            )
        measurement, _ = compare_files(folder, min_seconds=self.plan.seconds)
        times = {
            name: {"median": measurement.timing(name).median}
            for name in ("packed", "loop", "tensorflow")
        }
        return {
            "timed_steps": self.plan.timed_steps,
            "latency": [
                {
                    "dense": times["loop"],
                    "packed": times["packed"],
                    "tensorflow": times["tensorflow"],
                    "ratio": {"median": measurement.ratio("loop", "packed").median},
                    "tensorflow_ratio": {
                        "median": measurement.ratio("tensorflow", "packed").median
                    },
                }
            ],
        }

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        key = "test_phone_error_rate"
        found = {
            row: summary[row.name][key]
            for row in self.rows
            if key in summary.get(row.name, {})
        }
        goals = []
        for row, ours in found.items():
            (control,) = (name for name, of in CONTROLS.items() if of == row.length)
            dense, allowed = summary.get(control, {}).get(key), LOSSES.get(row.rate)
            if row.method == "admm" or dense is None or allowed is None:
                continue
            goal = (
                f"{row.name}: at most {100 * allowed:g} points of phone errors more"
                f" than {control}, within {100 * NOISE:g} (it is"
                f" {100 * (ours - dense):+.2f})"
            )
            goals.append((goal, ours - dense <= allowed + NOISE))
        for rate in RATES:
            ours, theirs = (
                found.get(Row(structure, method, rate))
                for method, structure in (
                    ("reweighted", "block-16x1"),
                    ("admm", "bsp"),
                )
            )
            if ours is not None and theirs is not None:
                goal = (
                    f"reweighted {rate}x: level with BSP by ADMM or better (it is"
                    f" {100 * (ours - theirs):+.2f} points)"
                )
                goals.append((goal, ours <= theirs + NOISE))
        return goals


if __name__ == "__main__":
    Speech.main()
