# SPDX-License-Identifier: Apache-2.0
"""Recurrences that other converters wrote: loops, and single steps without a loop.

TensorFlow's converter makes a WHILE loop of each recurrent Keras layer: counters, the
states, the sequence with time first, of which the body gathers a step, and a list that
it puts its state into. A body is read only as a whole: what it does besides is a reason
to leave it alone. A layer that was unrolled for one step is a cell in the main graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import Model, index_list, text
from tfrewprune.converter.recurrent.cells import Cell, CellFinder
from tfrewprune.converter.recurrent.view import View, is_read


@dataclass(frozen=True, eq=False)
class ForeignLoop:
    """A WHILE loop that is a recurrence.

    Attributes:
        name: Name of the layer.
        cell: What a step does; its tensors are those of the body.
        x: Place of the sequence, ``[T, B, I]``, among the values of the loop.
        h: Place of the state.
        c: Place of the cell state, or None.
        sequences: Places of lists of all steps, ``[T, B, H]``.
        lasts: Places of lists of the last step, ``[1, B, H]``.
    """

    name: str
    cell: Cell
    x: int
    h: int
    c: int | None
    sequences: tuple[int, ...]
    lasts: tuple[int, ...]


def read_loop(
    model: Model, view: View, operator: schema.OperatorT
) -> ForeignLoop | None:
    """What a WHILE loop computes, if that is a recurrence over a whole sequence."""
    options = operator.builtinOptions
    graphs = model.subgraphs
    body = graphs[options.bodySubgraphIndex]
    reader = _Reader(
        view,
        operator,
        View(model, body),
        View(model, graphs[options.condSubgraphIndex]),
    )
    return reader.read(text(body.name).rsplit("/", 1)[0])


class _Reader:
    """Reads one loop; ``main`` is the graph it is in."""

    def __init__(self, main: View, operator: schema.OperatorT, body: View, cond: View):
        self.main, self.body, self.cond = main, body, cond
        self.given = index_list(operator.inputs)
        self.before = index_list(body.subgraph.inputs)
        self.after = index_list(body.subgraph.outputs)
        self.read_results = [
            place
            for place, tensor in enumerate(index_list(operator.outputs))
            if is_read(main, tensor)
        ]

    def read(self, name: str) -> ForeignLoop | None:
        count = len(self.given)
        if count != len(self.before) or count != len(self.after):
            return None
        if not (self.body.computes_only and self.cond.computes_only):
            return None
        places = range(count)
        fixed = {p for p in places if self.before[p] == self.after[p]}
        counters = {p for p in places if self._counts(p)}
        changing = [p for p in places if p not in fixed | counters]
        lists = {p: found for p in changing if (found := self._put(p, counters))}
        states = [p for p in changing if p not in lists]
        found = self._cell(states)
        if found is None or counters & set(self.read_results):
            return None
        cell, h, c = found
        x = self._sequence(cell.x, fixed, counters)
        if x is None or not self._runs_through(x, fixed, counters):
            return None
        if any(y != self.after[h] for y, _ in lists.values()):
            return None
        if set(self.read_results) & fixed:
            return None
        whole = tuple(p for p, (_, all_steps) in lists.items() if all_steps)
        last = tuple(p for p, (_, all_steps) in lists.items() if not all_steps)
        steps = self.main.shape(self.given[x])[0]
        if any(self.main.shape(self.given[p])[0] != steps for p in whole):
            return None
        if last and steps < 1:  # of no steps it would be what the list began with
            return None
        return ForeignLoop(name, cell, x, h, c, whole, last)

    def _counts(self, place: int) -> bool:
        """Whether a value begins at 0 and is one more each time."""
        if self.main.integers(self.given[place]) != [0]:
            return False
        added = self.body.written_by(self.after[place], "ADD")
        if added is None or added.builtinOptions.fusedActivationFunction:
            return False
        a, b = index_list(added.inputs)
        if b == self.before[place]:
            a, b = b, a
        return a == self.before[place] and self.body.integers(b) == [1]

    def _put(self, place: int, counters: set[int]) -> tuple[int, bool] | None:
        """What is put into a list at the step; whether the list has all steps."""
        written = self.after[place]
        shape = self.main.shape(self.given[place])
        if len(shape) != 3:
            return None
        if shape[0] == 1 and self.body.written_by(written, "RESHAPE"):
            return self._row(written, shape), False
        joined = self.body.written_by(written, "CONCATENATION")
        if joined is None or len(joined.inputs) != 3 or joined.builtinOptions.axis:
            return None
        head, row, tail = index_list(joined.inputs)
        old = self.before[place]
        ends = [self._piece(piece, old) for piece in (head, tail)]
        if None in ends:
            return None
        (from_start, until), (begin, to_end) = ends
        if self.body.integers(from_start) != [0, 0, 0]:
            return None
        if self.body.integers(to_end) != [-1, -1, -1]:
            return None
        for counter in counters:
            if self._joined(until) == (self.before[counter], [-1, -1]):
                if self._joined(begin) == (self.after[counter], [0, 0]):
                    put = self._row(row, shape)
                    return None if put is None else (put, True)
        return None

    def _row(self, tensor: int, shape: tuple[int, ...]) -> int | None:
        """What is reshaped to a step of a list."""
        reshaped = self.body.written_by(tensor, "RESHAPE")
        if reshaped is None or self.body.shape(tensor) != (1, *shape[1:]):
            return None
        inner = int(reshaped.inputs[0])
        return inner if self.body.shape(inner) == shape[1:] else None

    def _piece(self, tensor: int, old: int) -> tuple[int, int] | None:
        """Begin and size of a SLICE of a list."""
        cut = self.body.written_by(tensor, "SLICE")
        if cut is None or int(cut.inputs[0]) != old:
            return None
        return int(cut.inputs[1]), int(cut.inputs[2])

    def _joined(self, tensor: int) -> tuple[int, list[int]] | None:
        """The scalar and the constants that make three numbers."""
        joined = self.body.written_by(tensor, "CONCATENATION")
        if joined is None or len(joined.inputs) != 2:
            return None
        first, rest = index_list(joined.inputs)
        scalar = self.body.written_by(first, "RESHAPE")
        return scalar and (int(scalar.inputs[0]), self.body.integers(rest))

    def _cell(self, states: list[int]) -> tuple[Cell, int, int | None] | None:
        finder = CellFinder(self.body)
        if len(states) == 1:
            before, after = self.before[states[0]], self.after[states[0]]
            found = finder.gru(after, before) or finder.rnn(after, before)
            return found and (found, states[0], None)
        if len(states) != 2:
            return None
        for h, c in (states, states[::-1]):
            cells = (self.before[c], self.after[c])
            found = finder.lstm(self.after[h], self.before[h], cells)
            if found is not None:
                return found, h, c
        return None

    def _sequence(self, step: int, fixed: set[int], counters: set[int]) -> int | None:
        """Which value of the loop a step of the input is gathered from."""
        gather = self.body.written_by(step, "GATHER")
        if gather is None or gather.builtinOptions.axis:
            return None
        if gather.builtinOptions.batchDims:
            return None
        source, index = index_list(gather.inputs)
        known = index in [self.before[counter] for counter in counters]
        found = [place for place in fixed if self.before[place] == source]
        return found[0] if known and found else None

    def _runs_through(self, x: int, fixed: set[int], counters: set[int]) -> bool:
        """Whether the condition holds for as many steps as the sequence has."""
        cond = self.cond
        inputs = index_list(cond.subgraph.inputs)
        pending = index_list(cond.subgraph.outputs)
        steps = self.main.shape(self.given[x])
        if len(steps) != 3 or len(pending) != 1 or len(inputs) != len(self.given):
            return False
        seen: set[int] = set()
        while pending:
            tensor = pending.pop()
            if tensor in seen:  # a damaged graph may run in circles
                return False
            seen.add(tensor)
            both = cond.written_by(tensor, "LOGICAL_AND")
            if both is not None:
                pending += index_list(both.inputs)
                continue
            less = cond.written_by(tensor, "LESS")
            if less is None:
                return False
            counter, limit = index_list(less.inputs)
            if counter not in [inputs[place] for place in counters]:
                return False
            places = [place for place in fixed if inputs[place] == limit]
            if places:
                limit = self.given[places[0]]
                if self.main.integers(limit) != [steps[0]]:
                    if not _is_length(self.main, limit, self.given[x]):
                        return False
            elif cond.integers(limit) != [steps[0]]:
                return False
        return True


def _is_length(view: View, tensor: int, sequence: int) -> bool:
    """Whether a scalar is the first dimension of a tensor, read from it."""
    cut = view.written_by(tensor, "STRIDED_SLICE")
    if cut is None or cut.builtinOptions.shrinkAxisMask != 1:
        return False
    shape, begin, *_ = index_list(cut.inputs)
    measured = view.written_by(shape, "SHAPE")
    return (
        view.integers(begin) == [0]
        and measured is not None
        and int(measured.inputs[0]) == sequence
    )


def find_cells(view: View) -> Iterator[tuple[int, Cell]]:
    """LSTM and GRU cells of a graph, each with the tensor of its new state.

    (A SimpleRNN without a loop is two dense layers and a sum, which are packed as
    such.)
    """
    finder = CellFinder(view)
    for operator in view.subgraph.operators:
        name = view.name(operator)
        if name not in ("MUL", "ADD"):
            continue
        h_new = int(operator.outputs[0])
        if len(view.shape(h_new)) != 2 or min(view.shape(h_new)) < 1:
            continue
        found = finder.lstm(h_new) if name == "MUL" else finder.gru(h_new)
        if found is not None:
            yield h_new, found
