# SPDX-License-Identifier: Apache-2.0
"""Makes the states of recurrent layers inputs and outputs of a model.

Fed back from call to call, they let a model take a sequence in pieces of any length.
Which input belongs to which output is kept as JSON in the metadata of the file.
"""

from __future__ import annotations

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
from tfrewprune.converter.recurrent.graph import Graph
from tfrewprune.converter.recurrent.masked import repeat_from_before
from tfrewprune.converter.recurrent.view import View

_METADATA = "tfrewprune.states"
_STATES = 7  # the input of a packed recurrent operator that is its first state


def expose_states(model: Model) -> None:
    """Changes a packed model so that its recurrent states go in and out.

    Inputs are named after the layer, `gru/state` and `lstm/cell_state`, and outputs
    likewise, ending in `_out`. What is an input or an output of the model already stays
    as it is.

    Raises:
        ConversionError: If there is no packed recurrent layer, one goes backwards, one
            begins with a state that is neither zeros nor an input, or several ways lead
            into the model.
    """
    if len(model.tree.signatureDefs or ()) > 1:
        raise ConversionError(
            "a streaming model must have one signature, received "
            f"{len(model.tree.signatureDefs)}"
        )
    states: list[tuple[int, int, bool]] = []
    labels: set[str] = set()
    for index, subgraph in enumerate(model.subgraphs):
        operators = []
        for operator in subgraph.operators or ():
            operators.append(operator)
            name = model.custom_code(operator)
            if name not in options.RECURRENT:
                continue
            if index != 0:
                raise ConversionError(
                    "a streaming model must have its recurrent layers in its main "
                    f"graph, received one in subgraph {index}"
                )
            label = _label(subgraph, operator, labels)
            labels.add(label)
            graph = Graph(model, subgraph, label)
            states += _expose(graph, operator, name)
            operators += graph.operators
        subgraph.operators = operators
    if not states:
        raise ConversionError(
            "a streaming model needs a packed GRU, LSTM or RNN layer, received none"
        )
    tensors = model.subgraphs[0].tensors
    befores = [before for before, _, _ in states]
    for before in befores:
        if befores.count(before) > 1:
            raise ConversionError(
                f"the input {text(tensors[before].name)!r} begins several states; a "
                "streaming model must have an input for each"
            )
    names = [text(tensor.name) for tensor in tensors]
    content = [[names[before], names[after], own] for before, after, own in states]
    write_metadata(model, _METADATA, content)


def read_states(model: Model) -> list[tuple[str, str, bool]]:
    """Returns the states of a streaming model; of others none.

    Returns:
        For each the name of its input and that of its output, and whether the model
        gave out the latter before it was made a streaming one.

    Raises:
        ConversionError: If the metadata is damaged.
    """
    try:
        found = read_metadata(model, _METADATA) or ()
        # Earlier versions did not write the last.
        return [(str(i), str(o), any(own)) for i, o, *own in found]
    except (ValueError, TypeError) as error:
        raise damaged(_METADATA, error) from error


def _label(
    subgraph: schema.SubGraphT, operator: schema.OperatorT, taken: set[str]
) -> str:
    """The name of the layer; layers of the same name are numbered."""
    name = text(subgraph.tensors[int(operator.inputs[2])].name)
    name = label = name.removesuffix("/recurrent_kernel_weights")
    number = 0
    while label in taken:
        number += 1
        label = f"{name}_{number}"
    return label


def _expose(
    graph: Graph, operator: schema.OperatorT, name: str
) -> list[tuple[int, int, bool]]:
    subgraph, label, tensors = graph.subgraph, graph.name, graph.subgraph.tensors
    layer = options.decode(name, bytes(bytearray(operator.customOptions)))
    inputs, outputs = index_list(operator.inputs), index_list(operator.outputs)
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
        outputs += [graph.tensor(f"end_{i}", shape) for i in range(2)]
    states = []
    labels = ("state", "cell_state")[: len(outputs) - begin]
    for number, kind in enumerate(labels):
        before, after = inputs[_STATES + number], outputs[begin + number]
        if before not in index_list(subgraph.inputs):
            if not kept:
                _check_begin(graph, before)
            units = tensor_shape(tensors[after])[-1]
            before = inputs[_STATES + number] = graph.tensor(kind, [batch, units])
            _add(graph, before, "inputs")
        own = after in index_list(subgraph.outputs)
        if not own:
            tensors[after].name = f"{label}/{kind}_out"
            _add(graph, after, "outputs")
        states.append((before, after, own))
    variables = index_list(operator.inputs)[_STATES:] if kept else []
    operator.inputs = np.array(inputs, np.int32)
    operator.outputs = np.array(outputs, np.int32)
    repeat_from_before(graph, operator, layer, inputs[_STATES])
    readers = count_readers(subgraph)
    for variable in variables:
        if not readers[variable]:  # LiteRT's CompiledModel refuses files with any
            tensors[variable].isVariable = False
    return states


def _check_begin(graph: Graph, state: int) -> None:
    """Lets zeros pass, and what Keras' stateful layers keep from call to call."""
    view = View(graph.model, graph.subgraph)
    if state >= 0 and view.written_by(state, "READ_VARIABLE") is None:
        raise ConversionError(
            f"layer {graph.name!r} begins with a state that the model holds or "
            "computes: which output continues it is not known. In a streaming model a "
            "first state must be zeros, or an input that goes into the layer as it is"
        )


def _add(graph: Graph, tensor: int, ends: str) -> None:
    """Adds a tensor to the `inputs` or `outputs` of a graph and its signatures."""
    name = text(graph.subgraph.tensors[tensor].name)
    indices = [*index_list(getattr(graph.subgraph, ends)), tensor]
    setattr(graph.subgraph, ends, np.array(indices, np.int32))
    for signature in graph.model.tree.signatureDefs or ():
        entry = schema.TensorMapT(name=name, tensorIndex=tensor)
        setattr(signature, ends, [*(getattr(signature, ends) or ()), entry])


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
