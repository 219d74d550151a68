# SPDX-License-Identifier: Apache-2.0
"""Runs the demo from the data to the report."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from tfrewprune.benchmark.compare import (
    Interpreter,
    LiteRtInterpreter,
    compare_models,
)
from tfrewprune.benchmark.machine import cpu_name
from tfrewprune.benchmark.profile import LayerTime, time_layers
from tfrewprune.converter import convert, unpack
from tfrewprune.converter.export import to_tflite
from tfrewprune.converter.files import write_atomically
from tfrewprune.demo.data import Part, load_digits
from tfrewprune.demo.result import Accuracy, DemoResult
from tfrewprune.demo.training import (
    Plan,
    Pruned,
    structure_name,
    train_dense,
    train_pruned,
)
from tfrewprune.inspection import inspect_model, mac_rate
from tfrewprune.report import Curve, Layer, write_report

# The recipe's words name its arguments; a reader of the report has not seen them.
_NOTES = {
    "first convolution (skip_first=True)": "first convolution, left dense",
    "last classifier (skip_last=True)": "classifier, left dense",
}

_PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "jinja2": "Jinja2"}


class Progress(Protocol):
    """Hears how the demo gets on."""

    def stage(self, name: str) -> None:
        """A new stage begins."""

    def epoch(
        self, phase: str, number: int, total: int, logs: Mapping[str, float]
    ) -> None:
        """An epoch has ended."""


class _Silence:
    def stage(self, name: str) -> None:
        pass

    def epoch(
        self, phase: str, number: int, total: int, logs: Mapping[str, float]
    ) -> None:
        pass


def run_demo(
    output: str | os.PathLike[str] = "demo-output",
    *,
    threads: int = 1,
    seed: int = 0,
    plan: Plan | None = None,
    progress: Progress | None = None,
    min_seconds: float = 3.0,
) -> DemoResult:
    """Trains, prunes, converts, runs and times a small digit classifier.

    Args:
        output: Folder, made if missing, for `dense.tflite` (the baseline),
            `packed.tflite`, `demo.json` and `report.html`.
        threads: Threads for timing.
        seed: Seed of the split and of training.
        plan: Epochs, strength and rates; None for the usual ones.
        progress: Hears of stages and epochs.
        min_seconds: How long to time the pair of models.

    Returns:
        The figures.

    Raises:
        ModuleNotFoundError: If scikit-learn, matplotlib or Jinja2 is missing;
            `pip install tfrewprune[report]` brings them.
        OSError: If the folder cannot be written.
    """
    _check_packages()
    started = time.perf_counter()
    plan = plan or Plan()
    progress = progress or _Silence()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    data = load_digits(seed)

    progress.stage(f"training the dense baseline, {plan.epochs} epochs")
    dense, dense_history = train_dense(data, plan, seed, progress.epoch)
    progress.stage(f"training the pruned model, {plan.epochs} epochs in three phases")
    pruned = train_pruned(
        data, plan, seed, dense_history["val_accuracy"][-1], progress.epoch
    )

    progress.stage("converting both models")
    dense_file, packed_file = folder / "dense.tflite", folder / "packed.tflite"
    write_atomically(dense_file, to_tflite(dense))
    packed = convert(
        pruned.model, packed_file, inputs=[data.validation.images[:1]], minimum_gain=1
    )

    progress.stage("running both files in LiteRT on the test digits")
    dense_accuracy = _accuracy(dense, dense_file, data.validation, data.test, False)
    pruned_accuracy = _accuracy(
        pruned.model, packed_file, data.validation, data.test, True
    )

    progress.stage("timing both files in turn")
    # The packed model is checked against its own weights run dense; those are timed,
    # not the baseline's: the time of a dense layer does not depend on its numbers.
    same_weights = folder / ".unpacked.tflite"
    write_atomically(same_weights, unpack(packed))
    try:
        comparison = compare_models(
            packed_file,
            same_weights,
            threads=threads,
            min_seconds=min_seconds,
            inputs=[data.validation.images[:1]],
        )
    finally:
        same_weights.unlink()
    times = list(time_layers(packed, threads=threads))

    progress.stage("writing the report")
    layers = _layers(pruned, times)
    weights, kept = sum(x.weights for x in layers), sum(x.kept for x in layers)
    result = DemoResult(
        dense=dense_accuracy,
        pruned=pruned_accuracy,
        mac_rate=mac_rate(inspect_model(packed)),
        chosen_rate=pruned.rate,
        weight_rate=weights / kept,
        tried=pruned.tried,
        comparison=comparison,
        layers=layers,
        accuracy_curves=_accuracy_curves(dense_history, pruned.history),
        sparsity_curve=_sparsity_curve(plan, pruned.history),
        phases=_phases(plan),
        test_examples=len(data.test),
        seconds=time.perf_counter() - started,
        facts=_facts(threads, seed, comparison.isa),
    )
    document = json.dumps(result.to_dict(), indent=2, default=float) + "\n"
    write_atomically(folder / "demo.json", document.encode())
    write_report(result.report(), folder / "report.html")
    return result


def _check_packages() -> None:
    """Finds out before the training what the report would miss after it."""
    missing = [name for module, name in _PACKAGES.items() if not find_spec(module)]
    if missing:
        raise ModuleNotFoundError(
            f'the demo needs {", ".join(missing)}, which the extra "report" brings: '
            "pip install 'tfrewprune[report]', or '.[report]' in a checkout"
        )


def _accuracy(
    model, path: Path, validation: Part, test: Part, packed: bool
) -> Accuracy:
    def in_keras(part: Part) -> float:
        scores = model.predict(part.images, verbose=0)
        return float(np.mean(scores.argmax(axis=-1) == part.labels))

    kind = Interpreter if packed else LiteRtInterpreter
    interpreter = kind(model_path=str(path), num_threads=2)
    detail = interpreter.get_input_details()[0]
    interpreter.resize_tensor_input(detail["index"], test.images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(detail["index"], test.images)
    interpreter.invoke()
    scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    in_litert = float(np.mean(scores.argmax(axis=-1) == test.labels))
    return Accuracy(in_keras(validation), in_keras(test), in_litert)


def _layers(pruned: Pruned, times: Sequence[LayerTime]) -> list[Layer]:
    layers = []
    remaining = list(times)
    for row in pruned.rows:
        if not row.weights:
            continue
        # TFLite keeps the order of the layers, but not their names.
        expected = (row.shape[-1], *row.shape[:-1])
        time = next((time for time in remaining if time.shape == expected), None)
        if time is not None:
            remaining.remove(time)
        packed = time is not None and time.packed_in_model
        layers.append(
            Layer(
                name=row.layer,
                kind=row.kind,
                shape=row.shape,
                weights=row.weights,
                kept=row.kept,
                structure=structure_name(row),
                survivors=pruned.survivors.get(row.layer),
                dense_seconds=time.dense.median if time else None,
                packed_seconds=time.packed.median if packed else None,
                note=_NOTES.get(row.reason, row.reason) or row.note or "",
            )
        )
    return layers


def _accuracy_curves(dense: Mapping, pruned: Mapping) -> list[Curve]:
    values = [value for phase in pruned.values() for value in phase["val_accuracy"]]
    return [
        Curve("dense baseline", dense["val_accuracy"], dashed=True),
        Curve("pruned", values),
    ]


def _sparsity_curve(plan: Plan, history: Mapping) -> Curve:
    values = [*history["reweighted"]["sparsity"], *history["retrain"]["sparsity"]]
    return Curve("sparsity", values, start=plan.warm_up_epochs)


def _phases(plan: Plan) -> list[tuple[str, int, int]]:
    reweighted = plan.warm_up_epochs + plan.reweighted_epochs
    return [
        ("warm-up", 0, plan.warm_up_epochs),
        ("reweighted penalty", plan.warm_up_epochs, reweighted),
        ("retraining under the mask", reweighted, plan.epochs),
    ]


def _facts(threads: int, seed: int, isa: str) -> dict[str, str]:
    facts = {
        "CPU": f"{cpu_name()}, kernels {isa}, {threads} thread(s)",
        "system": platform.platform(),
        "seed": str(seed),
        "command": f"tfrewprune demo --threads {threads} --seed {seed}",
    }
    for package in ("tfrewprune", "tensorflow", "keras", "ai-edge-litert"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed as a package"
    return facts
