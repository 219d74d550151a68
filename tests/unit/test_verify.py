# SPDX-License-Identifier: Apache-2.0
"""Verification notices wrong models, names the layer, and survives crashes."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from dense_models import (
    block_sparse,
    conv,
    conv_model,
    finish,
    fully_connected,
    operators,
    plain,
)
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.converter.cases import given_cases, random_cases
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.isolation import run_models
from tfrewprune.converter.open_sizes import running_cases
from tfrewprune.converter.options import FULLY_CONNECTED
from tfrewprune.converter.plan import Settings, make_plan
from tfrewprune.converter.verify import largest_difference, verify
from tfrewprune.payload import decode, encode


def two_layers() -> bytes:
    graph = Graph()
    x = graph.tensor("x", (1, 6, 6, 4), signature=(-1, 6, 6, 4))
    y = conv(graph, x, block_sparse((16, 3, 3, 4)), np.zeros(16), name="first")
    y = conv(graph, y, block_sparse((8, 1, 1, 16)), np.zeros(8), name="second")
    return finish(graph, [x], [y])


DENSE = two_layers()
PACKED = trp.convert(DENSE, minimum_gain=0)


def with_scaled_weights(content, operator, factor):
    model = read_model(content)
    tensor = model.subgraphs[0].operators[operator].inputs[1]
    buffer = model.tree.buffers[model.subgraphs[0].tensors[tensor].buffer]
    matrix = decode(buffer.data)
    object.__setattr__(matrix, "value", matrix.value * np.float32(factor))
    buffer.data = np.frombuffer(encode(matrix), np.uint8)
    return write_model(model)


def check(dense, packed, tolerance=1e-3):
    original = read_model(dense)
    decisions = make_plan(original, Settings(minimum_gain=0))
    return verify(original, packed, decisions, None, tolerance)


def test_a_right_model_passes_with_its_difference():
    assert 0 <= check(DENSE, PACKED) < 1e-5


@pytest.mark.parametrize("operator, name", [(0, "first"), (1, "second")])
def test_a_wrong_layer_is_named_with_its_difference(operator, name):
    wrong = with_scaled_weights(PACKED, operator, 1.05)
    message = (
        r"outputs differ by 0\.05 of their largest magnitude, expected at most 0\.001; "
        rf"the first layer to differ is '{name}', by 0\.05"
    )
    with pytest.raises(trp.ConversionError, match=message):
        check(DENSE, wrong)
    assert check(DENSE, wrong, tolerance=0.06) > 0.04


def test_a_model_that_litert_refuses_is_reported_with_its_reason():
    graph = Graph()
    x = graph.tensor("x", (1, 8))
    y = fully_connected(graph, x, block_sparse((16, 8)))
    y = plain(graph, "ADD", [y, graph.constant("c", np.zeros(5))], (1, 16), "z")
    with pytest.raises(
        trp.ConversionError, match="LiteRT cannot run the dense model: RuntimeError"
    ):
        trp.convert(finish(graph, [x], [y]), minimum_gain=0)


def test_a_crash_of_the_interpreter_does_not_reach_the_caller():
    """Operators without their options; without isolation some LiteRTs dereference 0."""
    model = read_model(DENSE)
    for operator in model.subgraphs[0].operators:
        operator.builtinOptions = None
        operator.builtinOptionsType = 0
    cases = random_cases(read_model(DENSE))
    with pytest.raises(trp.ConversionError, match="LiteRT (crashed|cannot run)"):
        run_models({"dense": (write_model(model), False)}, cases)


def test_random_inputs_reach_every_type_and_unknown_size():
    graph = Graph()
    x = graph.tensor("x", (1, 3), signature=(-1, 3))
    ids = graph.tensor("ids", (4,), dtype=schema.TensorType.INT32)
    text = graph.tensor("text", (2,), dtype=schema.TensorType.STRING)
    content = finish(graph, [x, ids, text], [x])
    first, second = random_cases(read_model(content))
    assert first.feed[0].shape == (1, 3) and second.feed[0].shape == (2, 3)
    assert first.feed[0].dtype == np.float32
    assert first.feed[1].dtype == np.int32 and set(first.feed[1]) <= {0, 1}
    assert first.feed[2].dtype.kind == "S"


def tall_filters(height):
    return conv_model(
        block_sparse((16, height, 1, 4)),
        (1, height, 1, 4),
        np.zeros(16),
        signature=(-1, -1, -1, 4),
        padding="VALID",
    )


def test_a_model_is_run_at_the_first_open_sizes_that_fit_it():
    content = tall_filters(5)
    packed = trp.convert(content, minimum_gain=0)
    assert packed.report.difference < 1e-5
    original = read_model(content)
    given = given_cases(original, [np.zeros((1, 6, 2, 4), "f4")])
    (only,) = running_cases(original, content, given)
    assert only.feed[0].shape == (1, 6, 2, 4)
    first, second = running_cases(original, content, [])
    assert first.feed[0].shape == (3, 8, 8, 4)
    assert second.feed[0].shape == (3, 32, 32, 4)


def test_open_sizes_of_which_none_fits_are_asked_for():
    content = tall_filters(300)
    with pytest.raises(trp.ConversionError, match=r"inputs=\[.*verify=False.*LiteRT"):
        trp.convert(content, minimum_gain=0)
    x = np.random.default_rng(0).standard_normal((1, 300, 1, 4)).astype("f4")
    assert trp.convert(content, minimum_gain=0, inputs=[x]).report.difference < 1e-5


def test_integer_inputs_and_outputs_are_compared():
    graph = Graph()
    ids = graph.tensor("ids", (1, 8), dtype=schema.TensorType.INT32)
    x = plain(graph, "CAST", [ids], (1, 8), "x")
    y = fully_connected(graph, x, block_sparse((16, 8)))
    z = plain(graph, "CAST", [y], (1, 16), "z", dtype=schema.TensorType.INT32)
    packed = trp.convert(finish(graph, [ids], [y, z]), minimum_gain=0)
    assert operators(packed) == ["CAST", FULLY_CONNECTED, "CAST"]


def array(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    "dense, packed, expected",
    [
        (array(1, -4), array(1, -4), 0),
        (array(1, -4), array(2, -4), 0.25),
        (array(1, np.inf), array(1, np.inf), 0),
        (array(1, np.nan), array(2, np.nan), 1),
        (array(1, np.inf), array(1, -np.inf), np.inf),
        (array(1, 2), array(1, np.nan), np.inf),
        (array(1, 2), array(1), np.inf),
        (array(), array(), 0),
        (np.array([1, 2]), np.array([1, 2]), 0),
        (np.array([1, 2]), np.array([1, 3]), np.inf),
        (array(1), np.array([1.0]), np.inf),
    ],
)
def test_largest_difference(dense, packed, expected):
    assert largest_difference(dense, packed) == expected
