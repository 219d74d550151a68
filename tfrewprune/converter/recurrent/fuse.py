# SPDX-License-Identifier: Apache-2.0
"""One packed operator in the place of a loop, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    Model,
    custom_operator_code,
    drop_unused,
    index_list,
    tensor_signature,
    text,
)
from tfrewprune.converter.options import RecurrentOptions
from tfrewprune.converter.recurrent import sequence_lstm
from tfrewprune.converter.recurrent.graph import Graph
from tfrewprune.converter.recurrent.loops import WEIGHTS, write_loop, zeros
from tfrewprune.converter.recurrent.recognise import Loop
from tfrewprune.converter.recurrent.recurrence import Recurrence, Weights
from tfrewprune.converter.recurrent.streaming import drop_dead_operators
from tfrewprune.converter.recurrent.view import View


def fuse_loops(model: Model, loops: Sequence[Loop]) -> None:
    """Replaces loops, whose products are packed already, by packed operators."""
    if not loops:
        return
    for loop in loops:
        subgraph = model.subgraphs[loop.subgraph]
        operator = _operator(model, subgraph, loop)
        gone = {id(one) for one in loop.operators[:-1]}
        subgraph.operators = [
            operator if one is loop.operators[-1] else one
            for one in subgraph.operators
            if id(one) not in gone
        ]
        _forget(subgraph, loop)
    for index in {loop.subgraph for loop in loops}:  # what made zeros to begin with
        drop_dead_operators(model.subgraphs[index])
    dropped = set()
    for loop in loops:
        options = loop.operators[-1].builtinOptions
        dropped |= {options.condSubgraphIndex, options.bodySubgraphIndex}
    drop_subgraphs(model, dropped)
    drop_unused(model)


def _operator(model: Model, subgraph: schema.SubGraphT, loop: Loop) -> schema.OperatorT:
    """The packed operator; what it reads of the loop's body moves out of it."""
    layer = loop.layer
    payloads = []
    for place, product in loop.products:
        tensor = int(product.inputs[1])
        if place != loop.subgraph:
            tensor = _move(subgraph, model.subgraphs[place].tensors[tensor])
        payloads.append(tensor)
    payloads += [-1] * (3 - len(payloads))
    inner, recurrent = loop.products[1]
    bias = int(recurrent.inputs[2])
    if bias >= 0:
        bias = _move(subgraph, model.subgraphs[inner].tensors[bias])
    h, c = (_unless_zeros(model, subgraph, state) for state in (layer.h, layer.c))
    inputs = [layer.x, *payloads, layer.bias, bias, layer.mask, h, c]
    return schema.OperatorT(
        opcodeIndex=custom_operator_code(model, layer.options.operator),
        inputs=np.array(inputs, np.int32),
        outputs=np.array(layer.outputs[: layer.options.results], np.int32),
        builtinOptionsType=schema.BuiltinOptions.NONE,
        customOptions=np.frombuffer(layer.options.encode(), np.uint8),
        customOptionsFormat=0,
    )


def _unless_zeros(model: Model, subgraph: schema.SubGraphT, state: int) -> int:
    """A first state, or -1 where it is zeros: absent means the same."""
    view = View(model, subgraph)
    filled = view.written_by(state, "FILL")
    by_value = filled is not None and len(filled.inputs) == 2
    values = view.floats(int(filled.inputs[1]) if by_value else state)
    return -1 if values is not None and not values.any() else state


def _forget(subgraph: schema.SubGraphT, loop: Loop) -> None:
    """Takes names and shapes from the tensors that only a loop used."""
    kept = {*loop.layer.outputs, *index_list(subgraph.inputs)}
    kept |= set(index_list(subgraph.outputs))
    for operator in subgraph.operators:
        kept |= {*index_list(operator.inputs), *index_list(operator.outputs)}
    for operator in loop.operators:
        for tensor in {*index_list(operator.inputs), *index_list(operator.outputs)}:
            if tensor >= 0 and tensor not in kept:
                subgraph.tensors[tensor] = schema.TensorT(shape=np.zeros(1, np.int32))


def _move(subgraph: schema.SubGraphT, tensor: schema.TensorT) -> int:
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def drop_subgraphs(model: Model, dropped: set[int]) -> None:
    """Takes subgraphs away and renumbers what calls the others."""
    kept = [i for i in range(len(model.subgraphs)) if i not in dropped]
    places = {old: new for new, old in enumerate(kept)}
    model.tree.subgraphs = [model.subgraphs[i] for i in kept]
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or ():
            for options in (operator.builtinOptions, operator.builtinOptions2):
                for name, value in vars(options or object).items():
                    if "ubgraph" not in name or not hasattr(options, name):
                        continue
                    if isinstance(value, int | np.integer):
                        setattr(options, name, places.get(int(value), value))
                    elif value is not None:
                        renumbered = [places[int(old)] for old in value]
                        setattr(options, name, renumbered)
    for signature in model.tree.signatureDefs or ():
        signature.subgraphIndex = places[signature.subgraphIndex]


def split_operator(
    model: Model,
    index: int,
    operator: schema.OperatorT,
    options: RecurrentOptions,
    matrices: dict[int, np.ndarray],
    dense: dict[int, int],
) -> list[schema.OperatorT]:
    """Writes the loop of a packed operator, and returns its operators.

    Args:
        model: The model.
        index: The subgraph of the operator.
        operator: The packed operator.
        options: Its options.
        matrices: Weights of its payload tensors.
        dense: Buffers of dense weights by those of payloads; new ones are added.

    Raises:
        ConversionError: If the matrices do not fit together.
    """
    tensors = model.subgraphs[index].tensors
    inputs = index_list(operator.inputs)
    x, kernel, recurrent, candidate, bias, inner_bias, mask, h, c = inputs

    name = text(tensors[kernel].name).removesuffix(f"/kernel{WEIGHTS}")
    given = [matrices[t] for t in inputs[1:4] if t >= 0]
    _check_shapes(name, options, given)
    if options.stateful:
        constant = None if bias < 0 else model.data(tensors[bias])
        rows = np.zeros(len(given[0]), np.float32)
        if constant is not None and constant.size == rows.nbytes:
            rows = constant.view("<f4")
        elif bias >= 0:
            raise ConversionError(
                f"layer {name!r}: its bias must be a constant of {len(rows)} floats"
            )
        places = (x, h, c, int(operator.outputs[0]))
        return sequence_lstm.write(model, index, name, options, given, rows, places)

    def stored(tensor: int) -> int:
        payload = tensors[tensor].buffer
        if payload not in dense:
            data = np.ascontiguousarray(matrices[tensor], "<f4").reshape(-1)
            model.tree.buffers.append(schema.BufferT(data=data.view(np.uint8)))
            dense[payload] = len(model.tree.buffers) - 1
        return dense[payload]

    def inner(tensor: int) -> Weights | None:
        if tensor < 0:
            return None
        weights = Weights(stored(tensor), *matrices[tensor].shape)
        tensors[tensor].buffer = 0
        return weights

    before = Graph(model, model.subgraphs[index], name)

    def begun(label: str, state: int, there: bool) -> int:
        if state >= 0 or not there:
            return state
        shape = [tensor_signature(tensors[x])[0], given[1].shape[1]]
        if shape[0] < 0:
            return zeros(before, label, x, shape)
        return before.constant(label, np.zeros(shape, np.float32))

    h, c = begun("state", h, True), begun("cell_state", c, options.lstm)
    tensors[kernel].buffer = stored(kernel)
    tensors[kernel].type = schema.TensorType.FLOAT32
    tensors[kernel].shape = np.array(matrices[kernel].shape, np.int32)
    layer = Recurrence(
        options,
        name,
        matrices[recurrent].shape[1],
        *(x, kernel, bias),
        inner(recurrent),
        inner(candidate),
        None if inner_bias < 0 else tensors[inner_bias].buffer,
        *(mask, h, c),
        tuple(index_list(operator.outputs)),
    )
    return before.operators + write_loop(model, index, layer)


def _check_shapes(
    name: str, options: RecurrentOptions, matrices: list[np.ndarray]
) -> None:
    units = matrices[1].shape[1]
    apart = len(matrices) > 2
    expected = [options.gates * units, (options.gates - apart) * units]
    expected += [units] if apart else []
    received = [matrix.shape[0] for matrix in matrices]
    columns = [matrix.shape[1] for matrix in matrices[1:]]
    if received != expected or set(columns) != {units}:
        raise ConversionError(
            f"layer {name!r}: expected matrices of {expected} rows and {units} "
            f"columns, received {[list(matrix.shape) for matrix in matrices]}"
        )
