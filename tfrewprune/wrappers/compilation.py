# SPDX-License-Identifier: Apache-2.0
"""What a model was compiled with, to compile it or a clone of it afresh."""

from __future__ import annotations

import copy
from typing import Any

import keras

from tfrewprune.wrappers.steps import rebuild_steps, variable_scope


def compile_arguments(model: keras.Model) -> dict[str, Any] | None:
    """Arguments for `compile_with`, with the optimizer's present settings.

    None if the model is not compiled, or has a `compile` of its own whose arguments
    only it knows.
    """
    if not model.compiled or type(model).compile is not keras.Model.compile:
        return None
    # `get_compile_config` would serialize losses and metrics, which fails for
    # functions that are not registered; the live objects are all that is needed.
    arguments = dict(model._compile_config.config)
    arguments["optimizer"] = _Settings(model.optimizer)
    return arguments


def compile_with(model: keras.Model, arguments: dict[str, Any] | None) -> None:
    """Compiles with a new optimizer and new metrics of the same settings.

    With None the model keeps its optimizer and only traces its steps anew.
    """
    if arguments is None:
        rebuild_steps([model])
        return
    arguments = dict(arguments)
    with variable_scope(model):
        arguments["optimizer"] = arguments["optimizer"].renewed()
        for name in ("metrics", "weighted_metrics"):
            arguments[name] = keras.tree.map_structure(_fresh, arguments[name])
        model.compile(**arguments)


class _Settings:
    """An optimizer's settings at one moment, of any class that `fit` accepts.

    Not by `keras.optimizers.serialize`: it wants classes and schedules that are
    registered with Keras, and a schedule with a `get_config`.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._optimizer = optimizer
        self._inner: _Settings | None = None
        self._schedule = None
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            self._inner = _Settings(optimizer.inner_optimizer)
            self._config = {
                "name": optimizer.name,
                "initial_scale": optimizer.initial_scale,
                "dynamic_growth_steps": optimizer.dynamic_growth_steps,
            }
            return
        rate = optimizer._learning_rate
        if not isinstance(rate, keras.Variable):
            self._schedule = rate  # or a callable; neither has a state to copy
            optimizer._learning_rate = 0.0
        try:
            self._config = optimizer.get_config()
        finally:
            optimizer._learning_rate = rate

    def renewed(self) -> keras.optimizers.Optimizer:
        """A new optimizer of these settings.

        A class that cannot be built from its own `get_config` gives the optimizer
        itself, with its step count set back so that schedules start over.
        """
        config = copy.deepcopy(self._config)  # Keras takes entries out of it
        if self._inner is not None:
            return type(self._optimizer)(self._inner.renewed(), **config)
        if self._schedule is not None:
            config["learning_rate"] = self._schedule
        try:
            return type(self._optimizer).from_config(config)
        except (TypeError, ValueError):
            self._optimizer.iterations.assign(0)
            return self._optimizer


def _fresh(metric):
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return type(metric).from_config(metric.get_config())
    except Exception:  # without a full get_config; `fit` resets its state each epoch
        return metric
