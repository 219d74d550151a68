# SPDX-License-Identifier: Apache-2.0
"""Packed convolutions take over the ADD behind them, and give it back."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from dense_models import add, block_sparse, conv, finish, operators, plain, run
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.benchmark.profile import time_layers
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.options import CONV_2D
from tfrewprune.converter.plan import Settings, make_plan
from tfrewprune.converter.verify import verify
from tfrewprune.payload import decode, encode

SHAPE = (1, 6, 6, 16)
CONV, ADD = CONV_2D, "ADD"


def weights(seed=0, size=3):
    return block_sparse((16, size, size, 16), seed=seed)


def pack(content: bytes) -> bytes:
    return trp.convert(content, minimum_gain=0)


def random(shape=SHAPE, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def block(activation="RELU", swapped=False, signature=None, **options) -> bytes:
    """x + conv(x)"""
    graph = Graph()
    x = graph.tensor("x", SHAPE, signature=signature)
    y = conv(graph, x, weights(), np.arange(16), name="inner", **options)
    operands = (y, x) if swapped else (x, y)
    total = add(graph, *operands, activation=activation, name="total")
    return finish(graph, [x], [total])


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU_N1_TO_1", "RELU6"])
def test_a_residual_block_becomes_one_operator(activation, swapped):
    dense = block(activation, swapped)
    packed = pack(dense)
    assert operators(packed) == [CONV]
    (expected,), (received,) = run(dense, random()), run(packed, random(), packed=True)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)
    (record,) = trp.inspect_model(packed)
    assert (record.name, record.packed, record.adds) == ("inner", True, True)
    assert not trp.inspect_model(dense)[0].adds


def test_unpacking_gives_the_sum_back():
    dense = block("RELU6")
    restored = trp.unpack(pack(dense))
    assert operators(restored) == ["CONV_2D", ADD]
    conv_2d, total = read_model(restored).subgraphs[0].operators
    assert conv_2d.builtinOptions.fusedActivationFunction == 0
    assert total.builtinOptions.fusedActivationFunction == 3
    assert [record.name for record in trp.inspect_model(restored)] == ["inner"]
    np.testing.assert_array_equal(run(restored, random())[0], run(dense, random())[0])
    # And once more around.
    assert operators(pack(restored)) == [CONV]


def test_a_convolution_without_bias_comes_back_without():
    graph = Graph()
    x = graph.tensor("x", SHAPE)
    y = conv(graph, x, weights(), None, name="inner")
    dense = finish(graph, [x], [add(graph, x, y)])
    packed = trp.convert(dense, minimum_gain=0, verify=False)  # LiteRT needs a bias
    assert operators(packed) == [CONV]
    restored = read_model(trp.unpack(packed)).subgraphs[0].operators[0]
    assert list(restored.inputs) == [x, y - 1]


def test_of_two_convolutions_the_later_one_adds():
    graph = Graph()
    x = graph.tensor("x", SHAPE)
    shortcut = conv(graph, x, weights(1, 1), np.ones(16), name="shortcut")
    main = conv(graph, x, weights(2), np.ones(16), activation="RELU", name="main")
    main = conv(graph, main, weights(3, 1), np.ones(16), name="last")
    dense = finish(graph, [x], [add(graph, main, shortcut, activation="RELU")])
    packed = pack(dense)
    assert operators(packed) == [CONV] * 3
    records = trp.inspect_model(packed)
    assert [r.name for r in records if r.adds] == ["last"]
    (expected,), (received,) = run(dense, random()), run(packed, random(), packed=True)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        run(trp.unpack(packed), random())[0], run(dense, random())[0]
    )


def test_a_chain_of_blocks():
    graph = Graph()
    x = y = graph.tensor("x", SHAPE)
    for i in range(4):
        inner = conv(graph, y, weights(i), np.ones(16), name=f"conv{i}")
        y = add(graph, inner, y, activation="RELU", name=f"add{i}")
    dense = finish(graph, [x], [y])
    packed = pack(dense)
    assert operators(packed) == [CONV] * 4
    (expected,), (received,) = run(dense, random()), run(packed, random(), packed=True)
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(
        run(trp.unpack(packed), random())[0], run(dense, random())[0]
    )


def test_weights_without_structure_add_too():
    graph = Graph()
    x = graph.tensor("x", SHAPE)
    kernel = random((16, 3, 3, 16), 5)
    kernel[np.abs(kernel) < 1.6] = 0
    y = conv(graph, x, kernel, np.ones(16), name="inner")
    dense = finish(graph, [x], [add(graph, y, x)])
    packed = pack(dense)
    assert operators(packed) == [CONV]
    (expected,), (received,) = run(dense, random()), run(packed, random(), packed=True)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_any_batch_of_a_model_with_one_input():
    dense = block(signature=(-1, *SHAPE[1:]))
    packed = pack(dense)
    assert operators(packed) == [CONV]
    for batch in (1, 3):
        x = random((batch, *SHAPE[1:]))
        (expected,), (received,) = run(dense, x), run(packed, x, packed=True)
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def read_twice(graph, x):
    y = conv(graph, x, weights(), np.ones(16))
    return [add(graph, x, y), plain(graph, "ABS", [y], SHAPE)]


def also_an_output(graph, x):
    y = conv(graph, x, weights(), np.ones(16))
    return [add(graph, x, y), y]


def with_activation(graph, x):
    return [add(graph, x, conv(graph, x, weights(), np.ones(16), activation="RELU"))]


def added_to_itself(graph, x):
    y = conv(graph, x, weights(), np.ones(16))
    return [add(graph, y, y)]


def broadcast(graph, x):
    y = conv(graph, x, weights(), np.ones(16))
    return [add(graph, y, graph.constant("one", np.ones((1, 1, 1, 16))))]


def broadcast_to(graph, x):
    y = conv(graph, x, weights(), np.ones(16), padding="VALID", stride=(6, 6))
    return [add(graph, x, y)]


def residual_comes_later(graph, x):
    y = conv(graph, x, weights(), np.ones(16))
    return [add(graph, y, plain(graph, "ABS", [x], SHAPE))]


def strange_activation(graph, x):
    y = conv(graph, x, weights(), np.ones(16))
    return [add(graph, x, y, activation="TANH")]


def dense_convolution(graph, x):
    return [add(graph, x, conv(graph, x, random((16, 1, 1, 16)), np.ones(16)))]


@pytest.mark.parametrize(
    "build",
    [
        *(read_twice, also_an_output, with_activation, added_to_itself, broadcast),
        *(broadcast_to, residual_comes_later, strange_activation, dense_convolution),
    ],
)
def test_sums_that_stay(build):
    graph = Graph()
    x = graph.tensor("x", SHAPE)
    dense = finish(graph, [x], build(graph, x))
    # "No weight is 0" counts only where a gain is asked for; LiteRT runs no TANH.
    packed = trp.convert(
        dense,
        minimum_gain=1e-9 if build is dense_convolution else 0,
        verify=build is not strange_activation,
    )
    assert ADD in operators(packed)
    assert not any(record.adds for record in trp.inspect_model(packed))


def test_two_inputs_of_unknown_batch_might_broadcast():
    graph = Graph()
    signature = (-1, *SHAPE[1:])
    x = graph.tensor("x", SHAPE, signature=signature)
    other = graph.tensor("other", SHAPE, signature=signature)
    y = conv(graph, x, weights(), np.ones(16))
    total = add(graph, y, other, signature=signature)
    assert ADD in operators(pack(finish(graph, [x, other], [total])))


def test_a_model_that_numbers_its_operators_keeps_them():
    model = read_model(block())
    model.tree.buffers.append(schema.BufferT(data=np.zeros(4, np.uint8)))
    model.tree.metadata = [
        schema.MetadataT(
            name=b"model_control_dependencies", buffer=len(model.tree.buffers) - 1
        )
    ]
    assert ADD in operators(pack(write_model(model)))


def test_verification_names_the_layer_that_adds():
    dense = block()
    wrong = read_model(pack(dense))
    tensor = wrong.subgraphs[0].operators[0].inputs[1]
    buffer = wrong.tree.buffers[wrong.subgraphs[0].tensors[tensor].buffer]
    matrix = decode(buffer.data)
    object.__setattr__(matrix, "value", matrix.value * np.float32(1.5))
    buffer.data = np.frombuffer(encode(matrix), np.uint8)
    original = read_model(dense)
    decisions = make_plan(original, Settings(minimum_gain=0))
    with pytest.raises(trp.ConversionError, match="first layer to differ is 'inner'"):
        verify(original, write_model(wrong), decisions, None, 1e-3)


@pytest.mark.parametrize("word", [0, 1000])
def test_a_residual_without_the_output_before_it_is_damage(word):
    model = read_model(pack(block()))
    operator = model.subgraphs[0].operators[0]
    words = np.frombuffer(bytes(bytearray(operator.customOptions)), np.int32).copy()
    words[12] = word
    operator.customOptions = words.view(np.uint8)
    (layer,) = find_layers(model)
    assert f"received {word - 1 if word else None}" in layer.reason
    with pytest.raises(trp.ConversionError, match="before the sum"):
        trp.unpack(write_model(model))


def test_layers_are_timed_with_their_sums():
    (time,) = time_layers(pack(block()), min_seconds=0.01)
    assert time.name == "inner"
    assert time.packed_in_model
    assert time.ratio.median > 0
