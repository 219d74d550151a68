# SPDX-License-Identifier: Apache-2.0
"""How often a model calls its layers for one input, and with inputs of which shapes."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras

from tfrewprune.wrappers.graph import calls_of, is_functional

#: Shapes of a call's inputs, in the form of `get_build_config`, which knows those of
#: the first call alone; None where no graph tells them. `reverse` is there where a
#: `ReversibleEmbedding` multiplies by its table.
Shapes: TypeAlias = Mapping[str, Any] | None


class Calling(NamedTuple):
    """How a layer is called.

    Attributes:
        shapes: Of its inputs.
        times: How often so.
        batch: Inputs at once for one of the model: the steps of `TimeDistributed`.
    """

    shapes: Shapes
    times: int = 1
    batch: int = 1


#: Of a layer in no graph: once, with what it was built for.
UNKNOWN = (Calling(None),)

_WRAPPERS = (keras.layers.Wrapper, keras.layers.Bidirectional)


def layer_calls(model: keras.Layer) -> dict[int, tuple[Calling, ...]]:
    """The calls of every layer inside a model, by the layer's `id`.

    Functional models tell theirs, and those of functional models inside for the inputs
    that these get. What another layer or model calls is taken to be called once for
    each of its calls: with the same inputs in a wrapper, all steps at once in
    `TimeDistributed`, else with inputs of the shapes that it was built for.

    Args:
        model: A model or layer.
    """
    found: dict[int, list[Calling]] = defaultdict(list)

    def inside(layer: keras.Layer, given: Sequence[Any], call: Calling):
        if is_functional(layer):
            walk(layer, given or layer.inputs, call)
            return
        if isinstance(layer, keras.layers.TimeDistributed) and call.shapes is not None:
            whole, steps, *rest = call.shapes["input_shape"]
            # An open number of steps is at least one.
            steps, shapes = steps or 1, {"input_shape": (whole, *rest)}
            call = Calling(shapes, call.times, call.batch * steps)
        elif not isinstance(layer, _WRAPPERS):
            call = call._replace(shapes=None)
        for part in layer._flatten_layers(include_self=False, recursive=False):
            found[id(part)].append(call)
            inside(part, (), call)

    def walk(graph: keras.Model, inputs: Sequence[Any], around: Calling):
        known = {
            id(own): tensor
            for own, tensor in zip(graph.inputs, inputs, strict=False)
            if own.shape != tensor.shape
        }
        for call in calls_of(graph):
            args, kwargs, given = _with(known, (call.args, call.kwargs, call.inputs))
            layer = call.operation
            if isinstance(layer, keras.Layer):
                calling = around._replace(shapes=_shapes(layer, args, kwargs))
                found[id(layer)].append(calling)
                inside(layer, given, calling)
            if any(id(tensor) in known for tensor in call.inputs):
                outputs = keras.tree.flatten(layer.compute_output_spec(*args, **kwargs))
                known |= zip(map(id, call.outputs), outputs, strict=True)

    inside(model, (), Calling(None))
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
