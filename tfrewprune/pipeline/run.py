# SPDX-License-Identifier: Apache-2.0
"""Phases of training one after the other, as one run."""

from __future__ import annotations

from typing import Any

import keras

from tfrewprune.pipeline.phases import PhaseCallbacks
from tfrewprune.pipeline.progress import Progress
from tfrewprune.wrappers.compilation import compile_arguments, compile_with


class PhaseRun:
    """Context manager that trains phases, each with a new optimizer; epochs count on.

    Args:
        model: A compiled model.
        phases: Epochs of each phase by name, in order.
        data: (x, y) as in `fit`.
        validation_data: As in `fit`; also gives the scores.
        callbacks: The user's, see `PhaseCallbacks`.
        finished: Names of the phases all of whose models are finished ones.
        verbose: See `Progress`.
        fit: Further arguments of `fit`.

    Attributes:
        history: Logs of every phase that trained, by epoch.
        scores: Validation results by name.
        collapsed: Layers that lost everything, by epoch.
    """

    def __init__(
        self,
        model: keras.Model,
        phases: dict[str, int],
        data: tuple[Any, Any],
        validation_data,
        callbacks,
        finished: tuple[str, ...],
        verbose: str | int,
        fit: dict[str, Any],
    ):
        self.history: dict[str, dict[str, list[float]]] = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.collapsed: dict[str, int] = {}
        self._model, self._phases, self._data = model, phases, data
        self._validation_data, self._options = validation_data, dict(fit)
        self._arguments = compile_arguments(model)
        trained = [name for name, epochs in phases.items() if epochs]
        self._callbacks = PhaseCallbacks(callbacks, trained, finished)
        self._progress = Progress(phases, verbose)
        self._fit = {
            **fit,
            "validation_data": validation_data,
            "verbose": self._progress.fit_verbose,
        }
        self._epoch = 0

    def __enter__(self):
        self._progress.__enter__()
        return self

    def __exit__(self, *exception):
        self._progress.__exit__(*exception)
        self._callbacks.release()

    def train(self, phase: str, step: Any, run) -> None:
        """Trains a phase, unless it has no epochs.

        Args:
            phase: Its name.
            step: What `run` takes as its second argument.
            run: Such as `reweighted_train`.
        """
        epochs = self._phases[phase]
        if not epochs:
            return
        compile_with(self._model, self._arguments)
        watchers = [*self._callbacks.of(phase), *self._progress.phase(phase)]
        span = {"first_epoch": self._epoch, "epochs": self._epoch + epochs}
        done = run(self._model, step, *self._data, watchers, **span, **self._fit)
        self._epoch += epochs
        self.collapsed.update(getattr(done, "collapsed", {}))
        if done.epoch:  # none are left where a run goes on after this phase
            self.history[phase] = done.history

    def score(self, name: str, model: keras.Model) -> None:
        """Notes what a model scores on the validation data, if there are any."""
        if self._validation_data is not None:
            data = self._validation_data
            self.scores[name] = evaluate(model, data, self._options)

    def finish(self, headline: str) -> None:
        """Deletes what a run that goes on would need, and prints the closing report."""
        self._callbacks.finish()
        self._progress.finish(headline)


def build_from_data(model: keras.Model, x, caller: str) -> None:
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
            f"{caller}: layers {unbuilt} are not built, and a generator cannot be "
            "looked at without consuming it. Call the model on one batch first."
        )
    else:
        batch = (x,)
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    model(keras.tree.map_structure(lambda array: array[:1], inputs))


def evaluate(model: keras.Model, validation_data, fit: dict) -> dict[str, float]:
    """Validation results by name.

    Args:
        model: A compiled model.
        validation_data: As in `fit`.
        fit: Arguments of `fit`, for batch size and steps.
    """
    if isinstance(validation_data, tuple | list):
        x, y, weights = (*validation_data, None, None)[:3]
        data = {"x": x, "y": y, "sample_weight": weights}
    else:
        data = {"x": validation_data}
    batch = fit.get("validation_batch_size") or fit.get("batch_size")
    options = {"batch_size": batch, "steps": fit.get("validation_steps")}
    results = model.evaluate(verbose=0, return_dict=True, **data, **options)
    return {key: float(value) for key, value in results.items()}
