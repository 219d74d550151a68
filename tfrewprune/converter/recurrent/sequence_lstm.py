# SPDX-License-Identifier: Apache-2.0
"""TFLite's own fused LSTM, UNIDIRECTIONAL_SEQUENCE_LSTM: read, and written again.

It keeps its states in variable tensors, from one Invoke to the next until they are
reset; so does the packed operator that takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import Model, index_list, tensor_shape, text
from tfrewprune.converter.options import RecurrentOptions
from tfrewprune.converter.recurrent.graph import Graph
from tfrewprune.converter.recurrent.view import View

OPERATOR = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_FLOAT32 = schema.TensorType.FLOAT32
_GATES = ("input", "forget", "cell", "output")
# Its inputs, in order.
_KERNELS, _RECURRENT, _PEEPHOLES = range(1, 5), range(5, 9), range(9, 12)
_BIASES, _PROJECTION, _STATES, _NORMS = (
    *(range(12, 16), range(16, 18)),
    *(range(18, 20), range(20, 24)),
)
# Of TFLite's activations those that the packed operator has, and its own codes.
_ACTIVATIONS = {1: 1, 4: 3}


@dataclass(frozen=True, eq=False)
class SequenceLstm:
    """What such an operator holds.

    Attributes:
        options: The same as options of a packed layer.
        name: Name of the layer.
        kernel: ``[4 * H, I]``.
        recurrent: ``[4 * H, H]``.
        bias: ``[4 * H]``.
        time_major: Whether sequences are ``[T, B, ...]``.
    """

    options: RecurrentOptions
    name: str
    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    time_major: bool


def refusal(view: View, operator: schema.OperatorT) -> str | None:
    """Why the packed operator does not compute the same; None if it does."""
    found = read(view, operator)
    return found if isinstance(found, str) else None


def read(view: View, operator: schema.OperatorT) -> SequenceLstm | str:
    """The contents of an operator, or the reason why it stays as it is."""
    inputs = index_list(operator.inputs)
    options = operator.builtinOptions
    if not isinstance(options, schema.UnidirectionalSequenceLSTMOptionsT):
        return "the operator carries no UnidirectionalSequenceLSTMOptions"
    if len(inputs) not in (20, 24) or len(operator.outputs) != 1:
        return (
            "an LSTM has 20 or 24 inputs and one output, received "
            f"{len(inputs)} and {len(operator.outputs)}"
        )
    inputs += [-1] * (24 - len(inputs))

    def there(places: Sequence[int]) -> bool:
        return any(inputs[place] >= 0 for place in places)

    if there(_NORMS):
        return "an LSTM with layer normalization is not packed"
    if there(_PEEPHOLES):
        return "an LSTM with peepholes is not packed"
    if there(_PROJECTION):
        return "an LSTM with a projection is not packed"
    if inputs[_KERNELS[0]] < 0 or inputs[_RECURRENT[0]] < 0:
        return "an LSTM whose input gate is tied to its forget gate is not packed"
    if options.diagonalRecurrentTensors:
        return "an LSTM with diagonal recurrent weights is not packed"
    if options.fusedActivationFunction not in _ACTIVATIONS:
        return (
            "an LSTM is packed with activation RELU or TANH, received activation "
            f"{options.fusedActivationFunction}"
        )
    if not (np.isfinite(options.cellClip) and options.cellClip >= 0):
        return f"the cell clip of an LSTM is at least 0, received {options.cellClip}"
    y = int(operator.outputs[0])
    for what, tensor in (("input", inputs[0]), ("output", y)):
        if tensor < 0 or view.type(tensor) != _FLOAT32:
            return f"the {what} of an LSTM is not FLOAT32: integers are not packed"
    arrays = {}
    for what, places in (
        *(("weights", _KERNELS), ("recurrent weights", _RECURRENT)),
        ("bias", _BIASES),
    ):
        parts = [view.floats(inputs[place]) for place in places]
        if any(part is None for part in parts):
            return (
                f"{what} of an LSTM are packed where they are FLOAT32 or FLOAT16 "
                "constants"
            )
        if len({part.shape for part in parts}) != 1:
            return f"{what} of an LSTM's gates have different shapes"
        arrays[what] = np.concatenate(parts)
    kernel, recurrent, bias = arrays.values()
    return _checked(view, inputs, y, options, kernel, recurrent, bias)


def _checked(
    view: View,
    inputs: list[int],
    y: int,
    options: schema.UnidirectionalSequenceLSTMOptionsT,
    kernel: np.ndarray,
    recurrent: np.ndarray,
    bias: np.ndarray,
) -> SequenceLstm | str:
    sequence = view.shape(inputs[0])
    shapes = [kernel.shape, recurrent.shape, bias.shape]
    units = recurrent.shape[-1]
    wanted = [(4 * units, kernel.shape[-1]), (4 * units, units), (4 * units,)]
    if units < 1 or shapes != wanted or len(sequence) != 3:
        return (
            f"an LSTM on {list(sequence)} with weights {shapes} does not fit together"
        )
    batch = sequence[1 if options.timeMajor else 0]
    tensors = view.subgraph.tensors
    for place in _STATES:
        state = inputs[place]
        if state < 0 or not tensors[state].isVariable:
            return "the states of an LSTM are no variable tensors"
        if tensors[state].type != _FLOAT32 or tensor_shape(tensors[state]) != (
            max(batch, 1),
            units,
        ):
            return (
                "the states of an LSTM are not FLOAT32, or not of its batch and units"
            )
    if sequence[2] != kernel.shape[1] or view.shape(y)[-1:] != (units,):
        return (
            f"an LSTM on {list(sequence)} with weights {shapes} does not fit together"
        )
    made = RecurrentOptions(
        RecurrentOptions.LSTM,
        _ACTIVATIONS[options.fusedActivationFunction],
        *(2, 0, 0, RecurrentOptions.SEQUENCE, 0),
        cell_clip=float(options.cellClip),
        stateful=1,
    )
    name = text(tensors[y].name).split(";")[0]
    return SequenceLstm(made, name, kernel, recurrent, bias, bool(options.timeMajor))


def states(operator: schema.OperatorT) -> tuple[int, int]:
    """The variable tensors of its state and its cell state."""
    h, c = (int(operator.inputs[place]) for place in _STATES)
    return h, c


def write(
    model: Model,
    index: int,
    name: str,
    options: RecurrentOptions,
    matrices: Sequence[np.ndarray],
    bias: np.ndarray,
    tensors: Sequence[int],
) -> list[schema.OperatorT]:
    """Adds the constants of such an operator; returns it in a list.

    Args:
        model: The model.
        index: Its subgraph that the operator is for.
        name: Name of the layer.
        options: Those of the packed layer.
        matrices: Kernel and recurrent kernel.
        bias: ``[4 * H]``.
        tensors: Those of the sequence, state, cell state and output.
    """
    graph = Graph(model, model.subgraphs[index], name)

    def parts(label: str, whole: np.ndarray) -> list[int]:
        cut = zip(_GATES, np.split(np.asarray(whole, np.float32), 4), strict=True)
        return [graph.constant(f"{label}_{gate}", part) for gate, part in cut]

    x, h, c, y = tensors
    codes = {own: code for code, own in _ACTIVATIONS.items()}
    inputs = [x, *parts("kernel", matrices[0]), *parts("recurrent", matrices[1])]
    inputs += [-1] * 3 + parts("bias", bias) + [-1] * 2 + [h, c] + [-1] * 4
    graph.op(
        OPERATOR,
        inputs,
        [y],
        schema.UnidirectionalSequenceLSTMOptionsT(
            fusedActivationFunction=codes[options.activation],
            cellClip=options.cell_clip,
        ),
    )
    return graph.operators
