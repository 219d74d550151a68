# SPDX-License-Identifier: Apache-2.0
"""Finds what cell a piece of a graph computes, from its new state backwards.

Converters write the cells of GRU, LSTM and SimpleRNN in many ways: biases in the
product or behind it, gates by SPLIT or by slices, factors in any order. What counts
here is the sum that each gate activates: which rows of which products, and which
constants. The formulas are those of ``loops``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import index_list
from tfrewprune.converter.options import RecurrentOptions
from tfrewprune.converter.recurrent.view import View

_ACTIVATIONS = {"RELU": 1, "LOGISTIC": 2, "TANH": 3}
_RELU = schema.ActivationFunctionType.RELU
# More summands than any cell has, and deeper than any: graphs may run in circles.
_MOST_TERMS, _DEEPEST = 16, 32


@dataclass(frozen=True, eq=False)
class Cell:
    """One step of a recurrence.

    Attributes:
        kind: `RecurrentOptions.GRU`, `LSTM` or `RNN`.
        activation: As in `RecurrentOptions`.
        recurrent_activation: Likewise.
        x: Tensor that enters the step, ``[B, I]``.
        h: State before, ``[B, H]``.
        c: Cell state before, or None.
        c_new: Cell state after, or None.
        kernel: ``[G * H, I]``.
        recurrent: ``[G * H, H]``; of a GRU that resets first the rows of two gates.
        candidate: The others of such a GRU.
        bias: ``[G * H]``, or None.
        recurrent_bias: Likewise, of a GRU that resets after the product.
    """

    kind: int
    activation: int
    recurrent_activation: int
    x: int
    h: int
    c: int | None
    c_new: int | None
    kernel: np.ndarray
    recurrent: np.ndarray
    candidate: np.ndarray | None
    bias: np.ndarray | None
    recurrent_bias: np.ndarray | None

    @property
    def reset_after(self) -> bool:
        return self.kind == RecurrentOptions.GRU and self.candidate is None


@dataclass(frozen=True)
class _Term:
    """A part of a sum: rows of a tensor, from ``start`` on."""

    tensor: int
    start: int


@dataclass
class _Sum:
    """What a gate activates: rows of products, a constant, and other tensors."""

    products: list[_Term]
    others: list[_Term]
    bias: np.ndarray


@dataclass(frozen=True)
class _Product:
    x: int
    weights: np.ndarray


class CellFinder:
    """Finds cells in one subgraph."""

    def __init__(self, view: View):
        self.view = view

    def lstm(
        self, h_new: int, h: int | None = None, states: tuple[int, int] | None = None
    ) -> Cell | None:
        """The LSTM that computes a state.

        Args:
            h_new: The state.
            h: The one before it; None takes what the second product multiplies.
            states: Cell states before and after; None takes those that fit.
        """
        for out, seen in self.factors(h_new):
            inner, c_new, fused = self.activation(seen)
            if fused or (states and c_new != states[1]):
                continue
            for kept, added in self.operands(c_new, "ADD"):
                for forget, c in self.factors(kept):
                    if states and c != states[0]:
                        continue
                    for enter, candidate in self.factors(added):
                        gates = (enter, forget, candidate, out)
                        found = self._lstm_gates(gates, inner, h)
                        if found is not None:
                            return Cell(*found[:5], c, c_new, *found[5:])
        return None

    def _lstm_gates(self, gates: tuple, inner: int, h: int | None) -> tuple | None:
        codes, sums = zip(*map(self.gate, gates), strict=True)
        if None in sums or codes[0] != codes[1] or codes[0] != codes[3]:
            return None
        if codes[2] != inner or any(s.others for s in sums):
            return None
        pair = self.products(sums, [0, 1, 2, 3], h, (4, 4))
        if pair is None:
            return None
        x, u = pair
        head = (RecurrentOptions.LSTM, inner, codes[0], x.x, u.x)
        return *head, x.weights, u.weights, None, _bias(sums), None

    def gru(self, h_new: int, h: int | None = None) -> Cell | None:
        """The GRU that computes a state from the one before."""
        for kept, mixed in self.operands(h_new, "ADD"):
            for update, before in self.factors(kept):
                if h is not None and before != h:
                    continue
                for rest, candidate in self.factors(mixed):
                    if self.is_rest_of(rest, update):
                        found = self._gru_gates(update, candidate, before)
                        if found is not None:
                            return found
        return None

    def _gru_gates(self, update: int, candidate: int, h: int) -> Cell | None:
        code, z = self.gate(update)
        inner, n = self.gate(candidate)
        if z is None or n is None or z.others:
            return None
        # What the reset gate multiplies: a product with the state, or the state.
        products = [self.product(term.tensor) for term in n.products]
        if None in products:
            return None
        if len(n.others) == 1 and len(products) == 1 and n.others[0].start == 0:
            for reset, inside in self.factors(n.others[0].tensor):
                reset_code, r = self.gate(reset)
                u = self.sum(inside, 0)
                if r is None or u is None or r.others or u.others or reset_code != code:
                    continue
                whole = _Sum(n.products + u.products, [], n.bias)
                pair = self.products([z, r, whole], [0, 1, 2], h, (3, 3))
                if pair is None:
                    continue
                bias, inner_bias = _bias([z, r, n]), None
                if u.bias.any():
                    zeros = np.zeros_like(u.bias)
                    inner_bias = np.concatenate([zeros, zeros, u.bias])
                weights = (pair[0].weights, pair[1].weights, None, bias, inner_bias)
                head = (RecurrentOptions.GRU, inner, code, pair[0].x, h, None, None)
                return Cell(*head, *weights)
        for number, product in enumerate(products):
            if n.others or len(products) != 2:
                break
            for reset, state in self.factors(product.x):
                reset_code, r = self.gate(reset)
                if r is None or r.others or state != h or reset_code != code:
                    continue
                pair = self.products([z, r], [0, 1], h, (3, 2))
                units = self.units(h)
                x, own = n.products[1 - number], n.products[number]
                if pair is None or self.product(x.tensor).x != pair[0].x:
                    continue
                same = any(term.tensor == x.tensor for term in z.products)
                if not same or (x.start, own.start) != (2 * units, 0):
                    continue
                matrices = (pair[0].weights, pair[1].weights, product.weights)
                if product.weights.shape != (units, units):
                    continue
                head = (RecurrentOptions.GRU, inner, code, pair[0].x, h, None, None)
                return Cell(*head, *matrices, _bias([z, r, n]), None)
        return None

    def rnn(self, h_new: int, h: int) -> Cell | None:
        """The SimpleRNN that computes a state from the one before."""
        code, total = self.gate(h_new)
        if total is None or total.others:
            return None
        pair = self.products([total], [0], h, (1, 1))
        if pair is None:
            return None
        head = (RecurrentOptions.RNN, code, 0, pair[0].x, h, None, None)
        return Cell(*head, pair[0].weights, pair[1].weights, None, _bias([total]), None)

    # What the formulas are made of.

    def units(self, tensor: int) -> int:
        shape = self.view.shape(tensor)
        return shape[-1] if shape else -1

    def operands(self, tensor: int, name: str) -> Iterator[tuple[int, int]]:
        """Both orders of what an ADD or MUL without activation reads."""
        operator = self.view.written_by(tensor, name)
        if operator is None or operator.builtinOptions.fusedActivationFunction:
            return
        a, b = index_list(operator.inputs)
        # A factor of another shape would be repeated.
        shape = self.view.shape(tensor)
        if self.view.shape(a) == shape == self.view.shape(b):
            yield from ((a, b), (b, a))

    def factors(self, tensor: int) -> Iterator[tuple[int, int]]:
        return self.operands(tensor, "MUL")

    def is_rest_of(self, tensor: int, gate: int) -> bool:
        """Whether a tensor is 1 - gate."""
        operator = self.view.written_by(tensor, "SUB")
        if operator is None:
            return False
        one = self.view.floats(int(operator.inputs[0]))
        return (
            not operator.builtinOptions.fusedActivationFunction
            and int(operator.inputs[1]) == gate
            and one is not None
            and bool((one == 1).all())
            and one.size in (1, self.units(gate))
        )

    def activation(self, tensor: int) -> tuple[int, int, bool]:
        """Its code, what it reads, and whether it is fused into what writes that."""
        operator = self.view.writer(tensor)
        name = "" if operator is None else self.view.name(operator)
        if name in _ACTIVATIONS:
            return _ACTIVATIONS[name], int(operator.inputs[0]), False
        options = None if operator is None else operator.builtinOptions
        fused = getattr(options, "fusedActivationFunction", 0) == _RELU
        if fused and name in ("ADD", "FULLY_CONNECTED"):
            return 1, tensor, True
        return 0, tensor, False

    def gate(self, tensor: int) -> tuple[int, _Sum | None]:
        """The activation of a gate, and the sum that it activates."""
        code, inside, fused = self.activation(tensor)
        return code, self.sum(inside, 0, fused)

    def sum(self, tensor: int, start: int, fused: bool = False) -> _Sum | None:
        """What adds up to the rows of a tensor; None if it is not known."""
        units = self.units(tensor)
        if units < 1:
            return None
        terms: list[_Term] = []
        self._add_terms(terms, tensor, start, fused)
        total = _Sum([], [], np.zeros(units, np.float32))
        for term in terms:
            constant = self.view.floats(term.tensor)
            if constant is not None:
                rows = constant.reshape(-1)[term.start : term.start + units]
                if constant.size != constant.shape[-1] or len(rows) != units:
                    return None
                total.bias = total.bias + rows
            elif self.view.written_by(term.tensor, "FULLY_CONNECTED"):
                total.products.append(term)
            else:
                total.others.append(term)
        return total

    def _add_terms(
        self,
        terms: list[_Term],
        tensor: int,
        start: int,
        fused: bool = False,
        depth: int = 0,
    ) -> None:
        view = self.view
        operator = view.writer(tensor)
        name = "" if operator is None else view.name(operator)
        inputs = [] if operator is None else index_list(operator.inputs)
        shape = view.shape(tensor)
        activated = getattr(
            getattr(operator, "builtinOptions", None), "fusedActivationFunction", 0
        )
        deeper = depth + 1
        endless = len(terms) >= _MOST_TERMS or deeper > _DEEPEST
        if endless or (activated and not fused):
            terms.append(_Term(tensor, start))
        elif name == "ADD" and all(self._spans(i, shape) for i in inputs):
            for part in inputs:
                self._add_terms(terms, part, start, depth=deeper)
        elif name == "RESHAPE" and self._spans(inputs[0], shape):
            self._add_terms(terms, inputs[0], start, depth=deeper)
        elif name == "SPLIT" and view.integers(inputs[0]) in ([-1], [len(shape) - 1]):
            place = index_list(operator.outputs).index(tensor)
            begin = start + place * shape[-1]
            self._add_terms(terms, inputs[1], begin, depth=deeper)
        elif name == "STRIDED_SLICE" and (begin := self._columns(operator)) is not None:
            self._add_terms(terms, inputs[0], start + begin, depth=deeper)
        elif name == "FULLY_CONNECTED" and len(inputs) > 2 and inputs[2] >= 0:
            terms += [_Term(tensor, start), _Term(inputs[2], start)]
        else:
            terms.append(_Term(tensor, start))

    def _spans(self, tensor: int, shape: tuple[int, ...]) -> bool:
        """Whether a summand is of that shape, or a vector beside a single row."""
        own = self.view.shape(tensor)
        if own == shape or self.view.floats(tensor) is not None:
            return own[-1:] == shape[-1:]
        known = min((*own, *shape), default=-1) > 0
        return known and own[-1:] == shape[-1:] and np.prod(own) == np.prod(shape)

    def _columns(self, operator: schema.OperatorT) -> int | None:
        """The first column of a slice of all rows; None if it is another."""
        x, *edges = index_list(operator.inputs)
        options = operator.builtinOptions
        begin, end, stride = map(self.view.integers, edges)
        rank = len(self.view.shape(x))
        if None in (begin, end, stride) or len(begin) != rank or set(stride) != {1}:
            return None
        if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
            return None
        for axis in range(rank):
            if options.beginMask >> axis & 1:
                begin[axis] = 0
            if axis < rank - 1 and (begin[axis] or not options.endMask >> axis & 1):
                return None
        return begin[-1] if begin[-1] >= 0 else None

    def product(self, tensor: int) -> _Product | None:
        """A fully connected layer of constant weights, without its bias."""
        operator = self.view.written_by(tensor, "FULLY_CONNECTED")
        options = operator and operator.builtinOptions
        if options is None or options.weightsFormat:
            return None
        if options.fusedActivationFunction not in (0, _RELU):
            return None
        x, weights = index_list(operator.inputs)[:2]
        found = self.view.floats(weights)
        if found is None or found.ndim != 2 or len(self.view.shape(x)) != 2:
            return None
        return _Product(x, found) if self.units(x) == found.shape[1] else None

    def products(
        self,
        sums: list[_Sum] | tuple,
        gates: list[int],
        h: int | None,
        rows: tuple[int, int],
    ) -> tuple[_Product, _Product] | None:
        """The products with the input and with the state, if each gate has its rows.

        Args:
            sums: Sums of gates, of two products each.
            gates: Numbers of the gates, in the order of rows.
            h: What the second product multiplies; None takes them as they come.
            rows: How many gates both matrices have.
        """
        units = len(sums[0].bias)
        first = [term.tensor for term in sums[0].products]
        for gate, total in zip(gates, sums, strict=True):
            tensors = [term.tensor for term in total.products]
            if sorted(tensors) != sorted(first) or len(set(tensors)) != 2:
                return None
            if any(term.start != gate * units for term in total.products):
                return None
        pair = [self.product(tensor) for tensor in first]
        if None in pair:
            return None
        if h is not None and pair[1].x != h:
            pair.reverse()
        x, u = pair
        if (h is not None and u.x != h) or u.weights.shape[1] != units:
            return None
        received = (len(x.weights), len(u.weights))
        return (x, u) if received == (rows[0] * units, rows[1] * units) else None


def _bias(sums: list[_Sum] | tuple) -> np.ndarray | None:
    whole = np.concatenate([total.bias for total in sums])
    return whole if whole.any() else None
