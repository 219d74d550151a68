# SPDX-License-Identifier: Apache-2.0
"""Rewrites recurrences of other converters as loops of ours, before anything is packed.

What follows then knows one form alone. A stateful LSTM is the exception: its loop
begins with the states of the call before, but standard operators cannot leave any for
the next, so such a loop is never given to anybody: it is packed, or unpacked to
UNIDIRECTIONAL_SEQUENCE_LSTM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import (
    Model,
    drop_unused,
    drop_unused_codes,
    index_list,
    text,
)
from tfrewprune.converter.options import RecurrentOptions
from tfrewprune.converter.recurrent import sequence_lstm
from tfrewprune.converter.recurrent.cells import Cell
from tfrewprune.converter.recurrent.foreign import (
    ForeignLoop,
    find_cells,
    read_loop,
)
from tfrewprune.converter.recurrent.fuse import drop_subgraphs
from tfrewprune.converter.recurrent.graph import Graph
from tfrewprune.converter.recurrent.loops import WEIGHTS, write_loop
from tfrewprune.converter.recurrent.recognise import find_loops
from tfrewprune.converter.recurrent.recurrence import Recurrence, Weights
from tfrewprune.converter.recurrent.streaming import drop_dead_operators
from tfrewprune.converter.recurrent.view import View, is_read

_TIME_FIRST = [1, 0, 2]


def adopt(model: Model) -> bool:
    """Rewrites the foreign recurrences of a model that a packed operator computes.

    Returns:
        Whether there was one. If not, or if not all of them are found again, the model
        is of no use any more.
    """
    adopter = _Adopter(model)
    before = find_loops(model)
    known = {loop.operators[-1].builtinOptions.bodySubgraphIndex for loop in before}
    graphs = [index for index in range(len(model.subgraphs)) if index not in known]
    for index in graphs:
        adopter.layers(index)
    for index in graphs:
        if index not in adopter.gone:
            adopter.cells(index)
    if not adopter.count:
        return False
    drop_subgraphs(model, adopter.gone)
    for subgraph in model.subgraphs:
        drop_dead_operators(subgraph)
    drop_unused_codes(model)
    drop_unused(model)
    return len(find_loops(model)) == len(before) + adopter.count


class _Adopter:
    def __init__(self, model: Model):
        self.model = model
        self.count = 0
        self.gone: set[int] = set()
        self._users: dict[int, int] = {}
        for subgraph in model.subgraphs:
            for operator in subgraph.operators:
                for used in _subgraphs_of(operator):
                    self._users[used] = self._users.get(used, 0) + 1
        for signature in model.tree.signatureDefs or ():
            used = signature.subgraphIndex
            self._users[used] = self._users.get(used, 0) + 1
        # Layers that share weights share their bytes.
        self._buffers: dict[bytes, int] = {}

    def cells(self, index: int) -> None:
        """Rewrites the single steps of one subgraph."""
        view = View(self.model, self.model.subgraphs[index])
        replaced: dict[int, list[schema.OperatorT]] = {}
        for h_new, cell in list(find_cells(view)):
            self._adopt_cell(index, view, h_new, cell, replaced)
        self._replace(view.subgraph, replaced)

    def layers(self, index: int) -> None:
        """Rewrites the loops and fused operators of one subgraph."""
        view = View(self.model, self.model.subgraphs[index])
        replaced: dict[int, list[schema.OperatorT]] = {}
        for operator in view.subgraph.operators:
            name = view.name(operator)
            if name == sequence_lstm.OPERATOR:
                found = sequence_lstm.read(view, operator)
                if not isinstance(found, str):
                    replaced[id(operator)] = self._adopt_lstm(index, operator, found)
            elif name == "WHILE":
                used = _subgraphs_of(operator)
                graphs = len(self.model.subgraphs)
                alone = (0 < i < graphs and self._users[i] == 1 for i in used)
                if len(used) == 2 and all(alone):
                    loop = read_loop(self.model, view, operator)
                    if loop is not None:
                        self._adopt_loop(index, view, operator, loop, replaced)
                        self.gone |= set(used)
        self._replace(view.subgraph, replaced)

    def _replace(
        self, subgraph: schema.SubGraphT, replaced: dict[int, list[schema.OperatorT]]
    ) -> None:
        subgraph.operators = [
            written
            for operator in subgraph.operators
            for written in replaced.get(id(operator), [operator])
        ]

    def _adopt_cell(
        self,
        index: int,
        view: View,
        h_new: int,
        cell: Cell,
        replaced: dict[int, list[schema.OperatorT]],
    ) -> None:
        """A step becomes a loop over a sequence of one."""
        last = view.writer(h_new)
        first = last if cell.c_new is None else view.writer(cell.c_new)
        if id(last) in replaced or id(first) in replaced:
            return
        name = _cell_name(text(view.subgraph.tensors[h_new].name))
        graph = Graph(self.model, view.subgraph, name)
        batch, features = view.shape(cell.x)
        x = _as_sequence(view, cell.x, (batch, 1, features))
        if x is None:
            axis = graph.constant("time_axis", 1)
            expand = schema.ExpandDimsOptionsT()
            shape = [batch, 1, features]
            x = graph.value("frame", "EXPAND_DIMS", [cell.x, axis], shape, expand)
        outputs = [h_new] + ([] if cell.c_new is None else [cell.c_new])
        c = -1 if cell.c is None else cell.c
        options = _options(cell, RecurrentOptions.STATES, False)
        layer = self._recurrence(graph, options, cell, x, (cell.h, c), outputs)
        # The cell state is there first, and may be read before the other is.
        replaced[id(last)] = []
        replaced[id(first)] = graph.operators + self._write(index, layer)

    def _adopt_lstm(
        self, index: int, operator: schema.OperatorT, found: sequence_lstm.SequenceLstm
    ) -> list[schema.OperatorT]:
        subgraph = self.model.subgraphs[index]
        graph = Graph(self.model, subgraph, found.name)
        view = View(self.model, subgraph)
        x, y = int(operator.inputs[0]), int(operator.outputs[0])
        result, after = y, []
        units = found.recurrent.shape[1]
        batch, steps = view.shape(x)[:2]
        if found.time_major:
            batch, steps = steps, batch
            x = _turn(graph, "sequence", x, view.shape(x))
            result = graph.tensor("batch_first", [batch, steps, units])
        states = sequence_lstm.states(operator)
        ends = [graph.tensor(f"end_{i}", [batch, units]) for i in range(2)]
        layer = Recurrence(
            *(found.options, found.name, units, x),
            self._constant(graph, f"kernel{WEIGHTS}", found.kernel),
            self._constant(graph, "bias", found.bias),
            self._weights(found.recurrent),
            *(None, None, -1, *states),
            (result, *ends),
        )
        before, graph.operators = graph.operators, []
        if found.time_major:
            _turn(graph, "", result, [batch, steps, units], y)
            after = graph.operators
        return [*before, *self._write(index, layer), *after]

    def _adopt_loop(
        self,
        index: int,
        view: View,
        operator: schema.OperatorT,
        loop: ForeignLoop,
        replaced: dict[int, list[schema.OperatorT]],
    ) -> None:
        given, results = index_list(operator.inputs), index_list(operator.outputs)
        graph = Graph(self.model, view.subgraph, loop.name)
        units = loop.cell.recurrent.shape[1]
        x, backwards = given[loop.x], False
        turned = view.written_by(x, "REVERSE_V2")
        if turned is not None and view.integers(int(turned.inputs[1])) == [0]:
            x, backwards = int(turned.inputs[0]), True
        steps, batch, features = view.shape(x)
        outer = _batch_first(view, x, (batch, steps, features))
        if outer is None:
            outer = _turn(graph, "sequence", x, (steps, batch, features))
        # Operators behind it that only bring its results into form are not needed.
        h, turned_back = results[loop.h], None
        for place in loop.lasts:
            last = _only_reader(view, results[place], "STRIDED_SLICE", (batch, units))
            if last is not None and not is_read(view, h):
                h = int(last.outputs[0])
                replaced[id(last)] = []
        outputs = [h] + ([] if loop.c is None else [results[loop.c]])
        kind = RecurrentOptions.STATES
        whole = (batch, steps, units)
        if loop.sequences:
            kind = RecurrentOptions.SEQUENCE
            for name in ("RESHAPE", "TRANSPOSE"):
                found = _only_reader(view, results[loop.sequences[0]], name, whole)
                turned_back = turned_back or found
            if turned_back is None:
                outputs.insert(0, graph.tensor("all_steps", whole))
            else:
                outputs.insert(0, int(turned_back.outputs[0]))
                replaced[id(turned_back)] = []
        c = -1 if loop.c is None else given[loop.c]
        options = _options(loop.cell, kind, backwards)
        layer = self._recurrence(
            graph, options, loop.cell, outer, (given[loop.h], c), outputs
        )
        before, graph.operators = graph.operators, []
        for place in loop.sequences:
            if turned_back is None or place != loop.sequences[0]:
                _turn(graph, "", outputs[0], whole, results[place])
        for place in loop.lasts:
            shape = graph.constant("last_shape", [1, batch, units])
            reshape = schema.ReshapeOptionsT(newShape=[1, batch, units])
            graph.op("RESHAPE", [h, shape], [results[place]], reshape)
        replaced[id(operator)] = [
            *before,
            *self._write(index, layer),
            *graph.operators,
        ]

    def _write(self, index: int, layer: Recurrence) -> list[schema.OperatorT]:
        self.count += 1
        return write_loop(self.model, index, layer)

    def _recurrence(
        self,
        graph: Graph,
        options: RecurrentOptions,
        cell: Cell,
        x: int,
        states: tuple[int, int],
        outputs: Sequence[int],
    ) -> Recurrence:
        bias = -1
        if cell.bias is not None:
            bias = self._constant(graph, "bias", cell.bias)
        inner = None
        if cell.recurrent_bias is not None:
            inner = self._buffer(cell.recurrent_bias)
        return Recurrence(
            *(options, graph.name, cell.recurrent.shape[1], x),
            self._constant(graph, f"kernel{WEIGHTS}", cell.kernel),
            bias,
            self._weights(cell.recurrent),
            None if cell.candidate is None else self._weights(cell.candidate),
            *(inner, -1, *states, tuple(outputs)),
        )

    def _buffer(self, values: np.ndarray) -> int:
        data = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8)
        key = hashlib.sha256(data).digest()
        if key not in self._buffers:
            self.model.tree.buffers.append(schema.BufferT(data=data))
            self._buffers[key] = len(self.model.tree.buffers) - 1
        return self._buffers[key]

    def _weights(self, matrix: np.ndarray) -> Weights:
        return Weights(self._buffer(matrix), *matrix.shape)

    def _constant(self, graph: Graph, label: str, values: np.ndarray) -> int:
        return graph.tensor(label, values.shape, buffer=self._buffer(values))


def _options(cell: Cell, outputs: int, backwards: bool) -> RecurrentOptions:
    codes = (cell.activation, cell.recurrent_activation)
    after = int(cell.reset_after)
    return RecurrentOptions(cell.kind, *codes, after, int(backwards), outputs, 0)


def _subgraphs_of(operator: schema.OperatorT) -> list[int]:
    """The subgraphs that an operator calls."""
    found: list[int] = []
    for options in (operator.builtinOptions, operator.builtinOptions2):
        for name, value in vars(options).items() if options else ():
            if "ubgraph" in name and value is not None:
                found += [int(value)] if np.isscalar(value) else index_list(value)
    return found


def _turn(
    graph: Graph, label: str, x: int, shape: Sequence[int], output: int | None = None
) -> int:
    """Swaps batch and time."""
    if output is None:
        output = graph.tensor(label, [shape[1], shape[0], shape[2]])
    if min(shape) > 0 and 1 in shape[:2]:  # the same numbers in the same order
        to = [shape[1], shape[0], shape[2]]
        new = graph.constant("turned_shape", to)
        graph.op("RESHAPE", [x, new], [output], schema.ReshapeOptionsT(newShape=to))
    else:
        order = graph.constant("time_first", _TIME_FIRST)
        graph.op("TRANSPOSE", [x, order], [output], schema.TransposeOptionsT())
    return output


def _as_sequence(view: View, x: int, shape: tuple[int, ...]) -> int | None:
    """The tensor of that shape that a step was taken out of."""
    for name in ("RESHAPE", "UNPACK", "SQUEEZE"):
        operator = view.written_by(x, name)
        if operator is not None and len(operator.outputs) == 1:
            inner = int(operator.inputs[0])
            if view.shape(inner) == shape:
                return inner
    return None


def _batch_first(view: View, x: int, shape: tuple[int, ...]) -> int | None:
    """The tensor of that shape that a sequence was turned round from."""
    for name in ("RESHAPE", "TRANSPOSE"):
        operator = view.written_by(x, name)
        if operator is None or view.shape(int(operator.inputs[0])) != shape:
            continue
        if name == "RESHAPE" and min(shape) > 0 and 1 in shape[:2]:
            return int(operator.inputs[0])
        if (
            name == "TRANSPOSE"
            and view.integers(int(operator.inputs[1])) == _TIME_FIRST
        ):
            return int(operator.inputs[0])
    return None


def _only_reader(
    view: View, tensor: int, name: str, shape: tuple[int, ...]
) -> schema.OperatorT | None:
    """The one operator that reads a tensor, if it makes that shape of it."""
    if tensor in index_list(view.subgraph.outputs):
        return None
    readers = [op for op in view.subgraph.operators if tensor in index_list(op.inputs)]
    if len(readers) != 1 or view.name(readers[0]) != name:
        return None
    if int(readers[0].inputs[0]) != tensor or len(readers[0].outputs) != 1:
        return None
    return readers[0] if view.shape(int(readers[0].outputs[0])) == shape else None


def _cell_name(name: str) -> str:
    """The layer in the name of a tensor that one of its operators writes."""
    parts = name.split(";")[-1].split("/")
    cut = [place for place, part in enumerate(parts) if "cell" in part.lower()]
    return "/".join(parts[: cut[0]] if cut and cut[0] else parts)
