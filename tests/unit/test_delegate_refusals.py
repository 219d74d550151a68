# SPDX-License-Identifier: Apache-2.0
"""What the delegate refuses, and what it says, in the real LiteRT interpreter."""

import struct

import numpy as np
import pytest
import tiny_models as tiny
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, load_delegate
from delegated import ask, normal, run, start, two_layers

from tfrewprune.payload import pack_matrix
from tfrewprune.runtime.library import delegate_path


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_without_the_delegate_litert_names_the_operator(rng):
    graph, _ = two_layers(rng)
    with pytest.raises(RuntimeError, match="TfrewpruneConv2D"):
        Interpreter(model_content=graph.to_bytes()).allocate_tensors()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda p: p[:100], "shorter than its header of 128 bytes"),
        (lambda p: p[:-1], "truncated"),
        (lambda p: b"ELF!" + p[4:], "magic bytes TFRP"),
        (lambda p: p[:24] + struct.pack("<I", 12) + p[28:], "band_rows 12"),
        (lambda p: p + b"\0", "trailing bytes"),
    ],
)
def test_damaged_payload(rng, damage, message):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 4))
    payload = damage(pack_matrix(weights.reshape(16, -1)))
    graph = tiny.conv2d_model(weights, (1, 5, 5, 4), payload=payload)
    with pytest.raises(RuntimeError, match="the payload is damaged") as caught:
        start(graph.to_bytes()).allocate_tensors()
    assert message in str(caught.value)
    assert "TfrewpruneConv2D (node 0, output 'y')" in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        (b"", "length in bytes must be from 64 to 64. Received: 0"),
        (bytes(64), "magic"),
        (tiny.fully_connected_options(), "operator kind"),
        (tiny.conv2d_options((3, 3, 5)), "3 x 3 x 5 columns. Received: 36 columns"),
        (tiny.conv2d_options((3, 3, 4), stride=(0, 1)), "stride height"),
        (tiny.conv2d_options((3, 3, 4))[:60], "Received: 60"),
    ],
)
def test_damaged_options(rng, options, message):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 4))
    graph = tiny.conv2d_model(weights, (1, 5, 5, 4), custom_options=options)
    with pytest.raises(RuntimeError) as caught:
        start(graph.to_bytes()).allocate_tensors()
    assert message in str(caught.value)


def test_random_damage_is_refused_or_harmless(rng):
    weights = tiny.sparse_weights(rng, (20, 3, 3, 4))
    payload = pack_matrix(weights.reshape(20, -1))
    options = tiny.conv2d_options((3, 3, 4))
    x = normal(rng, 1, 5, 5, 4)
    refused = 0
    for _ in range(300):
        damaged = [bytearray(payload), bytearray(options)]
        part = damaged[rng.integers(2)]
        for _ in range(rng.integers(1, 4)):
            # The head of a payload decides most.
            place = rng.integers(min(len(part), int(rng.choice([32, 300, 10**6]))))
            part[place] = rng.integers(256)
        graph = tiny.conv2d_model(
            weights,
            x.shape,
            payload=bytes(damaged[0]),
            custom_options=bytes(damaged[1]),
        )
        try:
            y = run(start(graph.to_bytes()), x)
        except RuntimeError as error:
            assert "tfrewprune: TfrewpruneConv2D (node 0" in str(error)
            refused += 1
        else:
            assert y.shape[0] == 1 and y.shape[-1] >= 20
    assert 50 < refused < 300


def test_payload_that_is_computed(rng):
    graph = tiny.conv2d_model(tiny.sparse_weights(rng, (16, 3, 3, 4)), (1, 5, 5, 4))
    uint8 = schema.TensorType.UINT8
    graph.operators[0].inputs[1] = graph.tensor("computed", (500,), dtype=uint8)
    graph.inputs.append(graph.operators[0].inputs[1])
    with pytest.raises(RuntimeError, match="must be a constant of the model"):
        start(graph.to_bytes()).allocate_tensors()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"threads": 0}, "from 1 to 64. Received: '0'"),
        ({"threads": "many"}, "Received: 'many'"),
        ({"isa": "sse2"}, "neon, portable or reference. Received: 'sse2'"),
        ({"log_level": "all"}, "error, warning, info or debug"),
        ({"precision": "half"}, "float32 or float16. Received: 'half'"),
        ({"num_threads": 2}, "threads, isa and log_level. Received: 'num_threads'"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError) as caught:
        load_delegate(delegate_path(), options)
    assert message in str(caught.value)


def test_log_levels(rng, capfd):
    graph, _ = two_layers(rng)
    printed = {}
    for level in ["error", "warning", "info", "debug"]:
        start(graph.to_bytes(), log_level=level).allocate_tensors()
        text = capfd.readouterr().err
        printed[level] = [line for line in text.splitlines() if "tfrewprune" in line]
    assert printed["error"] == printed["warning"] == []
    assert len(printed["info"]) == 1
    assert "claimed 2 of 2 nodes" in printed["info"][0]
    assert len(printed["debug"]) == 3
    assert "Conv2D 1x6x6x4 -> 6x6x16, kernel 3x3" in printed["debug"][1]


def test_a_graph_without_packed_layers_is_reported(capfd):
    graph = tiny.Graph()
    x, y = graph.tensor("x", (4,)), graph.tensor("y", (4,))
    graph.operators = [tiny.Operator(schema.BuiltinOperator.ABS, [x], [y])]
    graph.inputs, graph.outputs = [x], [y]
    interpreter = start(graph.to_bytes())
    assert ask(interpreter.our_delegate, "tfrewprune_claimed_nodes") == 0
    assert "claimed none of 1 nodes" in capfd.readouterr().err
    np.testing.assert_array_equal(
        run(interpreter, np.array([-1, 2, -3, 4], np.float32)), [1, 2, 3, 4]
    )
