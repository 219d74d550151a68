# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan: operators are replaced or go, tensor indices never move."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter import options
from tfrewprune.converter.densify import SparseForm
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    Model,
    count_readers,
    custom_operator_code,
)
from tfrewprune.converter.hosts import describe_hosts, take_operators
from tfrewprune.converter.plan import Decision
from tfrewprune.converter.recurrent.fuse import fuse_loops
from tfrewprune.converter.recurrent.recognise import Loop, find_loops
from tfrewprune.converter.sources import Decoder, Source, remember
from tfrewprune.converter.sums import Sum
from tfrewprune.payload.container import VALUE_ALIGNMENT
from tfrewprune.payload.reading import unpack_matrix

_UINT8 = schema.TensorType.UINT8
_INT8 = schema.TensorType.INT8


def perform(model: Model, decisions: list[Decision]) -> None:
    """Changes ``model`` so that every layer with a packing and no reason is packed.

    The weight tensor of a packed layer becomes its payload where it stands; only when
    something else still reads the dense weights, or their scales have to stay, does the
    payload get a tensor of its own, behind all others. Loops whose products are packed
    become one operator each. Buffers that nothing reads any more are emptied. How the
    weights were stored is remembered for `unpack_model`, and the file says where it
    runs.
    """
    chosen = [decision for decision in decisions if decision.packs]
    before = take_operators(model)
    loops = _chosen_loops(model, chosen)
    # Layers that share a packing share its bytes.
    places: dict[int, int] = {}
    for decision in chosen:
        layer = decision.layer
        subgraph = model.subgraphs[layer.subgraph]
        operator = subgraph.operators[layer.operator]
        packed = layer.options
        custom = (
            options.CONV_2D
            if isinstance(packed, options.ConvOptions)
            else options.FULLY_CONNECTED
        )
        operator.opcodeIndex = custom_operator_code(model, custom)
        operator.builtinOptionsType = schema.BuiltinOptions.NONE
        operator.builtinOptions = None
        operator.customOptionsFormat = 0
        if decision.sum is not None:
            packed = replace(
                packed,
                activation=decision.sum.activation,
                own_output=int(operator.outputs[0]),
            )
            _take_over(operator, decision.sum)
        operator.customOptions = np.frombuffer(packed.encode(), np.uint8)

    old_count = len(model.tree.buffers)
    dense_of: dict[int, int] = {}
    sources: list[Source] = []
    for subgraph_index, subgraph in enumerate(model.subgraphs):
        here = [d for d in chosen if d.layer.subgraph == subgraph_index]
        by_tensor: dict[int, list[Decision]] = defaultdict(list)
        for decision in here:
            by_tensor[decision.layer.weight].append(decision)
        readers = count_readers(subgraph)
        dead = {decision.sum.operator for decision in here if decision.sum is not None}
        for tensor, users in by_tensor.items():
            payload = _payload_buffer(model, users[0], places)
            size = len(model.tree.buffers[payload].data)
            source = users[0].layer.source
            dense_of[payload] = subgraph.tensors[source.tensor].buffer
            stored = subgraph.tensors[tensor]
            dynamic_range = stored.type == _INT8
            if dynamic_range or readers[tensor] > len(users):
                subgraph.tensors.append(
                    schema.TensorT(
                        shape=np.array([size], np.int32),
                        type=_UINT8,
                        buffer=payload,
                        name=subgraph.tensors[tensor].name,
                        hasRank=subgraph.tensors[tensor].hasRank,
                    )
                )
                for decision in users:
                    operator = subgraph.operators[decision.layer.operator]
                    operator.inputs = np.array(operator.inputs, np.int32)
                    operator.inputs[1] = len(subgraph.tensors) - 1
                if dynamic_range:
                    # The tensor stays, for its scales; so does what others read of it.
                    if readers[tensor] == len(users):
                        stored.buffer = 0
                    place = (subgraph_index, len(subgraph.tensors) - 1)
                    sources.append(Source(*place, (), tensor))
                continue
            stored.shape = np.array([size], np.int32)
            stored.type = _UINT8
            stored.buffer = payload
            # Decoders whose result nothing reads any more go, from the last one on.
            gone: list[Decoder] = []
            for number in reversed(source.decoders):
                decoder = _decoder(model, subgraph, number)
                dead.add(number)
                gone.insert(0, decoder)
                readers[decoder.input] -= 1
                if readers[decoder.input]:
                    break
                subgraph.tensors[decoder.input].buffer = 0
                subgraph.tensors[decoder.input].sparsity = None
            if gone:
                sources.append(Source(subgraph_index, tensor, tuple(gone)))
        subgraph.operators = [
            operator
            for number, operator in enumerate(subgraph.operators)
            if number not in dead
        ]
    _settle_buffers(model, dense_of, old_count)
    remember(model, sources)
    fuse_loops(model, loops)
    describe_hosts(model, before)


def _chosen_loops(model: Model, chosen: list[Decision]) -> list[Loop]:
    """The loops of packed products, as they are in this very model.

    Decisions may stem from another reading of the same file, and a loop knows its
    operators by identity.
    """
    products = {
        id(model.subgraphs[d.layer.subgraph].operators[d.layer.operator])
        for d in chosen
        if d.layer.loop is not None
    }
    if not products:
        return []
    return [
        loop
        for loop in find_loops(model)
        if any(id(product) in products for _, product in loop.products)
    ]


def _decoder(model: Model, subgraph: schema.SubGraphT, number: int) -> Decoder:
    operator = subgraph.operators[number]
    read = int(operator.inputs[0])
    sparsity = subgraph.tensors[read].sparsity
    form = None if sparsity is None else SparseForm.of(sparsity)
    return Decoder(model.builtin_code(operator), read, form)


def _take_over(operator: schema.OperatorT, total: Sum) -> None:
    """Makes a convolution add a residual: its own output is never computed alone.

    That output's tensor stays, and the options name it. The operator's field for
    intermediate tensors would be the place, but LiteRT's `CompiledModel` refuses files
    that use it.
    """
    inputs = [int(i) for i in operator.inputs]
    bias = inputs[2:] or [-1]
    operator.inputs = np.array([*inputs[:2], *bias, total.residual], np.int32)
    operator.outputs = np.array([total.output], np.int32)


def _payload_buffer(model: Model, decision: Decision, places: dict[int, int]) -> int:
    key = id(decision.packing)
    if key not in places:
        payload = decision.packing.encode()
        _check_payload(decision, payload)
        data = np.frombuffer(payload, np.uint8)
        model.tree.buffers.append(schema.BufferT(data=data))
        places[key] = len(model.tree.buffers) - 1
    return places[key]


def _check_payload(decision: Decision, payload: bytes) -> None:
    """Raises unless the payload gives the weights back bit by bit, zeros as +0.0."""
    # Adding 0 turns -0.0 into +0.0 and changes nothing else.
    expected = decision.packing.weights + np.float32(0)
    received = unpack_matrix(payload)
    if not np.array_equal(received.view(np.uint32), expected.view(np.uint32)):
        raise ConversionError(
            f"layer {decision.layer.name!r}: its payload does not hold its weights"
        )


def _settle_buffers(model: Model, dense_of: dict[int, int], old_count: int) -> None:
    """Empties dense buffers that nothing reads, and moves payloads into them.

    Args:
        model: The model; its payloads are in buffers from ``old_count`` on.
        dense_of: The dense buffer that each payload buffer replaces.
        old_count: Buffers of the model before any was added.
    """
    buffers = model.tree.buffers
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    used = {tensor.buffer for tensor in tensors}
    used |= {entry.buffer for entry in model.tree.metadata or ()}
    free = set(dense_of.values()) - used - {0}
    for index in free:
        buffers[index] = schema.BufferT()
    moved, added = {}, []
    for payload in range(old_count, len(buffers)):
        if dense_of[payload] in free:
            moved[payload] = dense_of[payload]
            free.remove(moved[payload])
            buffers[moved[payload]] = buffers[payload]
        else:
            moved[payload] = old_count + len(added)
            added.append(buffers[payload])
        model.alignment[moved[payload]] = VALUE_ALIGNMENT
    buffers[old_count:] = added
    for tensor in tensors:
        tensor.buffer = moved.get(tensor.buffer, tensor.buffer)
