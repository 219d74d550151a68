# SPDX-License-Identifier: Apache-2.0
"""The steps of a running model: packed layers and what lies between them."""

import json

import pytest
from dense_models import block_sparse, conv, finish, plain
from tiny_models import Graph

from tfrewprune.benchmark.timeline import main, step_table, trace_model
from tfrewprune.converter import convert
from tfrewprune.converter.options import CONV_2D
from tfrewprune.runtime import Interpreter


@pytest.fixture(scope="module")
def model() -> bytes:
    """NEG, conv 3x3, conv 1x1, then ADD of the two and NEG."""
    graph = Graph()
    x = graph.tensor("x", (1, 24, 24, 16))
    y = plain(graph, "NEG", [x], (1, 24, 24, 16), "negative")
    a = conv(graph, y, block_sparse((32, 3, 3, 16)), name="a")
    b = conv(graph, a, block_sparse((32, 1, 1, 32)), name="b")
    z = plain(graph, "ADD", [a, b], (1, 24, 24, 32), "sum")
    z = plain(graph, "NEG", [z], (1, 24, 24, 32), "z")
    return convert(finish(graph, [x], [z]), verify=False, minimum_gain=0.1)


def test_steps_are_the_operators_in_their_order(model):
    steps = trace_model(model, runs=5)
    assert [(step.packed, step.operators) for step in steps] == [
        (False, ("NEG",)),
        (True, (CONV_2D,)),
        (True, (CONV_2D,)),
        (False, ("ADD", "NEG")),
    ]
    assert [step.weights for step in steps] == [(), (32, 3, 3, 16), (32, 1, 1, 32), ()]
    assert [step.shape[-1] for step in steps] == [16, 32, 32, 32]
    assert all(step.seconds > 0 for step in steps)
    # Multiplications of surviving weights only: about a quarter is left.
    dense = 2 * 32 * 9 * 16 * 24 * 24
    assert 0.1 * dense < steps[1].flops < 0.5 * dense
    assert steps[0].flops == steps[3].flops == 0
    json.dumps([step.to_dict() for step in steps])
    assert step_table(steps).row_count == 4


def test_runs_of_layers_lie_inside_the_run_of_the_model(model):
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    traces = interpreter.trace(3)
    assert len(traces) == 3
    for trace in traces:
        times = [time for layer in trace.layers for time in (layer.begin, layer.end)]
        assert times == sorted(times) and len(times) == 4
        assert times[0] > 0 and times[-1] < trace.seconds
        assert [layer.operator for layer in trace.layers] == [1, 2]
    interpreter.invoke()  # nothing is written down any more


def test_command_prints_a_table(model, tmp_path, capsys):
    path = tmp_path / "packed.tflite"
    path.write_bytes(model)
    assert main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "LiteRT" in printed and "32x3x3x16" in printed


def test_only_one_subgraph():
    with pytest.raises(ValueError, match="Received: 2 subgraphs"):
        trace_model(_two_subgraphs())


def _two_subgraphs() -> bytes:
    from tiny_models import build

    graphs = []
    for _ in range(2):
        graph = Graph()
        x = graph.tensor("x", (1, 4))
        graph.inputs, graph.outputs = [x], [plain(graph, "NEG", [x], (1, 4))]
        graphs.append(graph)
    return build(*graphs)
