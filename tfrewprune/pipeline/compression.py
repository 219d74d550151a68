# SPDX-License-Identifier: Apache-2.0
"""All training stages in one call."""

from __future__ import annotations

import dataclasses
import functools
import time

import keras

from tfrewprune.pipeline.distillation import Teacher, teacher_of
from tfrewprune.pipeline.levels import LevelRow, format_levels, train_stages
from tfrewprune.pipeline.likeness import arrange
from tfrewprune.pipeline.prune import check_finite, hard_prune
from tfrewprune.pipeline.purification import purify
from tfrewprune.pipeline.run import PhaseRun, build_from_data
from tfrewprune.pipeline.summary import model_rate, sparsity_summary
from tfrewprune.pipeline.train import (
    check_compiled,
    check_data,
    check_fit_arguments,
    check_trainable,
    masked_retrain,
    reweighted_train,
)
from tfrewprune.quantization import Stage
from tfrewprune.recipe import Recipe
from tfrewprune.rows import LayerRow, format_rows, total_rate
from tfrewprune.shrinking import ShrinkResult, shrink
from tfrewprune.wrappers.budget import Budget
from tfrewprune.wrappers.cloning import strip
from tfrewprune.wrappers.leveled import resolve_levels
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.selection import check_budget


@dataclasses.dataclass(frozen=True)
class CompressResult:
    """What `compress` did.

    Attributes:
        model: The pruned plain model, ready to save or convert.
        layers: One `LayerRow` a layer.
        history: Logs of every phase that trained, by epoch:
            `{"reweighted": {"loss": [...], ...}, "retrain": {...}}`, and for a recipe
            with a second step `"reweighted 2"` and `"retrain 2"`; then those of
            `Quantization.stages`.
        scores: Validation results of the model `"before"`, `"pruned"` (before
            retraining), `"retrained"` (before a quantization) and `"after"`; empty
            without validation data.
        recipe: The recipe that was followed.
        seconds: Wall time.
        costs: Of each constraint the `"limit"` and what was `"reached"`, in its own
            units; empty without constraints.
        collapsed: Layers that lost everything under the method, by epoch (from 1).
        shrunk: What became of each layer physically, for a recipe with `shrink`.
        levels: One `LevelRow` a layer, where the recipe has a quantization.
    """

    model: keras.Model
    layers: list[LayerRow]
    history: dict[str, dict[str, list[float]]]
    scores: dict[str, dict[str, float]]
    recipe: Recipe
    seconds: float
    costs: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    collapsed: dict[str, int] = dataclasses.field(default_factory=dict)
    shrunk: ShrinkResult | None = None
    levels: list[LevelRow] = dataclasses.field(default_factory=list)

    @property
    def rate(self) -> float:
        """Dense / kept weights over all weights of the model, biases included."""
        if self.shrunk is None:
            return model_rate(self.model, self.layers)
        zeros = sum(row.weights - row.kept for row in sparsity_summary(self.model))
        return self.shrunk.weights / max(1, self.shrunk.weights_left - zeros)

    @property
    def pruned_rate(self) -> float:
        """Dense / kept weights over the pruned kernels alone."""
        return total_rate(self.layers)

    def to_dict(self) -> dict:
        """JSON-serializable; without the model."""
        return {
            "rate": self.rate,
            "pruned_rate": self.pruned_rate,
            "layers": [row.to_dict() for row in self.layers],
            "history": self.history,
            "scores": self.scores,
            "recipe": self.recipe.get_config(),
            "seconds": self.seconds,
            "costs": self.costs,
            "collapsed": self.collapsed,
            "shrunk": self.shrunk and self.shrunk.to_dict(),
            "levels": [row.to_dict() for row in self.levels],
        }

    @property
    def headline(self) -> str:
        """Rates and scores, a line each."""
        lines = [
            f"{self.rate:.2f}x fewer weights in the model, {self.pruned_rate:.2f}x in "
            "its pruned layers"
        ]
        if self.shrunk is not None:
            lines.append(f"shrunk: {self.shrunk.headline}")
        for layer, epoch in self.collapsed.items():
            lines.append(f"{layer} collapsed in epoch {epoch}: see CollapseWatch")
        for name, cost in self.costs.items():
            lines.append(f"{name}: {cost['reached']:.4g} of {cost['limit']:.4g}")
        for name, scores in self.scores.items():
            figures = ", ".join(f"{key} {value:.4f}" for key, value in scores.items())
            lines.append(f"{name}: {figures}")
        return "\n".join(lines)

    def __str__(self) -> str:
        tables = [format_rows(self.layers)]
        tables += [format_levels(self.levels)] if self.levels else []
        return "\n".join([*tables, self.headline])


def compress(
    model: keras.Model,
    recipe: Recipe | None = None,
    x=None,
    y=None,
    *,
    rate: float | None = None,
    constraints: dict[str, float | str] | None = None,
    validation_data=None,
    callbacks=None,
    teacher: Teacher | keras.Model | str | None = None,
    verbose: str | int = "auto",
    **fit,
) -> CompressResult:
    """Reweighted training, hard pruning, masked retraining, levels, stripping.

    First like filters come side by side (`arrange`), which changes the order of filters
    and nothing that the model computes. Each phase starts with a new optimizer and new
    metrics of the settings the model was compiled with, so that learning-rate schedules
    start over. Epochs count on from one phase to the next. The model is changed in
    place; with `Prunable` layers inside, the result holds a clone without them.

    Args:
        model: A compiled model, trained or not. A model that is not built yet is built
            from the first batch of `x`.
        recipe: What to prune, how far, for how long. Phases of 0 epochs are skipped.
            Default: `Recipe(rate=rate)`.
        x: As in `fit`: arrays, a `tf.data.Dataset`, a `PyDataset`, ...
        y: As in `fit`.
        rate: In place of a recipe: dense / kept weights over all pruned layers.
        constraints: In place of a rate, also of the recipe's: what the whole model may
            cost, such as `{"macs": "40%", "latency_ms": 3.0}`; see `Recipe`.
        validation_data: As in `fit`; also gives the scores of the result.
        callbacks: For both training phases, but callbacks that choose a model by a
            metric (`EarlyStopping`, `ModelCheckpoint` with `save_best_only`) act in the
            retraining alone: they choose among pruned models. `BackupAndRestore`
            resumes in the phase that was interrupted.
        teacher: A model whose outputs all training follows beside the labels (a
            `Teacher` says how much), or `"dense"` for this model as it comes.
        verbose: 0 silent, 1 or `"auto"` one progress bar over both phases and the
            result's headline, 2 Keras' own line per epoch.
        **fit: Passed to both `fit` calls, such as `batch_size`.

    Returns:
        A `CompressResult`; `print` it for a table of all layers.

    Raises:
        ValueError: The model is not compiled, the recipe does not fit, there is no
            data, or weights are not finite.
        TypeError: An argument that `fit` does not take.

    Example:

    >>> result = compress(model, Recipe(Rule("*", rate=8)), x, y, batch_size=128)
    >>> result = compress(model, rate=8, x=x, y=y)
    >>> result.model.save("pruned.keras")
    """
    started = time.perf_counter()
    recipe = _recipe(recipe, rate, constraints)
    check_compiled(model, "compress")
    check_fit_arguments(model, fit, "compress")
    for name in {"epochs", "initial_epoch"} & set(fit):
        raise ValueError(
            "compress: the recipe holds the epochs of each phase (reweighted_epochs, "
            f"retrain_epochs). Received: {name}={fit[name]}"
        )
    stages = _stages(recipe)
    phases, finished = {}, []
    for number, step in enumerate(recipe.steps):
        trains = step.method.trains
        phases[_named("reweighted", number)] = trains * step.reweighted_epochs
        phases[_named("retrain", number)] = step.retrain_epochs
        finished.append(_named("retrain", number))
    phases.update({stage.name: stage.epochs for stage in stages})
    finished += [stage.name for stage in stages if stage.shows_levels]
    if any(phases.values()):
        none = ", or a recipe with reweighted_epochs=0 and retrain_epochs=0"
        check_data(x, "compress", none)
    build_from_data(model, x, "compress")
    check_finite(model)
    teacher = teacher_of(model, teacher, "compress")
    train = functools.partial(reweighted_train, teacher=teacher)
    retrain = functools.partial(masked_retrain, teacher=teacher)
    # The recipe must fit before any time is spent, and anything is changed.
    for number, step in enumerate(recipe.steps):
        if phases[_named("reweighted", number)]:
            check_trainable(model, step)
        else:
            check_budget(resolve(model, step), step)
    if stages:
        resolve_levels(model, stages[-1].quantization)
    levels: list[LevelRow] = []
    run = PhaseRun(
        *(model, phases, (x, y), validation_data),
        *(callbacks, tuple(finished), verbose, fit),
    )
    with run:
        run.score("before", model)
        if recipe.arrange:
            arrange(model, recipe)
        for number, step in enumerate(recipe.steps):
            run.train(_named("reweighted", number), step, train)
            rows = hard_prune(model, step)
            if step.purify:
                rows = purify(model, step, importance=step.purify)
            costs = _costs(model, step)
            run.score("pruned", model)
            run.train(_named("retrain", number), step, retrain)
        if stages:
            run.score("retrained", model)
            levels = train_stages(run, model, stages, teacher)
        stripped, shrunk = strip(model), None
        if recipe.steps[-1].shrink:
            shrunk = shrink(stripped)
            stripped = shrunk.model
        run.score("after", stripped)
    result = CompressResult(
        *(stripped, rows, run.history, run.scores, recipe),
        seconds=time.perf_counter() - started,
        costs=costs,
        collapsed=run.collapsed,
        levels=levels,
        shrunk=shrunk,
    )
    run.finish(result.headline)
    return result


def _recipe(
    recipe: Recipe | None, rate: float | None, constraints: dict | None
) -> Recipe:
    if (rate is None) == (recipe is None and constraints is None):
        raise ValueError(
            "compress: expected a recipe or a rate, such as compress(model, rate=8, "
            "x=x, y=y), or constraints. Received: "
            f"recipe={recipe!r}, rate={rate!r}, constraints={constraints!r}"
        )
    if recipe is None:
        return Recipe(rate=rate, constraints=constraints)
    if not isinstance(recipe, Recipe):
        raise ValueError(
            "compress: `recipe` must be a tfrewprune.Recipe. Received: "
            f"{type(recipe).__name__}"
        )
    if constraints is None:
        return recipe
    if recipe.then is not None:
        raise ValueError(
            "compress: a recipe of several steps keeps its own rates. Give the last "
            f"step its `constraints`. Received: constraints={constraints!r}"
        )
    return recipe.replace(rate=None, threshold=None, constraints=constraints)


def _stages(recipe: Recipe) -> tuple[Stage, ...]:
    quantization = recipe.steps[-1].quantization
    return () if quantization is None else quantization.stages


def _named(phase: str, number: int) -> str:
    """The name of a phase of the first step of a recipe, or of a later one."""
    return f"{phase} {number + 1}" if number else phase


def _costs(model: keras.Model, recipe: Recipe) -> dict[str, dict[str, float]]:
    """What a pruned model comes to, by constraint."""
    if recipe.constraints is None:
        return {}
    budget = Budget.of(resolve(model, recipe), recipe)
    kept = {
        target.path_key: target.kept(target.structure.surviving_groups(target.kernel()))
        for target in budget.targets
    }
    return budget.report(kept)
