# SPDX-License-Identifier: Apache-2.0
"""What a model was compiled with, to compile it or a clone of it afresh."""

from __future__ import annotations

from typing import Any

import keras

from tfrewprune.wrappers.attachment import reset_functions, variable_scope


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
    arguments["optimizer"] = keras.optimizers.serialize(model.optimizer)
    return arguments


def compile_with(model: keras.Model, arguments: dict[str, Any] | None) -> None:
    """Compiles with a new optimizer and new metrics of the same settings.

    With None the model keeps its optimizer and only traces its steps anew.
    """
    if arguments is None:
        reset_functions(model)
        return
    arguments = dict(arguments)
    with variable_scope(model):
        arguments["optimizer"] = keras.optimizers.deserialize(arguments["optimizer"])
        for name in ("metrics", "weighted_metrics"):
            arguments[name] = keras.tree.map_structure(_fresh, arguments[name])
        model.compile(**arguments)


def _fresh(metric):
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric
