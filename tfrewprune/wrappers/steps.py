# SPDX-License-Identifier: Apache-2.0
"""The compiled training steps that hold a layer, and how they are made to see a change.

Penalty and mask are variables that a step reads, so a change of their values needs
nothing here. What a step cannot see is a penalty or mask that was not there when it
was traced, and on JAX a mask, because Keras passes constraints nothing but the
optimizer's own variables.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable

import keras


def holders(layers: Iterable[keras.Layer]) -> list[keras.Model]:
    """Every live model that has one of the layers somewhere inside.

    An autoencoder holds its encoder, but Keras keeps no way back from a layer to the
    models it is part of: the garbage collector knows all of them.
    """
    wanted = {id(layer) for layer in layers}
    found = []
    if not wanted:  # looking at all objects takes a fifth of a second
        return found
    for candidate in gc.get_objects():
        # type(), as isinstance() asks proxies of other libraries for their __class__.
        if issubclass(type(candidate), keras.Model):
            if any(id(part) in wanted for part in candidate._flatten_layers()):
                found.append(candidate)
    return found


def rebuild_steps(layers: Iterable[keras.Layer]) -> None:
    """Makes all models that hold one of the layers trace their steps anew.

    Also in the middle of `fit`, where the next batch runs the new step.
    """
    for model in holders(layers):
        for name in ("train", "test"):
            if getattr(model, f"{name}_function", None) is not None:
                getattr(model, f"make_{name}_function")(force=True)


def synchronize(layers: Iterable[keras.Layer]) -> None:
    """Brings weights back that a running `fit` on JAX holds outside the variables."""
    if keras.backend.backend() == "jax":
        for model in holders(layers):
            model.jax_state_sync()


def variable_scope(model: keras.Model) -> contextlib.AbstractContextManager:
    """Context in which variables are created that the model's step reads."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()
