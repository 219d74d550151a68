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
    batch, steps = tensor_signature(graph.subgraph.tensors[mask])
    units = tensor_signature(graph.subgraph.tensors[state])[-1]
    if layer.outputs == layer.SEQUENCE:
        shape = [batch, steps, units]
        kinds = schema.CastOptionsT(inDataType=BOOL, outDataType=INT32)
        ones = graph.value("kept", "CAST", [mask], [batch, steps], kinds, INT32)
        axis, last = graph.constant("time_axis", 1), graph.constant("unit_axis", 2)
        expand = schema.ExpandDimsOptionsT()
        count = graph.value(
            "count",
            *("CUMSUM", [ones, axis], [batch, steps], schema.CumsumOptionsT(), INT32),
        )
        begun = graph.value(
            "begun",
            *("GREATER", [count, graph.constant("none", 0)], [batch, steps]),
            *(schema.GreaterOptionsT(), BOOL),
        )
        begun = graph.value(
            "begun_column",
            *("EXPAND_DIMS", [begun, last], [batch, steps, 1], expand, BOOL),
        )
        before = graph.value(
            "before", "EXPAND_DIMS", [state, axis], [batch, 1, units], expand
        )
    else:
        shape = [batch, units]
        axes = graph.constant("time_axis", [1])
        reduced = schema.ReducerOptionsT(keepDims=True)
        begun = graph.value(
            "begun", "REDUCE_ANY", [mask, axes], [batch, 1], reduced, BOOL
        )
        before = state
    own = graph.tensor("own_output", shape)
    chosen = schema.SelectV2OptionsT()
    graph.op("SELECT_V2", [begun, own, before], outputs[:1], chosen)
    operator.outputs = np.array([own, *outputs[1:]], np.int32)


def masking_values(model: Model) -> list[float]:
    """Numbers that a model compares with, as masking does; 0 is always among them."""
    view = View(model, model.subgraphs[0])
    found = {0.0}
    for operator in view.subgraph.operators:
        if view.name(operator) != "NOT_EQUAL":
            continue
        for tensor in index_list(operator.inputs):
            constant = view.constant(tensor)
            if constant is not None and constant.size == 1:
                found.add(float(constant.reshape(())))
    return sorted(found)
