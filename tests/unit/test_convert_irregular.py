# SPDX-License-Identifier: Apache-2.0
"""Weights whose rows share nothing, from dense model to the real LiteRT and back."""

import numpy as np
import pytest
from dense_models import conv_model, fully_connected_model, operators, run

import tfrewprune as trp
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.flatbuffer import read_model
from tfrewprune.converter.options import CONV_2D
from tfrewprune.payload.container import LAYOUT_IRREGULAR, payload_layout


def unstructured(shape, keep: float) -> np.ndarray:
    rng = np.random.default_rng(11)
    weights = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < keep, weights, np.float32(0))


def patterns(rows: int, channels: int, keep: float) -> np.ndarray:
    """Four of nine taps in the kernels kept, each kernel another four."""
    rng = np.random.default_rng(11)
    weights = rng.standard_normal((rows, 3, 3, channels)).astype(np.float32)
    taps = rng.random((rows, 9, channels)).argsort(axis=1) < 4
    taps &= rng.random((rows, 1, channels)) < keep
    return np.where(taps.reshape(weights.shape), weights, np.float32(0))


def layouts(packed: bytes) -> list[int]:
    model = read_model(packed)
    return [
        payload_layout(model.data(model.subgraphs[0].tensors[layer.weight]))
        for layer in find_layers(model)
    ]


CASES = {
    "3x3": (unstructured((32, 3, 3, 48), 1 / 8), (1, 14, 14, 48), {}),
    "patterns": (patterns(48, 32, 0.3), (1, 28, 28, 32), {}),
    "batch": (patterns(32, 32, 0.3), (3, 14, 14, 32), {}),
    "stride": (
        unstructured((32, 3, 3, 32), 1 / 8),
        (1, 28, 28, 32),
        {"stride": (2, 2)},
    ),
    "dilated": (
        *(unstructured((32, 3, 3, 32), 1 / 8), (1, 15, 28, 32)),
        {"dilation": (2, 3)},
    ),
    "valid": (
        *(unstructured((33, 5, 3, 17), 1 / 8), (1, 20, 20, 17)),
        {"padding": "VALID"},
    ),
    "1x1": (unstructured((64, 1, 1, 96), 1 / 16), (1, 28, 28, 96), {}),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("activation", ["NONE", "RELU6"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_convolution_computes_as_before(case, activation, threads, rng):
    weights, shape, options = case
    bias = rng.standard_normal(len(weights)).astype(np.float32)
    dense = conv_model(weights, shape, bias, activation=activation, **options)
    packed = trp.convert(dense)  # by default it compares both models itself
    assert operators(packed) == [CONV_2D]
    assert layouts(packed) == [LAYOUT_IRREGULAR]
    x = rng.standard_normal(shape).astype(np.float32)
    (expected,) = run(dense, x)
    interpreter = trp.Interpreter(model_content=packed, num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    received = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_fully_connected_computes_as_before(batch, rng):
    weights = unstructured((200, 300), 1 / 8)
    dense = fully_connected_model(weights, (batch, 300), activation="RELU")
    packed = trp.convert(dense, minimum_gain=0)
    x = rng.standard_normal((batch, 300)).astype(np.float32)
    (received,) = run(packed, x, packed=True)
    np.testing.assert_allclose(
        received, np.maximum(x @ weights.T, 0), rtol=1e-4, atol=1e-4
    )


def test_an_interpreter_follows_a_resized_input(rng):
    weights = patterns(32, 32, 0.3)
    dense = conv_model(weights, (1, 14, 14, 32), np.ones(32, np.float32))
    packed = trp.convert(dense)
    interpreter = trp.Interpreter(model_content=packed)
    index = interpreter.get_input_details()[0]["index"]
    for shape in [(1, 14, 14, 32), (2, 9, 31, 32), (1, 14, 14, 32)]:
        x = rng.standard_normal(shape).astype(np.float32)
        interpreter.resize_tensor_input(index, shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, x)
        interpreter.invoke()
        received = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        (expected,) = run(conv_model(weights, shape, np.ones(32, np.float32)), x)
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_unpack_gives_the_weights_back_and_inspect_describes_them():
    weights = unstructured((64, 3, 3, 64), 1 / 8)
    dense = conv_model(weights, (1, 28, 28, 64), np.ones(64, np.float32))
    packed = trp.convert(dense)
    assert len(packed) < len(dense) / 4
    (record,) = trp.inspect_model(packed)
    assert record.packed
    assert record.kept == np.count_nonzero(weights)
    assert record.predicted_packed_us < record.predicted_dense_us
    (before,) = trp.inspect_model(dense)
    assert before.predicted_packed_us == pytest.approx(record.predicted_packed_us)
    model = read_model(trp.unpack(packed))
    (layer,) = find_layers(model)
    data = model.data(model.subgraphs[0].tensors[layer.weight])
    stored = np.frombuffer(bytes(data), np.float32).reshape(weights.shape)
    np.testing.assert_array_equal(stored, weights)
