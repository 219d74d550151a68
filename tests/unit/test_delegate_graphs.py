# SPDX-License-Identifier: Apache-2.0
"""Layers side by side, in branches, in files and in threads, in the real LiteRT."""

import threading

import numpy as np
import pytest
import tiny_models as tiny
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, load_delegate
from delegated import ask, assert_close, normal, run, start, two_layers

from tfrewprune.runtime.library import delegate_path


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_neighbouring_layers_pass_their_tensor_on(rng):
    graph, expected = two_layers(rng)
    interpreter = start(graph.to_bytes())
    assert ask(interpreter.our_delegate, "tfrewprune_claimed_nodes") == 2
    for shape in [(1, 6, 6, 4), (3, 5, 9, 4)]:
        x = normal(rng, *shape)
        assert_close(run(interpreter, x), expected(x))


def test_tensor_between_two_layers_is_an_output_too(rng):
    graph, expected = two_layers(rng)
    middle = graph.operators[0].outputs[0]
    graph.outputs = [*graph.outputs, middle]
    interpreter = start(graph.to_bytes())
    x = normal(rng, 1, 6, 6, 4)
    assert_close(run(interpreter, x), expected(x))
    index = interpreter.get_output_details()[1]["index"]
    between = interpreter.get_tensor(index)
    assert between.shape == (1, 6, 6, 16)
    assert between.min() == 0 and between.max() > 0


def test_one_payload_serves_two_layers(rng):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 16))
    graph = tiny.conv2d_model(weights, (1, 6, 6, 16))
    first = graph.operators[0]
    z = graph.tensor("z", (1, 6, 6, 16))
    graph.operators.append(
        tiny.Operator(
            first.code, [first.outputs[0], *first.inputs[1:]], [z], first.options
        )
    )
    graph.outputs = [z]
    x = normal(rng, 1, 6, 6, 16)
    expected = tiny.conv2d(tiny.conv2d(x, weights), weights)
    received = run(start(graph.to_bytes()), x)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-3)


def test_layers_inside_the_branches_of_an_if(rng):
    branches = [tiny.sparse_weights(rng, (16, 12)) for _ in range(2)]
    graphs = [tiny.fully_connected_model(w, (2, 12)) for w in branches]
    for graph in graphs:
        graph.tensors[graph.outputs[0]].shape = (2, 16)
    main = tiny.Graph()
    condition = main.tensor("condition", (), dtype=schema.TensorType.BOOL)
    x, y = main.tensor("x", (2, 12)), main.tensor("y", (2, 16))
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    main.operators = [
        tiny.Operator(
            schema.BuiltinOperator.IF,
            [condition, x],
            [y],
            builtin_options=options,
            builtin_options_type=schema.BuiltinOptions.IfOptions,
        )
    ]
    main.inputs, main.outputs = [condition, x], [y]
    interpreter = start(tiny.build(main, *graphs))
    assert ask(interpreter.our_delegate, "tfrewprune_claimed_nodes") == 2
    values = normal(rng, 2, 12)
    for taken, weights in zip([True, False], branches, strict=True):
        received = run(interpreter, np.array(taken), values)
        assert_close(received, values.astype(np.float64) @ weights.T)


def test_xnnpack_takes_what_is_not_ours(rng):
    graph, expected = two_layers(rng)
    last = graph.outputs[0]
    y = graph.tensor("doubled", (1, 6, 6, 24))
    options = schema.AddOptionsT()
    graph.operators.append(
        tiny.Operator(
            schema.BuiltinOperator.ADD,
            [last, last],
            [y],
            builtin_options=options,
            builtin_options_type=schema.BuiltinOptions.AddOptions,
        )
    )
    graph.outputs = [y]
    x = normal(rng, 1, 6, 6, 4)
    assert_close(run(start(graph.to_bytes(), num_threads=2), x), 2 * expected(x))


def test_threads_follow_the_interpreter(rng):
    graph, _ = two_layers(rng)
    for asked, expected in [(None, 1), (1, 1), (3, 3)]:
        interpreter = start(graph.to_bytes(), num_threads=asked)
        interpreter.allocate_tensors()
        assert ask(interpreter.our_delegate, "tfrewprune_threads") == expected


@pytest.mark.parametrize("shift", [0, 1, 2, 4, 8])
def test_payload_at_any_address(rng, capfd, shift):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 4))
    x = normal(rng, 1, 5, 5, 4)
    interpreter = start(tiny.conv2d_model(weights, x.shape).to_bytes(shift=shift))
    assert_close(run(interpreter, x), tiny.conv2d(x, weights))
    assert ("bytes were copied" in capfd.readouterr().err) == (shift % 4 != 0)


def test_payload_is_used_in_place_of_a_mapped_file(rng, tmp_path, capfd):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 4))
    x = normal(rng, 1, 5, 5, 4)
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny.conv2d_model(weights, x.shape).to_bytes())
    delegate = load_delegate(delegate_path())
    interpreter = Interpreter(str(path), experimental_delegates=[delegate])
    assert_close(run(interpreter, x), tiny.conv2d(x, weights))
    assert "copied" not in capfd.readouterr().err


def test_two_interpreters_in_two_threads(rng):
    graph, expected = two_layers(rng)
    model = graph.to_bytes()
    x = [normal(rng, 2, 20, 20, 4) for _ in range(2)]
    wrong = []

    def work(i):
        interpreter = start(model, num_threads=2)
        for _ in range(30):
            y = run(interpreter, x[i])
            if not np.allclose(y, expected(x[i]), atol=1e-4):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
