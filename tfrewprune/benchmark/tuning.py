# SPDX-License-Identifier: Apache-2.0
"""What measuring drivers on this machine gains, layer by layer inside the model."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfrewprune.benchmark.compare import random_inputs, run_once
from tfrewprune.benchmark.measure import check_results
from tfrewprune.inspection import inspect_model
from tfrewprune.runtime import Interpreter
from tfrewprune.runtime.interpreter import LayerRun

TOLERANCE = 1e-3
_ROUNDS, _RUNS = 20, 3


@dataclass(frozen=True)
class LayerGain:
    """A packed layer with the predicted and with the measured driver.

    Attributes:
        name: Its name, from the output tensor.
        predicted: The driver that predictions choose.
        tuned: The one that `tune="once"` chooses, with "alone" behind it where one
            thread is faster than all.
        predicted_seconds: Median over runs of the whole model.
        tuned_seconds: The same with the tuned driver.
        gain: How many times faster the tuned one is: median over rounds.
    """

    name: str
    predicted: str
    tuned: str
    predicted_seconds: float
    tuned_seconds: float
    gain: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def tuning_gains(
    packed: str | os.PathLike[str],
    *,
    threads: int = 1,
    isa: str | None = None,
    tune_ms: int | None = None,
    inputs: Sequence[np.ndarray] | None = None,
    frames: int = 1,
    size: tuple[int, int] | None = None,
) -> list[LayerGain]:
    """Runs a packed model untuned and tuned, in turn, and times its packed layers.

    Args:
        packed: Path of a model that `convert` wrote.
        threads: Threads of both.
        isa: Kernels; None is the best of this CPU.
        tune_ms: See `Interpreter`.
        inputs: Arrays in the order of the model's inputs; None draws random ones.
        frames: As for `compare_models`.
        size: As for `compare_models`.

    Returns:
        The packed layers in the order in which they run.

    Raises:
        WrongResultError: If the two compute different things.
        ValueError: If the model cannot be read.
    """
    path = os.fspath(packed)
    untuned = Interpreter(path, num_threads=threads, isa=isa, tune="off")
    tuned = Interpreter(
        path, num_threads=threads, isa=isa, tune="once", tune_ms=tune_ms
    )
    if inputs is None:
        inputs = random_inputs(untuned, frames=frames, size=size)
    check_results(
        run_once(untuned, inputs),
        run_once(tuned, inputs),
        tolerance=TOLERANCE,
        what="The tuned model",
    )
    pair = {"untuned": untuned, "tuned": tuned}
    rounds: dict[str, list[np.ndarray]] = {name: [] for name in pair}
    order = list(pair)
    for _ in range(_ROUNDS):
        for name in order:
            pair[name].invoke()  # brings its data back into the caches
            traces = pair[name].trace(_RUNS)
            spans = [[r.end - r.begin for r in t.layers] for t in traces]
            rounds[name].append(np.median(np.array(spans), axis=0))
        order.reverse()
    before, after = (np.array(rounds[name]) for name in pair)
    layers = [pair[name].trace()[0].layers for name in pair]
    names = {record.operator: record.name for record in inspect_model(path)}
    return [
        LayerGain(
            names.get(old.operator, str(old.operator)),
            driver_label(old, threads),
            driver_label(new, threads),
            float(np.median(before[:, i])),
            float(np.median(after[:, i])),
            float(np.median(before[:, i] / after[:, i])),
        )
        for i, (old, new) in enumerate(zip(*layers, strict=True))
    ]


def driver_label(run: LayerRun, threads: int) -> str:
    """What ran a layer, and whether on one thread although it was given more.

    Args:
        run: When it ran.
        threads: How many it was given.
    """
    return run.driver if run.threads == threads else f"{run.driver} alone"
