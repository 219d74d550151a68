# SPDX-License-Identifier: Apache-2.0
"""The native delegate's layers inside the real LiteRT interpreter, against numpy."""

import numpy as np
import pytest
import tiny_models as tiny
from ai_edge_litert import schema_py_generated as schema
from delegated import ask, assert_close, normal, run, start


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(params=["auto", "reference"])
def isa(request):
    return request.param


# Convolution


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    "kernel, stride, dilation",
    [
        ((1, 1), (1, 1), (1, 1)),
        ((3, 3), (1, 1), (1, 1)),
        ((3, 3), (2, 2), (1, 1)),
        ((3, 3), (1, 1), (2, 3)),
        ((5, 2), (2, 1), (1, 2)),
        ((1, 1), (2, 3), (1, 1)),
        ((4, 7), (3, 2), (1, 1)),
        ((2, 2), (3, 3), (2, 2)),
    ],
)
def test_conv2d_geometries(rng, isa, kernel, stride, dilation, padding):
    weights = tiny.sparse_weights(rng, (24, *kernel, 5))
    bias = normal(rng, 24)
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    graph = tiny.conv2d_model(weights, (2, 11, 13, 5), bias, **options)
    x = normal(rng, 2, 11, 13, 5)
    interpreter = start(graph.to_bytes(), isa=isa)
    assert_close(run(interpreter, x), tiny.conv2d(x, weights, bias, **options))


@pytest.mark.parametrize("activation", tiny.ACTIVATIONS)
def test_every_activation(rng, isa, activation):
    weights = tiny.sparse_weights(rng, (20, 3, 3, 4))
    bias = normal(rng, 20)
    x = 2 * normal(rng, 1, 7, 6, 4)
    graph = tiny.conv2d_model(weights, x.shape, bias, activation=activation)
    expected = tiny.conv2d(x, weights, bias, activation=activation)
    assert_close(run(start(graph.to_bytes(), isa=isa), x), expected)

    matrix = tiny.sparse_weights(rng, (20, 30))
    x = 2 * normal(rng, 3, 30)
    graph = tiny.fully_connected_model(matrix, x.shape, bias, activation=activation)
    expected = tiny.activate(x.astype(np.float64) @ matrix.T + bias, activation)
    assert_close(run(start(graph.to_bytes(), isa=isa), x), expected)


@pytest.mark.parametrize("band_rows", [4, 8, 16, 32])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_band_heights_and_threads(rng, band_rows, threads):
    weights = tiny.sparse_weights(rng, (50, 3, 3, 6))
    x = normal(rng, 1, 12, 12, 6)
    graph = tiny.conv2d_model(weights, x.shape, band_rows=band_rows)
    interpreter = start(graph.to_bytes(), threads=threads)
    assert_close(run(interpreter, x), tiny.conv2d(x, weights))
    assert ask(interpreter.our_delegate, "tfrewprune_threads") == threads


def test_conv2d_without_a_single_weight_gives_the_bias(rng, isa):
    weights = np.zeros((9, 3, 3, 2), np.float32)
    bias = normal(rng, 9)
    graph = tiny.conv2d_model(weights, (1, 4, 4, 2), bias, activation="RELU")
    y = run(start(graph.to_bytes(), isa=isa), normal(rng, 1, 4, 4, 2))
    np.testing.assert_array_equal(y, np.broadcast_to(np.maximum(bias, 0), (1, 4, 4, 9)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_not_finite_stays_where_it_belongs(rng, isa, value):
    weights = tiny.sparse_weights(rng, (16, 1, 1, 4), keep=1.0)
    x = normal(rng, 1, 3, 3, 4)
    x[0, 1, 1, 2] = value
    graph = tiny.conv2d_model(weights, x.shape)
    y = run(start(graph.to_bytes(), isa=isa), x)
    finite = np.isfinite(y).all(axis=-1)[0]
    assert not finite[1, 1]
    assert finite.sum() == 8


# Shapes that change


def test_unknown_batch_and_resize(rng, isa):
    weights = tiny.sparse_weights(rng, (18, 3, 3, 3))
    bias = normal(rng, 18)
    graph = tiny.conv2d_model(
        weights, (1, 8, 8, 3), bias, signature=(-1, 8, 8, 3), stride=(2, 2)
    )
    interpreter = start(graph.to_bytes(), isa=isa)
    for shape in [(1, 8, 8, 3), (5, 8, 8, 3), (2, 13, 6, 3), (1, 1, 1, 3)]:
        x = normal(rng, *shape)
        assert_close(run(interpreter, x), tiny.conv2d(x, weights, bias, stride=(2, 2)))


def test_resize_to_an_unfit_shape_is_refused_and_the_next_one_works(rng):
    weights = tiny.sparse_weights(rng, (18, 3, 3, 3))
    interpreter = start(tiny.conv2d_model(weights, (1, 8, 8, 3)).to_bytes())
    with pytest.raises(RuntimeError, match=r"height, width, 3\]. Received: \[1, 8, 8"):
        run(interpreter, normal(rng, 1, 8, 8, 4))
    x = normal(rng, 1, 9, 9, 3)
    assert_close(run(interpreter, x), tiny.conv2d(x, weights))


def test_an_empty_batch_gives_an_empty_output(rng):
    matrix = tiny.sparse_weights(rng, (12, 8))
    interpreter = start(tiny.fully_connected_model(matrix, (1, 8)).to_bytes())
    interpreter.resize_tensor_input(0, (0, 8))
    interpreter.allocate_tensors()
    interpreter.invoke()
    index = interpreter.get_output_details()[0]["index"]
    assert tuple(interpreter.get_tensor(index).shape) == (0, 12)


def test_input_whose_shape_is_known_only_while_running(rng):
    # RESHAPE with a computed shape makes its output dynamic.
    weights = tiny.sparse_weights(rng, (16, 3, 3, 2))
    graph = tiny.conv2d_model(weights, (1, 6, 6, 2))
    conv = graph.operators.pop()
    flat = graph.tensor("flat", (72,), signature=(-1,))
    int32 = schema.TensorType.INT32
    wanted = graph.tensor("wanted", (4,), dtype=int32)
    reshape = tiny.Operator(
        schema.BuiltinOperator.RESHAPE, [flat, wanted], [conv.inputs[0]]
    )
    graph.operators = [reshape, conv]
    graph.inputs = [flat, wanted]
    interpreter = start(graph.to_bytes())
    for shape in [(1, 6, 6, 2), (3, 4, 3, 2), (2, 9, 7, 2)]:
        x = normal(rng, *shape)
        y = run(interpreter, x.reshape(-1), np.array(shape, np.int32))
        assert_close(y, tiny.conv2d(x, weights))


# Fully connected


@pytest.mark.parametrize("keep_num_dims", [False, True])
@pytest.mark.parametrize(
    "shape", [(24,), (1, 24), (7, 24), (2, 3, 24), (2, 1, 3, 24), (64, 24)]
)
def test_fully_connected_ranks(rng, isa, shape, keep_num_dims):
    weights = tiny.sparse_weights(rng, (33, 24))
    bias = normal(rng, 33)
    x = normal(rng, *shape)
    graph = tiny.fully_connected_model(
        weights, shape, bias, keep_num_dims=keep_num_dims
    )
    expected = x.astype(np.float64) @ weights.T + bias
    if not keep_num_dims:
        expected = expected.reshape(-1, 33)
    assert_close(run(start(graph.to_bytes(), isa=isa), x), expected)


def test_fully_connected_flattens_across_the_last_dimension(rng):
    weights = tiny.sparse_weights(rng, (16, 24))
    x = normal(rng, 2, 6, 8)  # 96 values = 4 rows of 24
    interpreter = start(tiny.fully_connected_model(weights, x.shape).to_bytes())
    assert_close(run(interpreter, x), x.reshape(4, 24).astype(np.float64) @ weights.T)


def test_bias_computed_by_the_model(rng, isa):
    weights = tiny.sparse_weights(rng, (40, 12))
    x, bias = normal(rng, 3, 12), normal(rng, 40)
    graph = tiny.fully_connected_model(weights, x.shape, "input")
    interpreter = start(graph.to_bytes(), isa=isa)
    for _ in range(2):
        assert_close(run(interpreter, x, bias), x.astype(np.float64) @ weights.T + bias)
        bias = bias[::-1].copy()
