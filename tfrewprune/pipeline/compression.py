# SPDX-License-Identifier: Apache-2.0
"""All training stages in one call."""

from __future__ import annotations

import dataclasses
import time

import keras

from tfrewprune.pipeline.progress import Progress
from tfrewprune.pipeline.prune import hard_prune
from tfrewprune.pipeline.summary import LayerRow, format_rows, total_rate
from tfrewprune.pipeline.train import check_compiled, masked_retrain, reweighted_train
from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.cloning import strip
from tfrewprune.wrappers.compilation import compile_arguments, compile_with
from tfrewprune.wrappers.targets import resolve


@dataclasses.dataclass(frozen=True)
class CompressResult:
    """What `compress` did.

    Attributes:
        model: The pruned plain model, ready to save or convert.
        layers: One `LayerRow` a layer.
        history: Logs a phase and epoch: `{"reweighted": {"loss": [...], ...},
            "retrain": {...}}`.
        scores: Validation results of the model `"before"`, `"pruned"` (before
            retraining) and `"after"`; empty without validation data.
        recipe: The recipe that was followed.
        seconds: Wall time.
    """

    model: keras.Model
    layers: list[LayerRow]
    history: dict[str, dict[str, list[float]]]
    scores: dict[str, dict[str, float]]
    recipe: Recipe
    seconds: float

    @property
    def rate(self) -> float:
        """Dense / kept weights over all kernels, those left dense included."""
        return total_rate(self.layers)

    def to_dict(self) -> dict:
        """JSON-serializable; without the model."""
        return {
            "rate": self.rate,
            "layers": [row.to_dict() for row in self.layers],
            "history": self.history,
            "scores": self.scores,
            "recipe": self.recipe.get_config(),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [
            format_rows(self.layers),
            f"all kernels: {self.rate:.2f}x fewer weights",
        ]
        for name, scores in self.scores.items():
            figures = ", ".join(f"{key} {value:.4f}" for key, value in scores.items())
            lines.append(f"{name}: {figures}")
        return "\n".join(lines)


def compress(
    model: keras.Model,
    recipe: Recipe,
    x=None,
    y=None,
    *,
    validation_data=None,
    callbacks=None,
    verbose: str | int = "auto",
    **fit,
) -> CompressResult:
    """Reweighted training, hard pruning, masked retraining, stripping.

    Each phase starts with a new optimizer and new metrics of the settings the model
    was compiled with, so that learning-rate schedules start over. The model is changed
    in place; with `Prunable` layers inside, the result holds a clone without them.

    Args:
        model: A compiled model, trained or not. A model that is not built yet is built
            from the first batch of `x`.
        recipe: What to prune, how far, for how long. Phases of 0 epochs are skipped.
        x: As in `fit`: arrays, a `tf.data.Dataset`, a `PyDataset`, ...
        y: As in `fit`.
        validation_data: As in `fit`; also gives the scores of the result.
        callbacks: For both training phases.
        verbose: 0 silent, 1 or `"auto"` one progress bar over both phases, 2 Keras' own
            line per epoch.
        **fit: Passed to both `fit` calls, such as `batch_size`.

    Returns:
        A `CompressResult`.

    Raises:
        ValueError: The model is not compiled, the recipe does not fit, or weights are
            not finite.

    Example:

    >>> result = compress(model, Recipe(Rule("*", rate=8)), x, y, batch_size=128)
    >>> print(result)
    >>> result.model.save("pruned.keras")
    """
    started = time.perf_counter()
    check_compiled(model, "compress")
    if "epochs" in fit:
        raise ValueError(
            "compress: the recipe holds the epochs of each phase (reweighted_epochs, "
            f"retrain_epochs). Received: epochs={fit['epochs']}"
        )
    build_from_data(model, x)
    arguments = compile_arguments(model)
    scores = _Scores(validation_data, fit)
    phases = {
        "reweighted": recipe.reweighted_epochs if recipe.method.penalized else 0,
        "retrain": recipe.retrain_epochs,
    }
    history: dict[str, dict[str, list[float]]] = {}
    resolve(model, recipe)  # the recipe must fit before any time is spent
    with Progress(phases, verbose) as progress:
        fit.update(validation_data=validation_data, verbose=progress.fit_verbose)

        def train(phase: str, run) -> None:
            if phases[phase]:
                compile_with(model, arguments)
                watchers = [*(callbacks or []), *progress.phase(phase)]
                history[phase] = run(model, recipe, x, y, watchers, **fit).history

        scores("before", model)
        train("reweighted", reweighted_train)
        rows = hard_prune(model, recipe)
        scores("pruned", model)
        train("retrain", masked_retrain)
        stripped = strip(model)
        scores("after", stripped)
    result = CompressResult(
        stripped, rows, history, scores.found, recipe, time.perf_counter() - started
    )
    progress.finish(str(result))
    return result


def build_from_data(model: keras.Model, x) -> None:
    """Builds an unbuilt model by calling it on the first example of `x`.

    Raises:
        ValueError: The first batch cannot be looked at without consuming it.
    """
    unbuilt = [layer.name for layer in model._flatten_layers() if not layer.built]
    if not unbuilt:
        return
    if isinstance(x, keras.utils.PyDataset):
        batch = x[0]
    elif hasattr(x, "element_spec") or hasattr(x, "dataset"):  # tf.data, torch loader
        batch = next(iter(x))
    elif hasattr(x, "__next__") or x is None:
        raise ValueError(
            f"compress: layers {unbuilt} are not built, and a generator cannot be "
            "looked at without consuming it. Call the model on one batch first."
        )
    else:
        batch = (x,)
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    model(keras.tree.map_structure(lambda array: array[:1], inputs))


class _Scores:
    """Validation results under a name each; stays empty without validation data."""

    def __init__(self, validation_data, fit: dict):
        self.found: dict[str, dict[str, float]] = {}
        self._data = validation_data
        self._options = {
            "batch_size": fit.get("validation_batch_size") or fit.get("batch_size"),
            "steps": fit.get("validation_steps"),
        }

    def __call__(self, name: str, model: keras.Model) -> None:
        if self._data is None:
            return
        if isinstance(self._data, tuple | list):
            x, y, weights = (*self._data, None, None)[:3]
            data = {"x": x, "y": y, "sample_weight": weights}
        else:
            data = {"x": self._data}
        results = model.evaluate(verbose=0, return_dict=True, **data, **self._options)
        self.found[name] = {key: float(value) for key, value in results.items()}
