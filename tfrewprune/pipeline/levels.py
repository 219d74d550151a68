# SPDX-License-Identifier: Apache-2.0
"""Quantization in training: weights end on levels, removed ones at zero."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence

import keras
import numpy as np

from tfrewprune.levels import Levels
from tfrewprune.pipeline.distillation import Teacher, teacher_of
from tfrewprune.pipeline.prune import check_finite
from tfrewprune.pipeline.run import PhaseRun, build_from_data
from tfrewprune.pipeline.train import (
    check_compiled,
    check_data,
    check_fit_arguments,
    levels_train,
)
from tfrewprune.quantization import Quantization, Stage
from tfrewprune.text import aligned
from tfrewprune.wrappers.cloning import strip
from tfrewprune.wrappers.leveled import Leveled, resolve_levels, snap_to_levels


@dataclasses.dataclass(frozen=True)
class LevelRow:
    """Levels of one kernel.

    Attributes:
        layer: Path of the layer inside the model.
        levels: What its weights lie on; None with a reason.
        weights: Number of weights.
        kept: Weights that are not zero.
        scale: One number, or one of each output: each weight is it times an integer.
        rounding: What plain rounding of the weights that training began with would
            have changed: norm of the difference / norm of the weights.
        moved: Likewise how far training and rounding together moved them.
        reason: Why the layer stays as floats.
    """

    layer: str
    levels: Levels | None
    weights: int = 0
    kept: int = 0
    scale: tuple[float, ...] = ()
    rounding: float = 0.0
    moved: float = 0.0
    reason: str | None = None

    @property
    def bits(self) -> int:
        """Bits of a weight that is stored; 32 of a layer that stays as floats."""
        return 32 if self.levels is None else self.levels.bits

    def to_dict(self) -> dict:
        """JSON-serializable."""
        levels = None if self.levels is None else self.levels.get_config()
        row = {**dataclasses.asdict(self), "levels": levels, "bits": self.bits}
        return {**row, "scale": list(self.scale)}


@dataclasses.dataclass(frozen=True)
class QuantizeResult:
    """What `quantize` did.

    Attributes:
        model: The plain model, its weights on their levels.
        layers: One `LevelRow` a layer.
        history: Logs by phase (`Quantization.stages`), by epoch.
        scores: Validation results of the model `"before"`, as plain rounding would
            leave it (`"rounded"`), and `"after"`; empty without validation data.
        quantization: What was followed.
        seconds: Wall time.
    """

    model: keras.Model
    layers: list[LevelRow]
    history: dict[str, dict[str, list[float]]]
    scores: dict[str, dict[str, float]]
    quantization: Quantization
    seconds: float

    def to_dict(self) -> dict:
        """JSON-serializable; without the model."""
        return {
            "layers": [row.to_dict() for row in self.layers],
            "history": self.history,
            "scores": self.scores,
            "quantization": self.quantization.get_config(),
            "seconds": self.seconds,
        }

    @property
    def headline(self) -> str:
        """Bits and scores, a line each."""
        on_levels = [row for row in self.layers if row.reason is None]
        kept = sum(row.kept for row in on_levels)
        bits = sum(row.kept * row.bits for row in on_levels) / max(1, kept)
        lines = [f"{kept:,} weights on levels, {bits:.3g} bits each"]
        for name, scores in self.scores.items():
            figures = ", ".join(f"{key} {value:.4f}" for key, value in scores.items())
            lines.append(f"{name}: {figures}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{format_levels(self.layers)}\n{self.headline}"


def quantize(
    model: keras.Model,
    quantization: Quantization | Levels | dict | str | int,
    x=None,
    y=None,
    *,
    validation_data=None,
    callbacks=None,
    teacher: Teacher | keras.Model | str | None = None,
    verbose: str | int = "auto",
    **fit,
) -> QuantizeResult:
    """Trains until all weights lie on levels; those that are zero stay zero.

    Afterwards every weight is exactly a scale times an integer (float32 product). Each
    phase starts with a new optimizer of the settings the model was compiled with. The
    model is changed in place.

    Args:
        model: A compiled and trained model, pruned or not.
        quantization: Levels and schedule; levels alone for the default schedule, such
            as 4 (bits) or `"ternary"`.
        x: As in `fit`.
        y: As in `fit`.
        validation_data: As in `fit`; also gives the scores.
        callbacks: For all phases; those that choose a model by a metric act where all
            weights lie on levels at every epoch (`"straight-through"`).
        teacher: A model whose outputs training follows beside the labels, a `Teacher`
            that says how much, or `"dense"` for this model as it comes.
        verbose: As in `compress`.
        **fit: Passed to `fit`, such as `batch_size`.

    Returns:
        A `QuantizeResult`; `print` it for a table of all layers.

    Raises:
        ValueError: The model is not compiled, the quantization does not fit, there is
            no data, or weights are not finite.
        TypeError: An argument that `fit` does not take.

    Example:

    >>> result = quantize(model, Quantization("ternary", layers={"head": 8}), x, y)
    >>> result.model.save("quantized.keras")
    """
    started = time.perf_counter()
    quantization = Quantization.get(quantization)
    check_compiled(model, "quantize")
    check_fit_arguments(model, fit, "quantize")
    for name in {"epochs", "initial_epoch"} & set(fit):
        raise ValueError(
            "quantize: the quantization holds the epochs of each phase (epochs, "
            f"freeze_epochs). Received: {name}={fit[name]}"
        )
    stages = quantization.stages
    phases = {stage.name: stage.epochs for stage in stages}
    if any(phases.values()):
        none = ", or a quantization with epochs=0 and freeze_epochs=0"
        check_data(x, "quantize", none)
    build_from_data(model, x, "quantize")
    check_finite(model)
    resolve_levels(model, quantization)
    teacher = teacher_of(model, teacher, "quantize")
    finished = tuple(stage.name for stage in stages if stage.shows_levels)
    run = PhaseRun(
        *(model, phases, (x, y), validation_data, callbacks, finished, verbose, fit)
    )
    with run:
        run.score("before", model)
        if validation_data is not None:
            _score_rounded(run, model, quantization)
        rows = train_stages(run, model, stages, teacher)
        stripped = strip(model)
        run.score("after", stripped)
    result = QuantizeResult(
        *(stripped, rows, run.history, run.scores, quantization),
        seconds=time.perf_counter() - started,
    )
    run.finish(result.headline)
    return result


def train_stages(
    run: PhaseRun,
    model: keras.Model,
    stages: Sequence[Stage],
    teacher: Teacher | None,
) -> list[LevelRow]:
    """Trains the stages of a quantization; after those of a part it is on its levels.

    Args:
        run: That the phases are part of.
        model: Changed in place.
        stages: Of one quantization.
        teacher: What `teacher_of` returned.
    """
    quantization = stages[0].quantization
    before = {
        each.target.path_key: each.target.values()
        for each in resolve_levels(model, quantization)
        if each.levels is not None
    }
    for stage in stages:
        run.train(stage.name, stage, functools.partial(levels_train, teacher=teacher))
        if stage.last_of_part:
            resolved = snap_to_levels(model, quantization, stage.part)
    return [_row(each, before) for each in resolved]


def _score_rounded(
    run: PhaseRun, model: keras.Model, quantization: Quantization
) -> None:
    weights = model.get_weights()
    snap_to_levels(model, quantization)
    run.score("rounded", model)
    model.set_weights(weights)


def _row(each: Leveled, before: dict[tuple, np.ndarray]) -> LevelRow:
    target = each.target
    if each.levels is None:
        weights = 0 if target.spec is None else target.shape.weights
        return LevelRow(target.label, None, weights, reason=target.reason)
    start, kernel = before[target.path_key], target.values()
    norm = np.linalg.norm(start)
    return LevelRow(
        *(target.label, each.levels, target.shape.weights),
        kept=int(np.count_nonzero(kernel)),
        scale=tuple(each.levels.scale(kernel).ravel().tolist()),
        rounding=float(np.linalg.norm(each.levels.project(start) - start) / norm),
        moved=float(np.linalg.norm(kernel - start) / norm),
    )


def format_levels(rows: Sequence[LevelRow], width: int | None = None) -> str:
    """The rows as text: layers on levels, then what stays as floats and why.

    Args:
        rows: What `quantize` made.
        width: Columns; default those of the terminal.
    """
    table = [("layer", "levels", "bits", "kept", "scale", "rounding", "moved")]
    for row in rows:
        if row.reason is None:
            low, high = min(row.scale), max(row.scale)
            scale = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            cells = (str(row.levels), str(row.bits), f"{row.kept:,}", scale)
            table.append((row.layer, *cells, f"{row.rounding:.1%}", f"{row.moved:.1%}"))
    lines = aligned(table, 2, width=width)
    floats = [row for row in rows if row.reason is not None]
    lines += ["left as floats:"] * bool(floats)
    lines += [f"  {row.layer}: {row.reason}" for row in floats]
    return "\n".join(lines)
