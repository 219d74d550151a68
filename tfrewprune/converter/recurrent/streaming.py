# SPDX-License-Identifier: Apache-2.0
"""Makes the states of recurrent layers inputs and outputs of a model.

Fed back from call to call, they let a model take a sequence in pieces of any length.
Which input belongs to which output is kept as JSON in the metadata of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter import options
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    Model,
    count_readers,
    index_list,
    tensor_shape,
    tensor_signature,
    text,
)
from tfrewprune.converter.metadata import damaged, read_metadata, write_metadata

_METADATA = "tfrewprune.states"
_STATES = 7  # the input of a packed recurrent operator that is its first state


def expose_states(model: Model) -> None:
    """Changes a packed model so that its recurrent states go in and out.

    Inputs are named after the layer, `gru/state` and `lstm/cell_state`, and outputs
    likewise, ending in `_out`. States that are inputs and outputs already stay as they
    are.

    Raises:
        ConversionError: If there is no packed recurrent layer, one goes backwards, or
            several ways lead into the model.
    """
    if len(model.tree.signatureDefs or ()) > 1:
        raise ConversionError(
            "a streaming model must have one signature, received "
            f"{len(model.tree.signatureDefs)}"
        )
    pairs: list[tuple[int, int]] = []
    for index, subgraph in enumerate(model.subgraphs):
        for operator in subgraph.operators or ():
            name = model.custom_code(operator)
            if name not in options.RECURRENT:
                continue
            if index != 0:
                raise ConversionError(
                    "a streaming model must have its recurrent layers in its main "
                    f"graph, received one in subgraph {index}"
                )
            pairs += _expose(model, subgraph, operator, name)
    if not pairs:
        raise ConversionError(
            "a streaming model needs a packed GRU, LSTM or RNN layer, received none"
        )
    tensors = model.subgraphs[0].tensors
    named = [[text(tensors[i].name) for i in pair] for pair in pairs]
    write_metadata(model, _METADATA, named)


def state_names(model: Model) -> list[tuple[str, str]]:
    """Returns names of state inputs with those of their outputs; none mostly.

    Raises:
        ConversionError: If the metadata is damaged.
    """
    try:
        found = read_metadata(model, _METADATA) or ()
        return [(str(before), str(after)) for before, after in found]
    except (ValueError, TypeError) as error:
        raise damaged(_METADATA, error) from error


def _expose(
    model: Model, subgraph: schema.SubGraphT, operator: schema.OperatorT, name: str
) -> list[tuple[int, int]]:
    data = bytes(bytearray(operator.customOptions))
    layer = options.decode(name, data)
    tensors = subgraph.tensors
    inputs, outputs = index_list(operator.inputs), index_list(operator.outputs)
    label = text(tensors[inputs[2]].name).removesuffix("/recurrent_kernel_weights")
    if layer.go_backwards:
        raise ConversionError(
            f"layer {label!r} goes through the sequence backwards: it needs the end "
            "first, and cannot be streamed"
        )
    begin = layer.outputs != layer.STATES
    batch = tensor_signature(tensors[inputs[0]])[0]
    kept = bool(layer.stateful)
    if kept:
        # What it kept from call to call goes in and out as well.
        layer = replace(layer, stateful=0)
        operator.customOptions = np.frombuffer(layer.encode(), np.uint8)
        shape = [batch, tensor_shape(tensors[outputs[0]])[-1]]
        outputs += [_add_tensor(subgraph, f"{label}/end", shape) for _ in range(2)]
        operator.outputs = np.array(outputs, np.int32)
    pairs = []
    labels = ("state", "cell_state")[: len(outputs) - begin]
    for number, kind in enumerate(labels):
        before, after = inputs[_STATES + number], outputs[begin + number]
        if before not in index_list(subgraph.inputs):
            units = tensor_shape(tensors[after])[-1]
            before = _add_input(model, subgraph, f"{label}/{kind}", (batch, units))
            inputs[_STATES + number] = before
        if after not in index_list(subgraph.outputs):
            tensors[after].name = f"{label}/{kind}_out"
            _add_output(model, subgraph, after)
        pairs.append((before, after))
    variables = index_list(operator.inputs)[_STATES:] if kept else []
    operator.inputs = np.array(inputs, np.int32)
    readers = count_readers(subgraph)
    for variable in variables:
        if not readers[variable]:  # LiteRT's CompiledModel refuses files with any
            tensors[variable].isVariable = False
    return pairs


def _add_tensor(subgraph: schema.SubGraphT, name: str, shape: Sequence[int]) -> int:
    subgraph.tensors.append(
        schema.TensorT(
            shape=np.maximum(shape, 1).astype(np.int32),
            shapeSignature=np.array(shape, np.int32),
            type=schema.TensorType.FLOAT32,
            name=name,
            hasRank=True,
        )
    )
    return len(subgraph.tensors) - 1


def _add_input(
    model: Model, subgraph: schema.SubGraphT, name: str, shape: tuple[int, int]
) -> int:
    tensor = _add_tensor(subgraph, name, shape)
    subgraph.inputs = np.array([*index_list(subgraph.inputs), tensor], np.int32)
    for signature in model.tree.signatureDefs or ():
        signature.inputs = [
            *(signature.inputs or ()),
            schema.TensorMapT(name=name, tensorIndex=tensor),
        ]
    return tensor


def _add_output(model: Model, subgraph: schema.SubGraphT, tensor: int) -> None:
    subgraph.outputs = np.array([*index_list(subgraph.outputs), tensor], np.int32)
    name = text(subgraph.tensors[tensor].name)
    for signature in model.tree.signatureDefs or ():
        signature.outputs = [
            *(signature.outputs or ()),
            schema.TensorMapT(name=name, tensorIndex=tensor),
        ]


def drop_dead_operators(subgraph: schema.SubGraphT) -> None:
    """Drops operators whose results nothing reads."""
    while True:
        readers = count_readers(subgraph)
        kept = [
            operator
            for operator in subgraph.operators
            if not len(operator.outputs)
            or any(readers[int(output)] for output in operator.outputs)
        ]
        if len(kept) == len(subgraph.operators):
            return
        subgraph.operators = kept
