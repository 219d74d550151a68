# SPDX-License-Identifier: Apache-2.0
"""The most a model can lose: a search that survives interruption."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import keras

from tfrewprune.constraints import CONSTRAINTS
from tfrewprune.pipeline.compression import CompressResult, compress
from tfrewprune.pipeline.run import evaluate
from tfrewprune.pipeline.train import check_compiled, check_fit_arguments
from tfrewprune.recipe import Infeasible, Recipe
from tfrewprune.wrappers.attachment import release
from tfrewprune.wrappers.compilation import compile_arguments, compile_with

#: Metrics of which less is better, by a part of their name.
FALLING = ("loss", "error", "mae", "mse", "rmse", "perplexity", "entropy")

#: Ratio within which two rates are the same: groups are not divisible.
SAME = 1.05


@dataclasses.dataclass(frozen=True)
class Trial:
    """One compression.

    Attributes:
        rate: Dense / pruned that was asked for, of what was searched.
        reached: What the model came to: less where structures or the recipe's
            `minimum_groups` end first; None if the rate cannot be reached at all.
        score: The validation metric; None as well.
        lost: How far that is from dense, as `within` counts.
        within: Whether it is near enough.
        collapsed: Layers that lost everything on the way, by epoch.
        refused: Why the rate cannot be reached; None if it can.
    """

    rate: float
    reached: float | None
    score: float | None
    lost: float | None
    within: bool
    collapsed: dict[str, int]
    refused: str | None = None


@dataclasses.dataclass(frozen=True)
class RateSearch:
    """What `largest_rate` found.

    Attributes:
        model: The model at the rate found; dense if there is none.
        rate: The largest rate reached that was within; 1 if there is none.
        metric: Name of the validation metric.
        dense: Its value before pruning.
        trials: In the order they were made.
    """

    model: keras.Model
    rate: float
    metric: str
    dense: float
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        lines = [f"{self.rate:.3g}x is the most; {self.metric} {self.dense:.4f} dense"]
        refused = None
        for trial in self.trials:
            if trial.score is None:
                lines.append(f"{trial.rate:.3g}x: cannot be reached")
                refused = trial
                continue
            verdict = "within" if trial.within else "too far"
            line = f"{trial.rate:.3g}x: {trial.score:.4f}, {trial.lost:.2f} lost: "
            less = trial.reached < trial.rate / SAME
            at = f" (at {trial.reached:.3g}x, what was reached)" if less else ""
            lines.append(line + verdict + at)
            for layer, epoch in trial.collapsed.items():
                lines.append(f"  {layer} collapsed in epoch {epoch}")
        if refused is not None and refused.refused is not None:
            lines.append(f"{refused.rate:.3g}x was refused: {refused.refused}")
        return "\n".join(lines)


def largest_rate(
    model: keras.Model,
    recipe: Recipe | None = None,
    x=None,
    y=None,
    *,
    within: float,
    validation_data,
    metric: str | None = None,
    of: str = "rate",
    first: float = 4.0,
    highest: float = 512.0,
    precision: float = 1.15,
    state: str | os.PathLike[str] | None = None,
    **fit: Any,
) -> RateSearch:
    """Finds the highest rate at which a validation metric stays near the dense model's.

    Each trial compresses the dense model anew. The rate doubles from `first` (or
    halves) until one is within and one is not, or nothing more goes, then the ratio
    between the two is halved until it is at most `precision`. A search that is
    interrupted, or fails, leaves the dense model.

    Args:
        model: A compiled, trained model. It ends as the best one found.
        recipe: Everything but the rate; default `Recipe()`.
        x: As in `compress`.
        y: As in `compress`.
        within: What may be lost. Of a metric that should rise (accuracy) in points,
            hundredths: 0.5 allows 98.5 % where dense has 99.0 %. Of one that should
            fall (a loss, an error) in percent of the dense value.
        validation_data: As in `fit`. What is chosen here must be reported on other
            data.
        metric: A name from `evaluate`; default the first metric, else the loss.
        of: What the rate is of: `"rate"`, the weights of the pruned layers, or one of
            the model's `"weights"`, `"macs"`, `"bytes"`, `"latency_ms"`: the lowest
            latency, say.
        first: Rate of the first trial.
        highest: No trial goes further.
        precision: Ratio of the two last rates, above 1.
        state: Folder that keeps trials and the best weights, so that a search that was
            interrupted goes on when it is called again, within a trial too.
        **fit: As in `compress`, such as `batch_size` or `callbacks`.

    Raises:
        ValueError: Impossible arguments, a recipe whose rules all have rates of their
            own, or a state folder of another search.
        TypeError: An argument that `compress` does not take.

    Example:

    >>> found = largest_rate(model, x=x, y=y, within=0.5, validation_data=(x_v, y_v))
    >>> print(found)
    """
    check_compiled(model, "largest_rate")
    ours = {name: value for name, value in fit.items() if name != "teacher"}
    check_fit_arguments(model, ours, "largest_rate")
    _check(within, of, first, highest, precision, validation_data)
    recipe = Recipe(rate=first) if recipe is None else recipe
    _check_recipe(recipe)
    arguments, weights = compile_arguments(model), model.get_weights()
    scores = evaluate(model, validation_data, fit)
    metric = _metric(scores, metric)
    dense = scores[metric]
    search = {
        "recipe": _at(recipe, of, first).get_config(),
        **{"of": of, "within": within, "metric": metric, "first": first},
    }
    book = _Book(state, search, dense)
    bounds = [1.0, math.inf]  # the largest within, the smallest that is not
    reached, best = 1.0, None

    def dense_again() -> None:
        release(model)
        model.set_weights(weights)
        compile_with(model, arguments)

    try:
        while (rate := _next(bounds, first, highest, precision)) is not None:
            trial = book.find(rate)
            if trial is None:
                dense_again()
                options = {**fit, "validation_data": validation_data}
                watchers = [*(fit.get("callbacks") or []), *book.backup(rate)]
                options["callbacks"] = watchers
                try:
                    result = compress(model, _at(recipe, of, rate), x, y, **options)
                except Infeasible as error:
                    trial = Trial(rate, None, None, None, False, {}, str(error))
                else:
                    trial = _trial(result, of, rate, dense, metric, within)
                    if trial.within:
                        best = book.keep(result.model)
                book.add(trial)
            bounds[0 if trial.within else 1] = rate
            if trial.within:
                before, reached = reached, trial.reached
                doubled = rate > first and bounds[1] == math.inf
                if doubled and reached <= before * SAME:
                    break  # nothing more goes, whatever is asked for
        best = best if best is not None else book.best(model)
    finally:
        dense_again()
    if best is not None:
        model.set_weights(best)
    return RateSearch(model, reached, metric, dense, tuple(book.trials))


def _trial(
    result: CompressResult,
    of: str,
    rate: float,
    dense: float,
    metric: str,
    within: float,
) -> Trial:
    reached = result.pruned_rate
    if of != "rate":
        cost = result.costs[of]
        reached = rate * cost["limit"] / max(cost["reached"], 1e-12)
    score = result.scores["after"][metric]
    lost = _lost(score, dense, metric)
    # Shares of few examples are not exact in binary.
    near = lost <= within + 1e-6
    return Trial(rate, reached, score, lost, near, result.collapsed)


def _next(bounds: list[float], first: float, highest: float, precision: float):
    """The next rate to try; None when the bounds are near enough."""
    low, high = bounds
    if high == math.inf:
        if low >= highest:
            return None
        return first if low == 1 else min(2 * low, highest)
    if high / low <= precision:
        return None
    return high / 2 if low == 1 and high > 4 else math.sqrt(low * high)


def _check_recipe(recipe: Recipe) -> None:
    if recipe.then is not None:
        raise ValueError(
            "largest_rate: expected a recipe of one step, whose rate can be searched. "
            f"Received: {len(recipe.steps)} steps"
        )
    if recipe.shrink:
        raise ValueError(
            "largest_rate: expected a recipe without `shrink`: trials start from the "
            "same weights. Call tfrewprune.shrink on the model it finds."
        )
    pruning = [rule for rule in recipe.rules if not rule.skip]
    if all(rule.rate is not None for rule in pruning):
        rates = ", ".join(f"{rule.match!r}: {rule.rate:g}" for rule in pruning)
        raise ValueError(
            "largest_rate: expected a rule without a `rate` of its own, whose rate can "
            f"be searched. Received: {rates}"
        )


def _at(recipe: Recipe, of: str, rate: float) -> Recipe:
    if of == "rate":
        # A first cut is no further than the last.
        start = min(recipe.start_rate, rate)
        return recipe.replace(
            rate=rate, start_rate=start, threshold=None, constraints=None
        )
    share = f"{100 / rate:.6g}%"
    return recipe.replace(rate=None, threshold=None, constraints={of: share})


def _lost(score: float, dense: float, metric: str) -> float:
    """How much worse than dense, as `within` counts."""
    if any(part in metric.lower() for part in FALLING):
        return 100 * (score - dense) / max(abs(dense), 1e-12)
    return 100 * (dense - score)


def _metric(scores: dict[str, float], asked: str | None) -> str:
    if asked is not None and asked not in scores:
        raise ValueError(
            f"Unknown metric {asked!r}. Expected one of {sorted(scores)}, what "
            "model.evaluate gives."
        )
    return asked or next((name for name in scores if name != "loss"), "loss")


def _check(within, of, first, highest, precision, validation_data) -> None:
    if of != "rate" and of not in CONSTRAINTS:
        raise ValueError(
            f"Argument `of` must be 'rate' or one of {CONSTRAINTS}. Received: of={of!r}"
        )
    if validation_data is None:
        raise ValueError("largest_rate: expected validation_data. Received: None")
    if not (within >= 0 and precision > 1 and 1 < first <= highest):
        raise ValueError(
            "largest_rate: expected within >= 0, precision > 1 and 1 < first <= "
            f"highest. Received: within={within}, precision={precision}, "
            f"first={first}, highest={highest}"
        )


class _Book:
    """Trials on disk: written whole after each, read when a search is called again."""

    def __init__(self, folder, search: dict[str, Any], dense: float):
        self.folder = None if folder is None else Path(folder)
        self.trials: list[Trial] = []
        self._head = {"search": json.loads(json.dumps(search)), "dense": dense}
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            saved = json.loads(self._path.read_text())
            near = math.isclose(saved["dense"], dense, rel_tol=1e-3, abs_tol=1e-4)
            if saved["search"] != self._head["search"] or not near:
                raise ValueError(
                    f"The folder {str(self.folder)!r} holds another search (another "
                    "recipe, model or validation data). Give an empty folder."
                )
            self.trials = [Trial(**trial) for trial in saved["trials"]]
        else:
            self._write()

    @property
    def _path(self) -> Path:
        return self.folder / "search.json"

    def find(self, rate: float) -> Trial | None:
        """The trial of a rate, if it was made."""
        return next((t for t in self.trials if math.isclose(t.rate, rate)), None)

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)
        if self.folder is not None:
            self._write()
            shutil.rmtree(self.folder / "running", ignore_errors=True)

    def _write(self) -> None:
        document = {
            **self._head,
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
        }
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(document, indent=2) + "\n")
        os.replace(new, self._path)

    def keep(self, model: keras.Model) -> list:
        """The model's weights, on disk too."""
        if self.folder is not None:
            new = self.folder / "new.weights.h5"
            model.save_weights(new)
            os.replace(new, self.folder / "best.weights.h5")
        return model.get_weights()

    def best(self, model: keras.Model) -> list | None:
        """The weights that `keep` wrote in an earlier call."""
        if self.folder is None or not any(trial.within for trial in self.trials):
            return None
        model.load_weights(self.folder / "best.weights.h5")
        return model.get_weights()

    def backup(self, rate: float) -> list[keras.callbacks.Callback]:
        """What lets a trial go on where it was interrupted."""
        if self.folder is None:
            return []
        folder = self.folder / "running" / f"{rate:.6g}"
        return [keras.callbacks.BackupAndRestore(str(folder))]
