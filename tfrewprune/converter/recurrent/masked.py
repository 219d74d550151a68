# SPDX-License-Identifier: Apache-2.0
"""What masked steps give out where a sequence comes in pieces."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import Model, index_list, tensor_signature
from tfrewprune.converter.options import RecurrentOptions
from tfrewprune.converter.recurrent.graph import BOOL, INT32, Graph
from tfrewprune.converter.recurrent.view import View

_MASK = 6  # the input of a packed recurrent operator that is its mask


def repeat_from_before(
    graph: Graph, operator: schema.OperatorT, layer: RecurrentOptions, state: int
) -> None:
    """Lets masked steps give out what a step of the piece before did.

    A masked step gives out what the step before it gave out. The packed operator knows
    none before the first, and begins with zeros; in a stream it is the state that came
    in. (A whole sequence that begins with another state and masked steps gives out
    zeros in Keras: a stream cannot tell such a beginning from a piece.)

    Args:
        graph: Where the operators that do it go.
        operator: A packed recurrent operator, whose first output changes.
        layer: Its options.
        state: The state before its first step.
    """
    mask = index_list(operator.inputs)[_MASK]
    if mask < 0 or layer.zero_output or layer.outputs == layer.STATES:
        return
    outputs = index_list(operator.outputs)
    shape = list(tensor_signature(graph.subgraph.tensors[state]))
    if layer.outputs == layer.SEQUENCE:
        batch, steps = tensor_signature(graph.subgraph.tensors[mask])
        shape.insert(1, steps)
        begun = _begun(graph, mask, [batch, steps])
        axis, expand = graph.constant("step_axis", 1), schema.ExpandDimsOptionsT()
        row = [batch, 1, shape[-1]]
        state = graph.value("before", "EXPAND_DIMS", [state, axis], row, expand)
    else:
        axes, column = graph.constant("steps", [1]), [shape[0], 1]
        any_of = schema.ReducerOptionsT(keepDims=True)
        begun = graph.value("begun", "REDUCE_ANY", [mask, axes], column, any_of, BOOL)
    own, chosen = graph.tensor("own_output", shape), schema.SelectV2OptionsT()
    graph.op("SELECT_V2", [begun, own, state], outputs[:1], chosen)
    operator.outputs = np.array([own, *outputs[1:]], np.int32)


def _begun(graph: Graph, mask: int, times: list[int]) -> int:
    """Whether a step or one before it is not masked, of each step in a column."""
    kinds = schema.CastOptionsT(inDataType=BOOL, outDataType=INT32)
    kept = graph.value("kept", "CAST", [mask], times, kinds, INT32)
    axis, total = graph.constant("sum_axis", 1), schema.CumsumOptionsT()
    count = graph.value("count", "CUMSUM", [kept, axis], times, total, INT32)
    none, more = graph.constant("none", 0), schema.GreaterOptionsT()
    begun = graph.value("begun_row", "GREATER", [count, none], times, more, BOOL)
    axis, expand = graph.constant("unit_axis", 2), schema.ExpandDimsOptionsT()
    column = [*times, 1]
    return graph.value("begun", "EXPAND_DIMS", [begun, axis], column, expand, BOOL)


def masking_values(model: Model) -> list[float]:
    """Numbers that a model compares with, as masking does; 0 is always among them."""
    view = View(model, model.subgraphs[0])
    found: set[float] = {0.0}
    for operator in view.subgraph.operators:
        if view.name(operator) != "NOT_EQUAL":
            continue
        for tensor in index_list(operator.inputs):
            constant = view.constant(tensor)
            if constant is not None and constant.size == 1 and np.isfinite(constant):
                found.add(constant.item())
    return sorted(found)
