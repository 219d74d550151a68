# SPDX-License-Identifier: Apache-2.0
"""Load time and memory in fresh processes."""

import json

import numpy as np
import pytest
from dense_models import block_sparse, conv, conv_model, finish, plain
from tiny_models import Graph

from tfrewprune.benchmark.layers import Layer, build_model
from tfrewprune.benchmark.load_cost import load_cost
from tfrewprune.benchmark.loading import (
    activation_bytes,
    loading_table,
    main,
    measure_loading,
)
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.converter import convert

LAYER = Layer("large", 1, 1, 2048, 2048)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """16 MiB of dense weights, and 2 MiB of surviving ones."""
    folder = tmp_path_factory.mktemp("pair")
    weights = pruned_weights(LAYER, "block16x1", 8)
    content = build_model(LAYER, weights, np.zeros(LAYER.outputs, np.float32))
    dense = folder / "dense.tflite"
    dense.write_bytes(content)
    packed = folder / "packed.tflite"
    packed.write_bytes(pack_every_layer(content)[0])
    return packed, dense


def test_memory_is_file_activations_and_little_more(pair):
    packed, dense = pair
    loading = measure_loading(packed, dense, repeats=1)
    assert loading.packed_bytes == packed.stat().st_size
    assert loading.activation_bytes == 2 * 2048 * 4
    # LiteRT's own code and heap, 4 to 5 MB, come with every model.
    bound = loading.packed_bytes + loading.activation_bytes + (8 << 20)
    assert loading.packed_bytes < loading.packed.resident_bytes < bound
    # XNNPACK copies dense weights; packed ones stay in the file.
    assert loading.dense.resident_bytes > 1.9 * loading.dense_bytes
    assert 0 < loading.held_share < 0.05
    assert loading.dense.held_bytes == 0
    assert json.loads(json.dumps(loading.to_dict()))["load_ratio"] > 0
    assert loading_table([loading]).row_count == 1


def test_command_writes_json_lines(pair, tmp_path, capsys):
    output = tmp_path / "loading.jsonl"
    words = [str(pair[0]), "--repeats", "1", "--output", str(output)]
    assert main(words) == 0
    assert "packed" in capsys.readouterr().out
    (line,) = output.read_text().splitlines()
    record = json.loads(line)
    assert record["kind"] == "loading"
    # The dense side was made from the packed one.
    assert record["dense_bytes"] == pytest.approx(pair[1].stat().st_size, rel=0.01)


def test_command_wants_something_to_load(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "name packed files or --models" in capsys.readouterr().err


def test_activations_alive_at_the_same_time():
    weights = block_sparse((16, 1, 1, 16))
    one = 8 * 8 * 16 * 4
    single = conv_model(weights, (1, 8, 8, 16))
    assert activation_bytes(single) == 2 * one

    graph = Graph()
    x = graph.tensor("x", (1, 8, 8, 16))
    # Two in a row need no more than one: x is not read again.
    y = conv(graph, conv(graph, x, weights, name="a"), weights, name="b")
    assert activation_bytes(finish(graph, [x], [y])) == 2 * one

    graph = Graph()
    x = graph.tensor("x", (1, 8, 8, 16))
    # A branch past two layers keeps its input alive.
    y = conv(graph, conv(graph, x, weights, name="a"), weights, name="b")
    z = plain(graph, "ADD", [x, y], (1, 8, 8, 16), "z")
    model = finish(graph, [x], [z])
    assert activation_bytes(model) == 3 * one
    assert activation_bytes(convert(model, verify=False)) == 3 * one


def test_loading_garbage_is_an_error(tmp_path):
    path = tmp_path / "garbage.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(RuntimeError, match="garbage.tflite"):
        load_cost(path, repeats=1)
