# SPDX-License-Identifier: Apache-2.0
"""How often a model calls its layers for one input, and with inputs of which shapes."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras

from tfrewprune.wrappers.graph import calls_of, is_functional

#: Shapes of a call's inputs, in the form of `get_build_config`, which knows those of
#: the first call alone; None where no graph tells them. `reverse` is there where a
#: `ReversibleEmbedding` multiplies by its table.
Shapes: TypeAlias = Mapping[str, Any] | None

#: Calls of a layer: their shapes, and how often with these.
Calls: TypeAlias = tuple[tuple[Shapes, int], ...]

#: Of a layer in no graph: one, with what it was built for.
UNKNOWN: Calls = ((None, 1),)

_WRAPPERS = (keras.layers.Wrapper, keras.layers.Bidirectional)


def layer_calls(model: keras.Layer) -> dict[int, Calls]:
    """The calls of every layer inside a model, by the layer's `id`.

    Functional models tell theirs, and those of functional models inside for the inputs
    that these get. What another layer or model calls is taken to be called once for
    each of its calls: with the same inputs in a wrapper, once a step in
    `TimeDistributed`, else with inputs of the shapes that it was built for.

    Args:
        model: A model or layer.
    """
    found: dict[int, list[tuple[Shapes, int]]] = defaultdict(list)

    def inside(layer: keras.Layer, given: Sequence[Any], shapes: Shapes, times: int):
        if is_functional(layer):
            walk(layer, given or layer.inputs, times)
            return
        if isinstance(layer, keras.layers.TimeDistributed) and shapes is not None:
            batch, steps, *rest = shapes["input_shape"]
            # An open number of steps is at least one.
            shapes, times = {"input_shape": (batch, *rest)}, times * (steps or 1)
        elif not isinstance(layer, _WRAPPERS):
            shapes = None
        for part in layer._flatten_layers(include_self=False, recursive=False):
            found[id(part)].append((shapes, times))
            inside(part, (), shapes, times)

    def walk(graph: keras.Model, inputs: Sequence[Any], times: int):
        known = {
            id(own): tensor
            for own, tensor in zip(graph.inputs, inputs, strict=False)
            if own.shape != tensor.shape
        }
        for call in calls_of(graph):
            args, kwargs, given = _with(known, (call.args, call.kwargs, call.inputs))
            layer = call.operation
            if isinstance(layer, keras.Layer):
                shapes = _shapes(layer, args, kwargs)
                found[id(layer)].append((shapes, times))
                inside(layer, given, shapes, times)
            if any(id(tensor) in known for tensor in call.inputs):
                outputs = keras.tree.flatten(layer.compute_output_spec(*args, **kwargs))
                known |= zip(map(id, call.outputs), outputs, strict=True)

    inside(model, (), None, 1)
    return {key: tuple(calls) for key, calls in found.items()}


def _with(known: Mapping[int, Any], structure: Any) -> Any:
    """A structure with the tensors that are known in place of the graph's."""
    return keras.tree.map_structure(lambda leaf: known.get(id(leaf), leaf), structure)


def _shapes(layer: keras.Layer, args: Sequence[Any], kwargs: Mapping) -> Shapes:
    """What the layer would have recorded, had it been built by this call."""
    named = dict(zip(inspect.signature(layer.call).parameters, args, strict=False))
    named |= kwargs
    shapes = {
        f"{name}_shape": tuple(value.shape)
        for name, value in named.items()
        if isinstance(value, keras.KerasTensor)
    }
    if not shapes:
        return None
    if "shapes_dict" in (layer.get_build_config() or {}):
        return {"shapes_dict": shapes}
    found = {"input_shape": next(iter(shapes.values()))}
    return found | {"reverse": True} if named.get("reverse") else found
