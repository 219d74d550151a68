# SPDX-License-Identifier: Apache-2.0
"""The calls that a functional model is made of, in the order of execution."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer, or of an operator such as the `+` of `a + b`.

    Attributes:
        operation: The layer or operator.
        args: Its arguments, symbolic tensors among them.
        kwargs: Its keyword arguments.
        inputs: The symbolic tensors in both, in order.
        outputs: The symbolic tensors that it gives.
        times: How often the model calls that operation, or others with its weights:
            a model inside, a wrapper, a layer that shares them.
    """

    operation: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    times: int


def is_functional(model: keras.Layer) -> bool:
    """Whether a model's graph tells all that its `call` does."""
    functional = keras.src.models.Functional
    if isinstance(model, keras.Sequential):
        # Without a graph where a layer does not tell its output shape.
        traced = model._functional is not None
        return traced and type(model).call is keras.Sequential.call
    return isinstance(model, functional) and type(model).call is functional.call


def calls_of(model: keras.Model) -> list[Call]:
    """Every call between the inputs and the outputs of a built functional model."""
    nodes, seen = [], set()
    given = {id(tensor) for tensor in model.inputs}
    # Depth first without recursion: models are deeper than Python's stack.
    stack = [(tensor, False) for tensor in reversed(model.outputs)]
    while stack:
        tensor, ready = stack.pop()
        if id(tensor) in given:
            continue
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if ready:
            nodes.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((tensor, True))
            stack += [(source, False) for source in reversed(node.input_tensors)]
    times = Counter(key for node in nodes for key in _identity(node.operation))
    return [
        Call(
            node.operation,
            tuple(node.arguments.args),
            dict(node.arguments.kwargs),
            tuple(node.input_tensors),
            tuple(node.outputs),
            max(times[key] for key in _identity(node.operation)),
        )
        for node in nodes
    ]


def _identity(operation: keras.Operation) -> list[int]:
    """The `id`s of an operation and of its weights."""
    return [id(operation), *map(id, getattr(operation, "weights", ()))]
