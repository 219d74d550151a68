# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers in files that TensorFlow's converter wrote become the fused op.

All layers of a test stand beside each other, so that one conversion serves them all.
"""

import copy

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter as LiteRt

import tfrewprune as trp
from tfrewprune.converter.conversion import with_own_loops
from tfrewprune.converter.flatbuffer import index_list, read_model, write_model
from tfrewprune.converter.options import RECURRENT
from tfrewprune.converter.recurrent.adopt import adopt
from tfrewprune.experiments.dtln import source

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("needs Keras' TensorFlow backend", allow_module_level=True)
layers = keras.layers
CODES = schema.BuiltinOperator


def by_tensorflow(model, batch, folder, half=False) -> bytes:
    """What TensorFlow's own converter makes of a Keras model."""
    from tfrewprune.converter.tracing import save_for_inference

    save_for_inference(model, folder, batch, whole=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def randomized(model):
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(generator.uniform(-0.5, 0.5, weight.shape))
    return model


def outputs(interpreter, calls=3):
    random = np.random.default_rng(3)
    interpreter.allocate_tensors()
    found = []
    for _ in range(calls):
        for detail in interpreter.get_input_details():
            values = random.standard_normal(detail["shape"]).astype("f4")
            interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            found.append(interpreter.get_tensor(detail["index"]))
    return found


def check_same(content, packed):
    expected = outputs(LiteRt(model_content=bytes(content)))
    dense = LiteRt(model_content=trp.unpack(bytes(packed)))
    for interpreter in (trp.Interpreter(bytes(packed)), dense):
        for a, b in zip(expected, outputs(interpreter), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-5)


def fused(content) -> int:
    graph = read_model(bytes(content))
    names = [graph.custom_code(op) for s in graph.subgraphs for op in s.operators]
    return sum(name in RECURRENT for name in names)


def loops(content) -> int:
    graph = read_model(bytes(content))
    return sum(
        graph.builtin_code(op) == CODES.WHILE
        for s in graph.subgraphs
        for op in s.operators
    )


def made_layers():
    back = {"go_backwards": True, "return_sequences": True}
    return [
        layers.LSTM(16, return_sequences=True),
        layers.LSTM(9, activation="relu"),
        layers.LSTM(1, use_bias=False, **back),
        layers.GRU(16, return_sequences=True),
        layers.GRU(8, reset_after=False, **back),
        layers.GRU(7, activation="linear", recurrent_activation="tanh"),
        layers.SimpleRNN(16, activation="relu", return_sequences=True),
        layers.SimpleRNN(5, activation="sigmoid"),
        layers.Bidirectional(layers.GRU(8, return_sequences=True)),
        layers.Bidirectional(layers.LSTM(8), merge_mode="sum"),
    ]


@pytest.fixture(scope="module", params=[1, 3], ids=["one", "batch"])
def everything(request, tmp_path_factory):
    """A file and how many loops are in it; of a batch a few layers say enough."""
    keras.utils.set_random_seed(1)
    x = keras.Input((6, 5))
    h, c = keras.Input((16,)), keras.Input((16,))
    stated = layers.LSTM(16, return_sequences=True, return_state=True)
    chosen = made_layers() if request.param == 1 else made_layers()[::3]
    made = [layer(x) for layer in chosen]
    model = randomized(
        keras.Model([x, h, c], [*made, *stated(x, initial_state=[h, c])])
    )
    content = by_tensorflow(model, request.param, tmp_path_factory.mktemp("saved"))
    return content, 13 if request.param == 1 else 6


def test_every_layer_becomes_one_operator(everything):
    everything, count = everything
    assert loops(everything) == count
    packed = trp.convert(everything)
    assert fused(packed) == count and loops(packed) == 0
    assert len(read_model(bytes(packed)).subgraphs) == 1
    assert packed.report.difference < 1e-5
    check_same(everything, packed)
    again = trp.convert(trp.unpack(bytes(packed)), verify=False)
    assert fused(again) == count


def test_open_time_masks_and_stacks(tmp_path):
    """A masked loop keeps its form; the step inside it is one operator."""
    x = keras.Input((None, 5))
    y = layers.GRU(8, return_sequences=True)(x)
    model = randomized(keras.Model(x, layers.LSTM(8)(y)))
    # Of no steps, the last one is what TensorFlow's list began with.
    content = by_tensorflow(model, 1, tmp_path / "open")
    packed = trp.convert(content)
    assert (fused(packed), loops(packed)) == (2, 1)
    check_same(content, packed)
    masked = keras.Sequential([keras.Input((6, 5)), layers.Masking(), layers.LSTM(8)])
    content = by_tensorflow(randomized(masked), 1, tmp_path / "masked")
    packed = trp.convert(content)
    assert (fused(packed), loops(packed)) == (1, 1)
    check_same(content, packed)


def test_float16_weights_stay_float16(tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 32)), layers.LSTM(64, return_sequences=True), layers.GRU(32)]
    )
    content = by_tensorflow(randomized(model), 1, tmp_path, half=True)
    packed = trp.convert(content)
    assert fused(packed) == 2
    assert len(packed) < 1.25 * 2 * model.count_params()
    check_same(content, packed)


def test_layers_unrolled_step_by_step(tmp_path):
    x = keras.Input((3, 5))
    made = [layers.LSTM(8, unroll=True)(x), layers.GRU(8, unroll=True)(x)]
    content = by_tensorflow(randomized(keras.Model(x, made)), 1, tmp_path)
    packed = trp.convert(content)
    # TensorFlow folds the product of the first step's zeros.
    assert fused(packed) == 4
    check_same(content, packed)


def test_dtln_runs_in_the_fused_operator():
    """A trained noise suppressor, from elsewhere: two LSTMs, a frame a call."""
    try:
        content = source()
    except FileNotFoundError:
        pytest.skip("the trained models are not here")
    packed = trp.convert(content)
    assert fused(packed) == 2
    assert {layer.name.split("/", 1)[1] for layer in packed.report.packed} == {
        f"lstm_{n}/{matrix}"
        for n in (4, 5)
        for matrix in ("kernel", "recurrent_kernel")
    }
    check_same(content, packed)


# What looks much like a recurrence and is none.


@pytest.fixture(scope="module")
def lstm_and_gru(tmp_path_factory):
    x = keras.Input((6, 5))
    made = [layers.LSTM(8, return_sequences=True)(x), layers.GRU(8)(x)]
    model = randomized(keras.Model(x, made))
    return by_tensorflow(model, 1, tmp_path_factory.mktemp("two"))


def bodies(graph):
    """The bodies of the LSTM's and of the GRU's loop."""
    found = [
        graph.subgraphs[op.builtinOptions.bodySubgraphIndex]
        for op in graph.subgraphs[0].operators
        if graph.builtin_code(op) == CODES.WHILE
    ]
    return sorted(found, key=lambda body: b"lstm" not in body.name)


def operators(graph, body, code):
    return [op for op in body.operators if graph.builtin_code(op) == code]


def swap_gates(graph):
    (split,) = operators(graph, bodies(graph)[0], CODES.SPLIT)
    split.outputs = split.outputs[[1, 0, 2, 3]]


def swap_subtraction(graph):
    (sub,) = operators(graph, bodies(graph)[1], CODES.SUB)
    sub.inputs = sub.inputs[::-1]


def step_by_two(graph):
    body = bodies(graph)[0]
    add = next(
        op for op in body.operators if op.outputs[0] in index_list(body.outputs)[:2]
    )
    one = next(
        t for t in index_list(add.inputs) if graph.data(body.tensors[t]) is not None
    )
    two = copy.copy(body.tensors[one])
    graph.tree.buffers.append(schema.BufferT(data=np.array([2], "<i4").view(np.uint8)))
    two.buffer = len(graph.tree.buffers) - 1
    body.tensors.append(two)
    add.inputs = np.array(
        [t if t != one else len(body.tensors) - 1 for t in add.inputs]
    )


def another_activation(graph):
    body = bodies(graph)[1]
    tanh = operators(graph, body, CODES.TANH)[0]
    tanh.opcodeIndex = operators(graph, body, CODES.LOGISTIC)[0].opcodeIndex


def relu_on_a_sum(graph):
    body = bodies(graph)[0]
    for op in operators(graph, body, CODES.ADD)[-2:]:
        op.builtinOptions.fusedActivationFunction = 1


@pytest.mark.parametrize(
    "change",
    [swap_gates, swap_subtraction, another_activation, relu_on_a_sum],
    ids=lambda change: change.__name__,
)
def test_what_computes_something_else_is_not_taken_for_it(lstm_and_gru, change):
    assert fused(trp.convert(lstm_and_gru, verify=False)) == 2
    graph = read_model(lstm_and_gru)
    change(graph)
    content = write_model(graph)
    packed = trp.convert(content)  # verified
    if change is another_activation:  # a GRU of another kind
        assert fused(packed) == 2
    else:
        assert fused(packed) == 1
    check_same(content, packed)


def test_a_loop_of_fewer_steps_is_left_alone(lstm_and_gru):
    graph = read_model(lstm_and_gru)
    step_by_two(graph)
    content = write_model(graph)
    assert fused(with_own_loops(content)) == 0
    own = read_model(with_own_loops(content))
    names = [g.name.decode() for g in own.subgraphs[1:]]
    assert sum("TfrewpruneLoop" in name for name in names) >= 2


def test_damage_never_crashes(lstm_and_gru):
    """Whatever a file says, it is a recurrence or it is none."""
    random = np.random.default_rng(4)
    taken = 0
    for _ in range(60):
        graph = read_model(lstm_and_gru)
        for _ in range(random.integers(1, 4)):
            subgraph = graph.subgraphs[random.integers(len(graph.subgraphs))]
            op = subgraph.operators[random.integers(len(subgraph.operators))]
            inputs = index_list(op.inputs)
            kind = random.integers(5)
            if kind == 0 and inputs:
                inputs[random.integers(len(inputs))] = random.integers(
                    -1, len(subgraph.tensors)
                )
            elif kind == 1:
                inputs = inputs[: random.integers(len(inputs) + 1)]
            elif kind == 2:
                op.builtinOptions = None
            elif kind == 3:
                op.opcodeIndex = random.integers(len(graph.tree.operatorCodes))
            else:
                tensor = subgraph.tensors[random.integers(len(subgraph.tensors))]
                tensor.shape = random.integers(0, 7, random.integers(4)).astype("i4")
                tensor.shapeSignature = None
            op.inputs = np.array(inputs, np.int32)
        taken += adopt(graph)
    assert taken > 5


def test_no_steps_and_one(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, 5)), layers.GRU(8, return_sequences=True)]
    )
    content = by_tensorflow(randomized(model), 1, tmp_path)
    packed = trp.convert(content)
    assert fused(packed) == 1
    for steps in (1, 0, 2):
        found = []
        for made in (LiteRt(model_content=content), trp.Interpreter(bytes(packed))):
            (x,), (y,) = made.get_input_details(), made.get_output_details()
            made.resize_tensor_input(x["index"], (1, steps, 5))
            made.allocate_tensors()
            made.set_tensor(x["index"], np.ones((1, steps, 5), np.float32))
            made.invoke()
            found.append(made.get_tensor(y["index"]))
        assert found[1].shape == (1, steps, 8)
        if steps:
            np.testing.assert_allclose(found[1], found[0], atol=1e-5)
