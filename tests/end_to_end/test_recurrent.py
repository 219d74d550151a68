# SPDX-License-Identifier: Apache-2.0
"""Recurrent Keras layers, packed and unpacked, compute what Keras does."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter as LiteRt

import tfrewprune as trp
from tfrewprune.benchmark.compare import run_once
from tfrewprune.converter.export import to_tflite
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.options import RECURRENT

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("needs Keras' TensorFlow backend", allow_module_level=True)
layers = keras.layers


def run(interpreter, *feed):
    """All outputs: those of the model in its order, then states."""
    return run_once(interpreter, feed)


def prune(model, block=16, rate=4, seed=0):
    """Zeroes blocks of neighbouring outputs in all matrices."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith("bias"):
            weight.assign(generator.uniform(-0.5, 0.5, weight.shape))
        elif len(weight.shape) == 2:
            rows, columns = weight.shape
            kept = generator.random((rows, -(-columns // block))) < 1 / rate
            kept[0] = True
            weight.assign(weight.numpy() * np.repeat(kept, block, 1)[:, :columns])


def every_layer(sequences):
    """Layers beside each other, so that one export serves them all."""
    x = keras.Input((None, 5))
    y = layers.Masking()(x) if not sequences else x
    back = {"go_backwards": True, "return_sequences": sequences}
    cells = [layers.GRUCell(9), layers.LSTMCell(16), layers.SimpleRNNCell(7)]
    made = [
        layers.GRU(16, return_sequences=sequences),
        layers.GRU(17, reset_after=False, return_sequences=sequences),
        layers.GRU(16, use_bias=False, dropout=0.2, recurrent_dropout=0.1),
        layers.LSTM(20, return_sequences=sequences),
        layers.LSTM(
            16, use_bias=False, activation="relu", recurrent_activation="linear"
        ),
        layers.SimpleRNN(16, activation="sigmoid", return_sequences=sequences),
        layers.GRU(16, **back),
        layers.LSTM(16, **back),
        layers.Bidirectional(layers.GRU(16, return_sequences=sequences)),
        layers.Bidirectional(layers.LSTM(8), merge_mode="sum"),
        layers.RNN(cells, return_sequences=sequences),
        layers.RNN([layers.LSTMCell(6), layers.GRUCell(5, reset_after=False)], **back),
    ]
    model = keras.Model(x, [layer(y) for layer in made])
    prune(model)
    return model


@pytest.fixture(scope="module", params=[True, False], ids=["sequences", "masked"])
def everything(request):
    keras.utils.set_random_seed(1)
    model = every_layer(request.param)
    return model, trp.convert(model, verify=False)


@pytest.mark.parametrize(("batch", "steps"), [(1, 200), (3, 7), (4, 1)])
def test_packed_and_dense_files_compute_what_keras_does(everything, batch, steps):
    model, packed = everything
    x = np.random.default_rng(2).standard_normal((batch, steps, 5)).astype("f4")
    if steps > 5:
        x[:, 3:5] = 0  # steps that Masking takes out
        x[0, :1] = x[-1, -2:] = 0
    expected = [np.asarray(y) for y in model(x, training=False)]
    interpreter = trp.Interpreter(bytes(packed))
    for content in (interpreter, LiteRt(model_content=trp.unpack(packed))):
        received = run(content, x)
        assert len(received) == len(expected)
        for layer, a, b in zip(model.layers[-12:], expected, received, strict=True):
            np.testing.assert_allclose(b, a, atol=1e-5, err_msg=layer.name)


def test_every_recurrent_layer_is_one_operator(everything):
    model, packed = everything
    graph = read_model(packed)
    assert len(graph.subgraphs) == 1
    found = [graph.custom_code(op) for op in graph.subgraphs[0].operators]
    names = [name.split()[0] for name in found if name]
    # The layers above, two of them twice as large, and cells on top of each other.
    assert names.count("TfrewpruneGRU") == 4 + 2 + 1 + 1
    assert names.count("TfrewpruneLSTM") == 3 + 2 + 1 + 1
    assert names.count("TfrewpruneRNN") == 1 + 1
    assert {r.op for r in trp.inspect_model(bytes(packed))} == {"GRU", "LSTM", "RNN"}
    assert all(r.packed for r in trp.inspect_model(bytes(packed)))


def test_unpacked_files_are_packed_again(everything):
    _, packed = everything
    again = trp.convert(trp.unpack(packed), verify=False)
    assert len(again.report.packed) == len(packed.report.packed)
    x = np.random.default_rng(3).standard_normal((2, 6, 5)).astype("f4")
    first = run(trp.Interpreter(bytes(packed)), x)
    for a, b in zip(first, run(trp.Interpreter(bytes(again)), x), strict=True):
        np.testing.assert_array_equal(a, b)


def small(**options):
    x = keras.Input((None, 5))
    y = layers.GRU(16, return_sequences=True, name="first")(x)
    y = layers.LSTM(16, return_sequences=True, name="second", **options)(y)
    model = keras.Model(x, layers.Dense(3)(y))
    prune(model)
    return model


def test_convert_verifies_and_packs_dense_weights_too():
    dense = keras.Sequential([keras.Input((9, 5)), layers.GRU(24), layers.Dense(4)])
    packed = trp.convert(dense, require_packed=2)
    assert packed.report.difference < 1e-5
    half = trp.convert(dense, weights="float16", tolerance=1e-2)
    assert len(half) < len(packed)


def test_files_hold_surviving_weights():
    model = keras.Sequential([keras.Input((None, 64)), layers.GRU(512)])
    prune(model, rate=4)
    kept = sum(np.count_nonzero(w) for w in model.get_weights())
    packed = trp.convert(model, verify=False)
    assert len(packed) <= 1.05 * 4 * kept


@pytest.mark.parametrize("batch", [1, None])
def test_zeros_to_begin_with_are_neither_stored_nor_made(batch):
    inputs = keras.Input((4, 5), batch_size=batch)
    model = keras.Sequential([inputs, layers.LSTM(16)])
    packed = trp.convert(model)
    x = np.random.default_rng(1).standard_normal((batch or 3, 4, 5)).astype("f4")
    dense = trp.unpack(bytes(packed))
    for interpreter in (trp.Interpreter(bytes(packed)), LiteRt(model_content=dense)):
        received = run(interpreter, x)[0]
        np.testing.assert_allclose(received, np.asarray(model(x)), atol=1e-5)
    for content in (bytes(packed), bytes(trp.convert(dense))):
        (operator,) = read_model(content).subgraphs[0].operators
        assert list(operator.inputs[7:]) == [-1, -1]


def test_states_as_inputs_and_outputs_of_the_model():
    x, h = keras.Input((None, 5), batch_size=1), keras.Input((16,), batch_size=1)
    y, state = layers.GRU(16, return_sequences=True, return_state=True)(
        x, initial_state=h
    )
    model = keras.Model([x, h], [y, state])
    frames = np.random.default_rng(1).standard_normal((1, 6, 5)).astype("f4")
    begin = np.full((1, 16), 0.5, np.float32)
    expected, end = (np.asarray(v) for v in model([frames, begin]))
    interpreter = trp.Interpreter(bytes(trp.convert(model)))
    received, after = run(interpreter, frames, begin)
    np.testing.assert_allclose(received, expected, atol=1e-5)
    np.testing.assert_allclose(after, end, atol=1e-5)
    for t in range(6):  # the same frame by frame
        received, begin = run(interpreter, frames[:, t : t + 1], begin)
        np.testing.assert_allclose(received[:, 0], expected[:, t], atol=1e-5)


def test_layers_that_share_weights_share_bytes():
    shared = layers.GRU(64)
    x = keras.Input((4, 32))
    model = keras.Model(x, shared(x) - shared(x * 2))
    packed = trp.convert(model)
    assert len(packed) < 1.3 * 4 * model.count_params()
    assert len(trp.unpack(packed)) < 1.3 * 4 * model.count_params()


def test_other_cells_and_activations_are_left_to_keras():
    model = keras.Sequential(
        [keras.Input((3, 4), batch_size=1), layers.GRU(8, activation="elu")]
    )
    x = np.random.default_rng(1).standard_normal((1, 3, 4)).astype("f4")
    content = to_tflite(model)
    received = run(LiteRt(model_content=content), x)[0]
    np.testing.assert_allclose(received, np.asarray(model(x)), atol=1e-5)


def test_what_has_no_packed_operator_is_named_where_its_loop_fails():
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            layers.GRU(8, name="good", return_sequences=True),
            layers.GRU(8, name="odd", recurrent_activation="hard_sigmoid"),
        ]
    )
    with pytest.raises(trp.ConversionError, match=r"fix the batch \(batch_size=1") as e:
        trp.convert(model)
    assert "'odd' has recurrent_activation='hard_sigmoid' (packed: li" in str(e.value)
    assert "good" not in str(e.value)
    x = np.random.default_rng(1).standard_normal((1, 5, 4)).astype("f4")
    received = run(trp.Interpreter(trp.convert(model, batch_size=1)), x)[0]
    np.testing.assert_allclose(received, np.asarray(model(x)), atol=1e-5)


def fused(content):
    graph = read_model(content)
    names = [graph.custom_code(op) for op in graph.subgraphs[0].operators]
    return sum(name in RECURRENT for name in names)


def test_a_loop_that_only_claims_to_be_one_stays():
    content = to_tflite(small())
    dense = read_model(content)
    body = next(g for g in dense.subgraphs if b"body" in (g.name or b""))
    swapped = next(
        op for op in body.operators if type(op.builtinOptions).__name__ == "SubOptionsT"
    )
    swapped.inputs = swapped.inputs[::-1]
    changed = write_model(dense)
    packed = trp.convert(changed, minimum_gain=0)  # verified: the body's own products
    assert fused(packed) == 1
    assert fused(trp.convert(content, verify=False)) == 2
    x = np.random.default_rng(1).standard_normal((1, 4, 5)).astype("f4")
    received = run(trp.Interpreter(bytes(packed)), x)[0]
    expected = run(LiteRt(model_content=changed), x)[0]
    np.testing.assert_allclose(received, expected, atol=1e-5)


def test_measuring_leaves_recurrent_layers_fused():
    model = keras.Sequential(
        [
            keras.Input((4, 8), batch_size=1),
            keras.layers.GRU(16, return_sequences=True),
            keras.layers.Dense(64),
        ]
    )
    kernel, bias = model.layers[-1].get_weights()
    kernel[::2] = 0
    model.layers[-1].set_weights([kernel, bias])
    packed = trp.convert(model, measure=True)
    codes = [code.customCode for code in read_model(bytes(packed)).tree.operatorCodes]
    assert sum(b"GRU" in (code or b"") for code in codes) == 1
