# SPDX-License-Identifier: Apache-2.0
"""Takes recurrent Keras layers through TensorFlow's converter in one piece.

Keras unrolls a recurrence into TensorFlow operators, of which the converter makes a
loop of some 25 operators, or nothing at all where the batch is open. While a model is
traced, ``kept_whole`` lets each recurrent layer call one function that the converter
must not look into; it arrives in the file as one custom operator, a *composite*, with
the weights as they are in Keras. ``write_loops`` replaces composites by loops.

TensorFlow and Keras are imported inside functions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    Model,
    count_readers,
    drop_unused,
    drop_unused_codes,
    index_list,
    tensor_shape,
)
from tfrewprune.converter.options import RecurrentOptions
from tfrewprune.converter.recurrent.loops import WEIGHTS, write_loop
from tfrewprune.converter.recurrent.recurrence import Recurrence, Weights
from tfrewprune.replacing import replaced_for_now

NAME = "TfrewpruneRecurrence"
_ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")
# The options that a layer of Keras has; what others have besides stays 0.
_NUMBERS = (
    *("kind", "activation", "recurrent_activation", "reset_after", "go_backwards"),
    *("outputs", "zero_output"),
)
_OTHERS = (0, 0)


@contextlib.contextmanager
def kept_whole(model: Any) -> Iterator[int]:
    """Lets the recurrent layers of a model call composites; afterwards as before.

    Layers of other cells, and of activations that the packed operator has not got, are
    left to Keras.

    Yields:
        The number of layers that call composites.
    """
    import keras

    count = 0
    with replaced_for_now() as replace:
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.Bidirectional):
                # Kernels of a GPU, which no mobile file holds.
                replace(layer, "_can_attempt_fused_lstm", lambda *_: False)
                replace(layer, "_can_attempt_fused_gru", lambda *_: False)
            cells = _cells(layer)
            if not cells:
                continue
            replace(layer, "inner_loop", _inner_loop(layer, cells))
            # Dropout draws random numbers, in inference for nothing.
            replace(layer, "_maybe_config_dropout_masks", lambda *_: None)
            count += 1
        yield count


def left_to_keras(model: Any) -> list[str]:
    """Says which recurrent layers of a model have no composite, and why."""
    import keras

    return [
        f"layer {layer.name!r} has {_unknown(layer)}"
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN) and not _cells(layer)
    ]


def _unknown(layer: Any) -> str:
    """What of a recurrent layer no packed operator has."""
    known = _known_activations()
    for cell in _stack(layer):
        for name in ("activation", "recurrent_activation"):
            activation = getattr(cell, name, known[0])
            if activation not in known:
                received = getattr(activation, "__name__", repr(activation))
                return f"{name}={received!r} (packed: {', '.join(_ACTIVATIONS)})"
    return f"a cell of its own ({type(layer.cell).__name__})"


def _cells(layer: Any) -> list[tuple[Any, RecurrentOptions]]:
    """The cells of a recurrent layer with their options; none if one is not known."""
    import keras

    layers = keras.layers
    if not isinstance(layer, layers.RNN):
        return []
    own = (layers.RNN, layers.GRU, layers.LSTM)
    if type(layer).inner_loop not in [known.inner_loop for known in own]:
        return []
    cells = _stack(layer)
    found = []
    for cell in cells:
        made = _options(layer, cell, last=cell is cells[-1])
        if made is None:
            return []
        found.append((cell, made))
    return found


def _stack(layer: Any) -> list[Any]:
    """The cells of a recurrent layer, one on top of the other."""
    import keras

    stacked = isinstance(layer.cell, keras.layers.StackedRNNCells)
    return list(layer.cell.cells) if stacked else [layer.cell]


def _known_activations() -> list[Callable]:
    import keras

    return [getattr(keras.activations, name) for name in _ACTIVATIONS]


def _options(layer: Any, cell: Any, last: bool) -> RecurrentOptions | None:
    import keras

    layers = keras.layers
    kinds = {
        layers.GRUCell.call: RecurrentOptions.GRU,
        layers.LSTMCell.call: RecurrentOptions.LSTM,
        layers.SimpleRNNCell.call: RecurrentOptions.RNN,
    }
    kind = kinds.get(type(cell).call)
    if kind is None:
        return None
    known = _known_activations()
    gate = getattr(cell, "recurrent_activation", known[0])
    if cell.activation not in known or gate not in known:
        return None
    reset_after = kind == RecurrentOptions.GRU and bool(cell.reset_after)
    sequence = layer.return_sequences or not last
    outputs = RecurrentOptions.SEQUENCE if sequence else RecurrentOptions.STATES
    return RecurrentOptions(
        kind,
        known.index(cell.activation),
        known.index(gate),
        int(reset_after),
        # Cells on top of others get what those give out, in that order.
        0,
        outputs,
        int(bool(layer.zero_output_for_mask) and last),
    )


def _inner_loop(layer: Any, cells: list[tuple[Any, RecurrentOptions]]) -> Callable:
    """What stands for `RNN.inner_loop` of a layer."""
    import dataclasses

    import tensorflow as tf
    from keras import ops, tree

    def inner_loop(sequences, initial_state, mask, training=False):
        states = list(initial_state) if tree.is_nested(initial_state) else initial_state
        nested = tree.is_nested(states)
        states = states if nested else [states]
        if tree.is_nested(mask):
            mask = mask[0]
        if mask is not None:
            mask = tf.cast(mask, tf.bool)
            mask = mask[..., 0] if len(mask.shape) == 3 else mask
        stacked = len(cells) > 1 or tree.is_nested(states[0])
        y, after = sequences, []
        last = None
        for number, (cell, options) in enumerate(cells):
            own = states[number] if stacked else states
            own = list(own) if tree.is_nested(own) else [own]
            backwards = layer.go_backwards
            if number > 0 and backwards:
                # The cell below has turned the sequence round already.
                mask = mask if mask is None or number > 1 else tf.reverse(mask, [1])
                backwards = False
            if mask is not None and options.outputs == RecurrentOptions.STATES:
                options = dataclasses.replace(options, outputs=RecurrentOptions.LAST)
            options = dataclasses.replace(options, go_backwards=int(backwards))
            name = layer.name if len(cells) == 1 else f"{layer.name}/{number}"
            results = _call(name, cell, options, y, mask, own)
            own_after = results[-len(own) :]
            last = results[0]
            if options.outputs == RecurrentOptions.SEQUENCE:
                y = results[0]
            single = stacked and not tree.is_nested(states[number])
            after.append(own_after[0] if single else list(own_after))
        states = after if stacked else after[0]
        if layer.return_sequences:
            return last[:, -1], y, states
        return last, ops.expand_dims(last, 1), states

    return inner_loop


def _call(
    name: str, cell: Any, options: RecurrentOptions, x: Any, mask: Any, states: list
) -> tuple:
    """Calls the composite of a cell: its output, if it has one, and its states."""
    import tensorflow as tf
    from keras import ops

    numbers = dict(zip(_NUMBERS, options.words(), strict=False))
    numbers["has_bias"] = int(cell.bias is not None)
    numbers["has_mask"] = int(mask is not None)
    attributes = "".join(
        f' attr {{ key: "{key}" value {{ i: {value} }} }}'
        for key, value in numbers.items()
    )
    layer = "".join(c if c.isprintable() and c not in '"\\' else "_" for c in name)

    @tf.function(
        autograph=False,
        experimental_implements=f'name: "{NAME}" '
        'attr { key: "tfl_fusable_op" value { b: true } } '
        f'attr {{ key: "layer" value {{ s: "{layer}" }} }}{attributes}',
    )
    def composite(x, *others):
        # Nobody runs it: shapes are all that counts.
        ends = [state + 0 for state in others[-len(states) :]]
        if options.outputs == RecurrentOptions.SEQUENCE:
            ends.insert(0, tf.zeros([*tf.unstack(tf.shape(x)[:2]), cell.units]))
            ends[0].set_shape([*x.shape[:2], cell.units])
        elif options.outputs == RecurrentOptions.LAST:
            ends.insert(0, ends[0] + 1)
        return tuple(ends)

    given = [x, cell.kernel, cell.recurrent_kernel]
    given += [] if cell.bias is None else [cell.bias]
    given = [ops.convert_to_tensor(tensor) for tensor in given]
    given += [] if mask is None else [mask]
    return composite(*given, *states)


def write_loops(model: Model) -> None:
    """Replaces every composite in a model by a loop of standard operators.

    Raises:
        ConversionError: If the weights of one are not constants.
    """
    turned: dict[tuple[int, str], int] = {}
    for index, subgraph in enumerate(list(model.subgraphs)):
        operators: list[schema.OperatorT] = []
        constants: list[int] = []
        for operator in subgraph.operators:
            if model.custom_code(operator) != NAME:
                operators.append(operator)
                continue
            constants += index_list(operator.inputs)
            layer = _read(model, subgraph, operator, turned)
            operators += write_loop(model, index, layer)
        subgraph.operators = operators
        _empty(model, subgraph, constants)
    drop_unused_codes(model)
    drop_unused(model)


def _empty(model: Model, subgraph: schema.SubGraphT, tensors: list[int]) -> None:
    """Empties the constants that nothing reads any more; tensors stay in place."""
    readers = count_readers(subgraph)
    for tensor in tensors:
        if not readers[tensor] and model.data(subgraph.tensors[tensor]) is not None:
            subgraph.tensors[tensor].buffer = 0


def _read(
    model: Model,
    subgraph: schema.SubGraphT,
    operator: schema.OperatorT,
    turned: dict[tuple[int, str], int],
) -> Recurrence:
    """The recurrence of a composite; its constants are turned as TFLite has them.

    ``turned`` knows the buffers of those that another composite has, too.
    """
    found = flexbuffers.Loads(bytes(bytearray(operator.customOptions)))
    options = RecurrentOptions.parse([*(found[key] for key in _NUMBERS), *_OTHERS])
    inputs = index_list(operator.inputs)
    x, kernel, recurrent = inputs[:3]
    rest = inputs[3:]
    bias = rest.pop(0) if found["has_bias"] else -1
    mask = rest.pop(0) if found["has_mask"] else -1
    name = found["layer"]

    def constant(tensor: int) -> np.ndarray:
        data = model.data(subgraph.tensors[tensor])
        if data is None:
            raise ConversionError(
                f"the weights of layer {name!r} must be constants; they are computed "
                "in the model"
            )
        return data.view("<f4").reshape(tensor_shape(subgraph.tensors[tensor]))

    def stored(tensor: int, label: str, values: np.ndarray) -> int:
        key = (subgraph.tensors[tensor].buffer, label)
        if key not in turned:
            data = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8)
            model.tree.buffers.append(schema.BufferT(data=data))
            turned[key] = len(model.tree.buffers) - 1
        return turned[key]

    def weights(label: str, matrix: np.ndarray) -> Weights:
        return Weights(stored(recurrent, label, matrix), *matrix.shape)

    def add_tensor(label: str, values: np.ndarray, buffer: int) -> int:
        subgraph.tensors.append(
            schema.TensorT(
                shape=np.array(values.shape, np.int32),
                type=schema.TensorType.FLOAT32,
                buffer=buffer,
                name=f"{name}/{label}",
                hasRank=True,
            )
        )
        return len(subgraph.tensors) - 1

    turned_kernel = constant(kernel).T
    matrix = constant(recurrent).T
    units = matrix.shape[1]
    first, second, recurrent_bias = matrix, None, None
    if options.kind == RecurrentOptions.GRU and not options.reset_after:
        first, second = matrix[: 2 * units], weights("candidate", matrix[2 * units :])
    if bias >= 0:
        biases = constant(bias)
        if options.reset_after:
            recurrent_bias = stored(bias, "recurrent bias", biases[1])
            biases = biases[0]
        bias = add_tensor("bias", biases, stored(bias, "bias", biases))
    kernel = add_tensor(
        f"kernel{WEIGHTS}", turned_kernel, stored(kernel, "kernel", turned_kernel)
    )
    return Recurrence(
        *(options, name, units, x, kernel, bias),
        weights("recurrent", first),
        second,
        recurrent_bias,
        *(mask, rest[0], rest[1] if options.lstm else -1),
        tuple(index_list(operator.outputs)),
    )
