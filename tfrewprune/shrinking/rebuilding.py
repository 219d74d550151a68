# SPDX-License-Identifier: Apache-2.0
"""The smaller model: the same layers with fewer channels, called alike."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfrewprune.shrinking.passages import Narrow, Passage, Plus
from tfrewprune.shrinking.selection import Selection
from tfrewprune.wrappers.copying import NotCopied, layer_like


def reached(model: keras.Model, passages: list[Passage]) -> list[Passage]:
    """The calls that the outputs of the model are still computed from."""
    needed = {id(tensor) for tensor in model.outputs}
    left = []
    for passage in reversed(passages):
        if needed & {id(tensor) for tensor in passage.call.outputs}:
            left.append(passage)
            needed.update(id(tensor) for tensor in passage.sources)
    return left[::-1]


def rebuilt(
    model: keras.Model,
    passages: list[Passage],
    selection: Selection,
    inside: dict[int, keras.Model],
    keep_shapes: bool = False,
) -> keras.Model:
    """A model of new layers; the given one is left as it is.

    Layers that cannot be copied, which stay as they are anyway, are part of both.

    Args:
        model: A built functional or Sequential model.
        passages: Its calls that are left.
        selection: The channels that stay.
        inside: New models for those inside, by `id`.
        keep_shapes: Set weights of channels that go to zero in place of removing them.
    """
    narrow: dict[int, Narrow | None] = {}
    layers: dict[int, keras.Operation] = {}
    for passage in passages:
        operation = passage.layer
        if id(operation) in layers:
            continue
        found = None
        if passage.reason is None:
            change = passage.emptied if keep_shapes else passage.narrowed
            found = change(selection.kept)
        narrow[id(operation)] = found
        if id(operation) in inside:
            layers[id(operation)] = inside[id(operation)]
        else:
            layers[id(operation)] = _new(operation, None if found is None else found[0])
    smaller = _composed(model, passages, layers, selection)
    for passage in passages:
        operation = passage.layer
        if id(operation) in inside or not isinstance(operation, keras.Layer):
            continue
        found, new = narrow[id(operation)], layers[id(operation)]
        if new is operation:
            continue
        weights = operation.get_weights() if found is None else found[1]
        new.set_weights([np.asarray(array) for array in weights])
        new.trainable = operation.trainable
    return smaller


def _new(operation: keras.Operation, config: dict[str, Any] | None) -> keras.Operation:
    try:
        return layer_like(operation, config)
    except NotCopied:
        return operation


def _composed(
    model: keras.Model,
    passages: list[Passage],
    layers: dict[int, keras.Operation],
    selection: Selection,
) -> keras.Model:
    """Calls the new layers as the old ones were."""
    if isinstance(model, keras.Sequential):
        (given,) = model.inputs
        new = keras.Input(batch_shape=given.shape, dtype=given.dtype, name=given.name)
        chain = [layers[id(passage.layer)] for passage in passages]
        return keras.Sequential([new, *chain], name=model.name)
    tensors = {
        id(tensor): keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name
        )
        for tensor in model.inputs
    }

    def new_of(tensor):
        known = isinstance(tensor, keras.KerasTensor)
        return tensors[id(tensor)] if known else tensor

    for passage in passages:
        call = passage.call
        if isinstance(passage, Plus):
            (source,) = passage.sources
            offset = passage.offset[selection.kept(passage.outputs[0])]
            name = passage.layer.name
            tensors[id(call.outputs[0])] = _plus(tensors[id(source)], offset, name)
            continue
        args, kwargs = keras.tree.map_structure(new_of, (call.args, call.kwargs))
        results = layers[id(passage.layer)](*args, **kwargs)
        for old, result in zip(call.outputs, keras.tree.flatten(results), strict=True):
            tensors[id(old)] = result
    inputs, outputs = keras.tree.map_structure(new_of, (model.input, model.output))
    return keras.Model(inputs, outputs, name=model.name)


def _plus(tensor: keras.KerasTensor, offset: np.ndarray, name: str):
    if not offset.any():
        return tensor
    return keras.layers.Rescaling(1.0, offset=offset.tolist(), name=name)(tensor)
