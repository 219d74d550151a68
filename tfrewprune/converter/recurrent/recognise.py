# SPDX-License-Identifier: Apache-2.0
"""Finds the loops that ``write_loop`` wrote, in files that may be anybody's.

The name of a loop's body claims what it computes. It is believed only if writing a
loop with that claim gives the same operators, constants and wiring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import (
    Model,
    count_readers,
    index_list,
    tensor_shape,
    tensor_signature,
    text,
)
from tfrewprune.converter.options import RecurrentOptions
from tfrewprune.converter.recurrent.loops import PREFIX, result_places, write_loop
from tfrewprune.converter.recurrent.recurrence import Recurrence, Weights

_BUILTIN = schema.BuiltinOperator
# Buffer that stands for any constant in the loop written for comparison.
_ANY = 1


@dataclass(frozen=True, eq=False)
class Loop:
    """A recurrent layer that was found.

    Attributes:
        subgraph: Index of the subgraph it is in.
        layer: What it computes.
        operators: Its operators in that subgraph; the last one is the WHILE.
        products: Subgraph and operator of each of its matrices: the kernel, the
            recurrent kernel, and the candidate's where that is apart.
    """

    subgraph: int
    layer: Recurrence
    operators: tuple[schema.OperatorT, ...]
    products: tuple[tuple[int, schema.OperatorT], ...]


def find_loops(model: Model) -> list[Loop]:
    """Returns all recurrent layers of a model that are written as loops."""
    found = []
    users: dict[int, int] = {}
    loops = []
    for index, subgraph in enumerate(model.subgraphs):
        for number, operator in enumerate(subgraph.operators or ()):
            options = operator.builtinOptions
            if isinstance(options, schema.WhileOptionsT):
                for used in (options.condSubgraphIndex, options.bodySubgraphIndex):
                    users[used] = users.get(used, 0) + 1
                loops.append((index, number))
    for index, number in loops:
        options = model.subgraphs[index].operators[number].builtinOptions
        places = (options.condSubgraphIndex, options.bodySubgraphIndex)
        if all(0 < i < len(model.subgraphs) and users[i] == 1 for i in places):
            loop = _match(model, index, number)
            if loop is not None:
                found.append(loop)
    return found


def _claim(name: str) -> tuple[RecurrentOptions, bool] | None:
    """The options in the name of a loop's body, and whether it has a mask."""
    prefix, *words = name.split()[:-1] or [""]
    if prefix != PREFIX or not all(len(w) < 11 and w.isdigit() for w in words):
        return None
    options = RecurrentOptions.parse([int(word) for word in words[:-1]])
    return None if options is None else (options, words[-1] == "1")


def _match(model: Model, index: int, number: int) -> Loop | None:
    subgraph = model.subgraphs[index]
    operators, tensors = subgraph.operators, subgraph.tensors
    last = operators[number]
    body = model.subgraphs[last.builtinOptions.bodySubgraphIndex]
    claim = _claim(text(body.name))
    inputs, outputs = index_list(last.inputs), index_list(last.outputs)
    if claim is None:
        return None
    options, masked = claim
    products = _products(model, body)
    wanted = 1 + (options.kind == options.GRU and not options.reset_after)
    count = 4 + options.lstm + 2 * masked - 1
    count += options.outputs == options.SEQUENCE
    if len(products) != wanted or len(inputs) != count or len(outputs) != count:
        return None
    writers = [
        op
        for op in operators[:number]
        if inputs[1] in index_list(op.outputs)
        and model.builtin_code(op) == _BUILTIN.FULLY_CONNECTED
    ]
    if len(writers) != 1 or len(writers[0].inputs) != 3:
        return None
    x, kernel, bias = index_list(writers[0].inputs)
    matrices = [_weights(body, product) for product in products]
    shape = tensor_signature(tensors[x])
    if len(shape) != 3 or shape[2] < 1 or min(x, kernel) < 0 or None in matrices:
        return None
    units = matrices[0].columns
    recurrent_bias = index_list(products[0].inputs)[2]
    states = 2 + masked
    layer = Recurrence(
        *(options, "", units, x, kernel, bias),
        matrices[0],
        matrices[1] if len(matrices) > 1 else None,
        None if recurrent_bias < 0 else body.tensors[recurrent_bias].buffer,
        inputs[2] if masked else -1,
        inputs[states],
        inputs[states + 1] if options.lstm else -1,
        (),
    )
    places = result_places(replace(layer, outputs=()))
    layer = replace(layer, outputs=tuple(outputs[place] for place in places))
    name = text(tensors[inputs[1]].name).removesuffix("/kernel")
    layer = replace(layer, name=name)
    kept = all(t >= 0 and tensors[t].isVariable for t in (layer.h, layer.c))
    if options.stateful and (masked or not kept):
        return None
    used = _compare(model, index, number, layer, shape)
    if used is None or not _is_private(subgraph, used, layer):
        return None
    inside = last.builtinOptions.bodySubgraphIndex
    products = [(index, writers[0]), *((inside, product) for product in products)]
    return Loop(index, layer, tuple(used), tuple(products))


def _products(model: Model, body: schema.SubGraphT) -> list[schema.OperatorT]:
    return [
        operator
        for operator in body.operators or ()
        if model.builtin_code(operator) == _BUILTIN.FULLY_CONNECTED
        and len(operator.inputs) == 3
    ]


def _weights(body: schema.SubGraphT, product: schema.OperatorT) -> Weights | None:
    place = index_list(product.inputs)[1]
    if place < 0:
        return None
    tensor = body.tensors[place]
    shape = tensor_shape(tensor)
    return Weights(tensor.buffer, *shape) if len(shape) == 2 else None


def _compare(
    model: Model, index: int, number: int, layer: Recurrence, shape: Sequence[int]
) -> list[schema.OperatorT] | None:
    """The operators of a loop if they are what ``write_loop`` writes."""
    pattern, expected = _write_pattern(layer, shape)
    subgraph = model.subgraphs[index]
    received = subgraph.operators[number + 1 - len(expected) : number + 1]
    known = {
        0: layer.x,
        1: layer.kernel,
        2: layer.bias,
        3: layer.mask,
        4: layer.h,
        5: layer.c,
        **{6 + i: output for i, output in enumerate(layer.outputs)},
    }
    main = _Matcher(pattern, pattern.subgraphs[0], model, subgraph, known)
    # The shape of the kernel tells how many rows the projection has.
    rows = layer.options.gates * layer.units
    if tensor_shape(subgraph.tensors[layer.kernel]) != (rows, shape[2]):
        return None
    if not main.same(expected, received):
        return None
    for name in ("condSubgraphIndex", "bodySubgraphIndex"):
        ours = pattern.subgraphs[getattr(expected[-1].builtinOptions, name)]
        theirs = model.subgraphs[getattr(received[-1].builtinOptions, name)]
        inner = _Matcher(pattern, ours, model, theirs, {})
        ends = [
            inner.pairs(index_list(ours.inputs), index_list(theirs.inputs)),
            inner.same(ours.operators, theirs.operators or []),
            inner.pairs(index_list(ours.outputs), index_list(theirs.outputs)),
        ]
        if not all(ends) or len(set(index_list(theirs.inputs))) != len(ours.inputs):
            return None
    return list(received)


def _write_pattern(
    layer: Recurrence, shape: Sequence[int]
) -> tuple[Model, list[schema.OperatorT]]:
    """Writes a loop of that kind into a model of its own."""
    buffers = [schema.BufferT(), schema.BufferT(data=np.zeros(1, np.uint8))]
    main = schema.SubGraphT()
    main.tensors = [
        schema.TensorT(shape=np.ones(3, np.int32))
        for _ in range(6 + len(layer.outputs))
    ]
    main.tensors[0].shapeSignature = np.array(shape, np.int32)
    main.tensors[3].type = schema.TensorType.BOOL
    tree = schema.ModelT()
    tree.buffers, tree.operatorCodes, tree.subgraphs = buffers, [], [main]
    model = Model(tree)

    def any_weights(weights: Weights | None) -> Weights | None:
        return None if weights is None else replace(weights, buffer=_ANY)

    def place(tensor: int, number: int) -> int:
        return -1 if tensor < 0 else number

    pattern = replace(
        layer,
        x=0,
        kernel=1,
        bias=place(layer.bias, 2),
        recurrent=any_weights(layer.recurrent),
        candidate=any_weights(layer.candidate),
        recurrent_bias=None if layer.recurrent_bias is None else _ANY,
        mask=place(layer.mask, 3),
        h=4,
        c=place(layer.c, 5),
        outputs=tuple(range(6, 6 + len(layer.outputs))),
    )
    return model, write_loop(model, 0, pattern)


class _Matcher:
    """Compares two graphs operator by operator."""

    def __init__(
        self,
        pattern: Model,
        ours: schema.SubGraphT,
        model: Model,
        theirs: schema.SubGraphT,
        known: dict[int, int],
    ):
        self.pattern, self.ours = pattern, ours
        self.model, self.theirs = model, theirs
        self.known = {-1: -1, **known}

    def same(
        self, ours: Sequence[schema.OperatorT], theirs: Sequence[schema.OperatorT]
    ) -> bool:
        return len(ours) == len(theirs) and all(map(self.operator, ours, theirs))

    def operator(self, ours: schema.OperatorT, theirs: schema.OperatorT) -> bool:
        code = self.pattern.builtin_code(ours)
        if code != self.model.builtin_code(theirs):
            return False
        a, b = ours.builtinOptions, theirs.builtinOptions
        if code != _BUILTIN.WHILE and a is not None:
            if type(a) is not type(b):
                return False
            if {k: int(v or 0) for k, v in vars(a).items()} != {
                k: int(v or 0) for k, v in vars(b).items()
            }:
                return False
        return self.pairs(index_list(ours.inputs), index_list(theirs.inputs)) and (
            self.pairs(index_list(ours.outputs), index_list(theirs.outputs))
        )

    def pairs(self, ours: list[int], theirs: list[int]) -> bool:
        return len(ours) == len(theirs) and all(map(self.pair, ours, theirs))

    def pair(self, ours: int, theirs: int) -> bool:
        if ours in self.known:
            return self.known[ours] == theirs
        if theirs < 0:
            return False
        a, b = self.ours.tensors[ours], self.theirs.tensors[theirs]
        expected, received = self.pattern.data(a), self.model.data(b)
        if a.type != b.type or b.isVariable or b.sparsity is not None:
            return False
        if (expected is None) != (received is None):
            return False
        if expected is not None:
            if tensor_shape(a) != tensor_shape(b):
                return False
            if a.buffer != _ANY and not np.array_equal(expected, received):
                return False
        self.known[ours] = theirs
        return True


def _is_private(
    subgraph: schema.SubGraphT,
    operators: Sequence[schema.OperatorT],
    layer: Recurrence,
) -> bool:
    """Whether nothing else reads what a loop computes beside its outputs."""
    everywhere = count_readers(subgraph)
    for operator in operators:
        for tensor in index_list(operator.inputs):
            everywhere[tensor] -= 1
    written = {t for operator in operators for t in index_list(operator.outputs)}
    return not any(everywhere[tensor] > 0 for tensor in written - set(layer.outputs))
