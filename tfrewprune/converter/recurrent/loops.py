# SPDX-License-Identifier: Apache-2.0
"""Writes a recurrence as a WHILE loop of standard operators.

The input projection of all steps is one FULLY_CONNECTED before the loop, the recurrent
one stands in its body. The formulas are those of Keras' GRU, LSTM and SimpleRNN cells:

    LSTM: i, f, g, o = split(W x + U h + b);  c' = s(f) c + s(i) a(g), clipped where the
          options say so;  h' = s(o) a(c')
    GRU:  z = s(x_z + u_z), r = s(x_r + u_r);  n = a(x_n + r u_n), or, when it resets
          before the product, n = a(x_n + U_n (r h));  h' = z h + (1 - z) n
    RNN:  h' = a(W x + U h + b)

with a, s the activation and the recurrent activation. A masked step keeps the states,
and gives out zeros or what the step before gave out.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import Model, tensor_signature
from tfrewprune.converter.options import RecurrentOptions
from tfrewprune.converter.recurrent.graph import BOOL, INT32, Graph
from tfrewprune.converter.recurrent.recurrence import Recurrence, Weights

PREFIX = "TfrewpruneLoop"
"""How the subgraphs of a loop begin their names; the options follow."""

WEIGHTS = "_weights"
"""What the names of weight tensors end in; layer and matrix stand before."""

_ACTIVATIONS = {1: "RELU", 2: "LOGISTIC", 3: "TANH"}


def write_loop(model: Model, index: int, layer: Recurrence) -> list[schema.OperatorT]:
    """Adds the subgraphs of a loop and its tensors; returns its operators.

    Args:
        model: The model.
        index: Its subgraph that the recurrence is in.
        layer: The recurrence, whose outputs the operators write.
    """
    options, units = layer.options, layer.units
    graph = Graph(model, model.subgraphs[index], layer.name)
    batch, steps, _ = tensor_signature(graph.subgraph.tensors[layer.x])
    width = options.gates * units
    projected = graph.fully_connected(
        "kernel", layer.x, layer.kernel, layer.bias, [batch, steps, width]
    )
    begin = [graph.constant("begin", 0), projected]
    begin += [layer.mask] if layer.mask >= 0 else []
    begin += [layer.h] + ([layer.c] if options.lstm else [])
    shapes = [[], [batch, steps, width]]
    shapes += [[batch, steps]] if layer.mask >= 0 else []
    shapes += [[batch, units]] * (2 if options.lstm else 1)
    if layer.mask >= 0:
        begin.append(zeros(graph, "out", projected, [batch, units]))
        shapes.append([batch, units])
    if options.outputs == options.SEQUENCE:
        begin.append(zeros(graph, "all", projected, [batch, steps, units]))
        shapes.append([batch, steps, units])
    name = f"{PREFIX} {' '.join(map(str, options.words()))} {int(layer.mask >= 0)}"
    condition = _write_condition(model, layer, f"{name} condition", shapes)
    body = _write_body(model, layer, f"{name} body", shapes)
    types = _types(layer, len(shapes))
    ends = [graph.tensor(f"end_{i}", shape, types[i]) for i, shape in enumerate(shapes)]
    for place, output in zip(result_places(layer), layer.outputs, strict=True):
        ends[place] = output
    graph.op(
        "WHILE",
        begin,
        ends,
        schema.WhileOptionsT(condSubgraphIndex=condition, bodySubgraphIndex=body),
    )
    return graph.operators


def result_places(layer: Recurrence) -> list[int]:
    """Where among the values of the loop each output of a recurrence is."""
    options = layer.options
    states = 2 + (layer.mask >= 0)
    places = [states] + ([states + 1] if options.lstm else [])
    end = places[-1] + 1
    if options.outputs == options.LAST:
        return [end, *places]
    if options.outputs == options.SEQUENCE:
        return [end + (layer.mask >= 0), *places]
    return places


def _types(layer: Recurrence, count: int) -> list[int]:
    types = [INT32] + [schema.TensorType.FLOAT32] * (count - 1)
    if layer.mask >= 0:
        types[2] = BOOL
    return types


def zeros(graph: Graph, label: str, like: int, shape: Sequence[int]) -> int:
    """Zeros whose unknown dimensions are those of another tensor, of rank 3."""
    if min(shape) >= 0:
        lengths = graph.constant(f"{label}_lengths", list(shape))
    else:
        outer = graph.lengths(f"{label}_outer", like, 3, 0, len(shape) - 1)
        if len(shape) == 2:  # a single length is a scalar
            first = schema.PackOptionsT(valuesCount=1)
            outer = graph.value(f"{label}_one", "PACK", [outer], [1], first, INT32)
        units = graph.constant(f"{label}_units", [shape[-1]])
        lengths = graph.value(
            f"{label}_lengths",
            "CONCATENATION",
            [outer, units],
            [len(shape)],
            schema.ConcatenationOptionsT(),
            INT32,
        )
    zero = graph.constant(f"{label}_zero", 0.0)
    return graph.value(label, "FILL", [lengths, zero], shape, schema.FillOptionsT())


def _values(graph: Graph, layer: Recurrence, shapes: Sequence) -> list[int]:
    types = _types(layer, len(shapes))
    return [
        graph.tensor(f"value_{i}", shape, types[i]) for i, shape in enumerate(shapes)
    ]


def _write_condition(
    model: Model, layer: Recurrence, name: str, shapes: Sequence
) -> int:
    graph = Graph.new(model, name, layer.name)
    values = _values(graph, layer, shapes)
    steps = graph.lengths("steps", values[1], 3, 1, 2)
    more = graph.value(
        "more", "LESS", [values[0], steps], [], schema.LessOptionsT(), BOOL
    )
    return graph.finish(values, [more])


def _write_body(model: Model, layer: Recurrence, name: str, shapes: Sequence) -> int:
    options, units = layer.options, layer.units
    graph = Graph.new(model, name, layer.name)
    values = _values(graph, layer, shapes)
    step, projected = values[:2]
    batch = shapes[1][0]
    state = [batch, units]
    one = graph.constant("one", 1)
    place = step
    if options.go_backwards:
        steps = graph.lengths("steps", projected, 3, 1, 2)
        last = graph.sub("last", steps, one, [], type=INT32)
        place = graph.sub("place", last, step, [], type=INT32)
    x = graph.gather("x", projected, place, [batch, options.gates * units])
    states = 2 + (layer.mask >= 0)
    old = values[states : states + (2 if options.lstm else 1)]
    new = _CELLS[options.kind](graph, layer, x, old, state)
    ends = values[:states]
    ends[0] = graph.add("next", step, one, [], type=INT32)
    out = new[0]
    if layer.mask >= 0:
        masked = graph.gather("step_mask", values[2], place, [batch], BOOL, 3)
        axis = graph.constant("mask_axis", 1)
        expand = schema.ExpandDimsOptionsT()
        column = graph.value(
            "mask_column", "EXPAND_DIMS", [masked, axis], [batch, 1], expand, BOOL
        )
        after = values[states + len(old)]
        if options.zero_output:
            after = graph.constant("nothing", 0.0)

        def pick(label: str, a: int, b: int) -> int:
            chosen = schema.SelectV2OptionsT()
            return graph.value(label, "SELECT_V2", [column, a, b], state, chosen)

        out = pick("out", new[0], after)
        new = [pick(f"kept_{i}", n, o) for i, (n, o) in enumerate(zip(new, old))]  # noqa: B905 (as many)
    ends += new
    if layer.mask >= 0:
        ends.append(out)
    if options.outputs == options.SEQUENCE:
        axis = graph.constant("step_axis", 1)
        shape = [batch, 1, units]
        expand = schema.ExpandDimsOptionsT()
        row = graph.value("row", "EXPAND_DIMS", [out, axis], shape, expand)
        zero = graph.constant("zero", 0)
        pack = schema.PackOptionsT(valuesCount=3)
        at = graph.value("at", "PACK", [zero, step, zero], [3], pack, INT32)
        update = schema.DynamicUpdateSliceOptionsT()
        inputs = [values[-1], row, at]
        ends.append(
            graph.value("all", "DYNAMIC_UPDATE_SLICE", inputs, shapes[-1], update)
        )
    return graph.finish(values, ends)


def _activate(graph: Graph, label: str, code: int, x: int, shape: list[int]) -> int:
    if code == 0:
        return x
    return graph.value(label, _ACTIVATIONS[code], [x], shape)


def _product(
    graph: Graph, label: str, x: int, weights: Weights, bias: int | None
) -> int:
    shape = [weights.rows, weights.columns]
    matrix = graph.tensor(f"{label}{WEIGHTS}", shape, buffer=weights.buffer)
    added = -1
    if bias is not None:
        added = graph.tensor(f"{label}_bias", [weights.rows], buffer=bias)
    batch = tensor_signature(graph.subgraph.tensors[x])[0]
    return graph.fully_connected(label, x, matrix, added, [batch, weights.rows])


def _lstm(
    graph: Graph, layer: Recurrence, x: int, old: list[int], shape: list[int]
) -> list[int]:
    inner, gate = layer.options.activation, layer.options.recurrent_activation
    u = _product(graph, "recurrent_kernel", old[0], layer.recurrent, None)
    total = graph.add("gates", x, u, [shape[0], 4 * shape[1]])
    i, f, g, o = graph.split("gate", total, 4, shape)
    i = _activate(graph, "input_gate", gate, i, shape)
    f = _activate(graph, "forget_gate", gate, f, shape)
    g = _activate(graph, "candidate", inner, g, shape)
    o = _activate(graph, "output_gate", gate, o, shape)
    kept = graph.mul("kept", f, old[1], shape)
    added = graph.mul("added", i, g, shape)
    c = graph.add("cell", kept, added, shape)
    clip = layer.options.cell_clip
    if clip:
        limits = [graph.constant("most", clip), graph.constant("least", -clip)]
        most = schema.MaximumMinimumOptionsT()
        c = graph.value("cell_below", "MINIMUM", [c, limits[0]], shape, most)
        c = graph.value("cell_clipped", "MAXIMUM", [c, limits[1]], shape, most)
    seen = _activate(graph, "cell_activated", inner, c, shape)
    return [graph.mul("state", o, seen, shape), c]


def _gru(
    graph: Graph, layer: Recurrence, x: int, old: list[int], shape: list[int]
) -> list[int]:
    inner, gate = layer.options.activation, layer.options.recurrent_activation
    h = old[0]
    x_z, x_r, x_n = graph.split("x", x, 3, shape)
    bias = layer.recurrent_bias
    u = _product(graph, "recurrent_kernel", h, layer.recurrent, bias)
    parts = graph.split("u", u, 3 if layer.options.reset_after else 2, shape)
    z = graph.add("update_sum", x_z, parts[0], shape)
    r = graph.add("reset_sum", x_r, parts[1], shape)
    z = _activate(graph, "update_gate", gate, z, shape)
    r = _activate(graph, "reset_gate", gate, r, shape)
    if layer.options.reset_after:
        n = graph.mul("reset", r, parts[2], shape)
    else:
        reset = graph.mul("reset", r, h, shape)
        n = _product(graph, "candidate_kernel", reset, layer.candidate, None)
    n = graph.add("candidate_sum", x_n, n, shape)
    n = _activate(graph, "candidate", inner, n, shape)
    kept = graph.mul("kept", z, h, shape)
    whole = graph.constant("whole", 1.0)
    rest = graph.sub("rest", whole, z, shape)
    added = graph.mul("added", rest, n, shape)
    return [graph.add("state", kept, added, shape)]


def _rnn(
    graph: Graph, layer: Recurrence, x: int, old: list[int], shape: list[int]
) -> list[int]:
    u = _product(graph, "recurrent_kernel", old[0], layer.recurrent, None)
    total = graph.add("sum", x, u, shape)
    return [_activate(graph, "state", layer.options.activation, total, shape)]


_CELLS = {
    RecurrentOptions.GRU: _gru,
    RecurrentOptions.LSTM: _lstm,
    RecurrentOptions.RNN: _rnn,
}
