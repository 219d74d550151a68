# SPDX-License-Identifier: Apache-2.0
"""What a packed file says about itself."""

import json

import dense_models as dense
import numpy as np
import pytest

import tfrewprune as trp
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.hosts import RUNS_IN, read_hosts
from tfrewprune.inspection import runs_in

CONV = dense.conv_model(
    dense.block_sparse((32, 3, 3, 8)), (1, 6, 6, 8), np.ones(32, np.float32)
)
PACKED = trp.convert(CONV, minimum_gain=0)


def codes(content):
    model = read_model(content)
    return [
        max(code.builtinCode, code.deprecatedBuiltinCode)
        for code in model.tree.operatorCodes
    ], [code.version for code in model.tree.operatorCodes]


def test_a_packed_file_names_its_hosts():
    assert read_hosts(read_model(PACKED)) == tuple(RUNS_IN)
    assert runs_in(PACKED) == RUNS_IN


def test_a_dense_file_runs_anywhere_and_says_nothing():
    assert read_hosts(read_model(CONV)) == ()
    assert runs_in(CONV) == {}
    assert runs_in(trp.unpack(PACKED)) == {}


def test_operators_that_no_layer_uses_leave_the_file():
    """A TFLite built with few operators refuses what it does not know."""
    assert codes(PACKED) == ([32], [1])  # CUSTOM


@pytest.mark.parametrize("version", [1, 3])
def test_they_come_back_with_their_version(version):
    model = read_model(CONV)
    model.tree.operatorCodes[0].version = version
    content = write_model(model)
    assert codes(trp.unpack(trp.convert(content, minimum_gain=0))) == ([3], [version])


def test_packing_twice_forgets_nothing():
    graph = dense.Graph()
    x = graph.tensor("x", (1, 6, 6, 16))
    y = dense.conv(graph, x, dense.block_sparse((16, 3, 3, 16)), np.ones(16), name="a")
    y = dense.conv(graph, y, np.ones((16, 1, 1, 16), np.float32), np.ones(16), name="b")
    content = dense.finish(graph, [x], [y])
    once = trp.convert(content, minimum_gain=0)
    twice = trp.convert(once, minimum_gain=0)
    assert read_hosts(read_model(twice)) == tuple(RUNS_IN)
    assert codes(trp.unpack(twice))[0] == [3]


@pytest.mark.parametrize(
    "content",
    [
        {"runs_in": [], "replaced": {"NO_SUCH_OPERATOR": 1}},
        {"runs_in": [], "replaced": {"CONV_2D": "one"}},
        {"runs_in": [1], "replaced": {}},
        {"runs_in": 5, "replaced": {}},
        [],
    ],
)
def test_damage_is_told(content):
    model = read_model(PACKED)
    (entry,) = model.tree.metadata
    model.tree.buffers[entry.buffer].data = np.frombuffer(
        json.dumps(content).encode(), np.uint8
    )
    with pytest.raises(trp.ConversionError, match="tfrewprune.hosts.* is damaged"):
        trp.unpack(write_model(model))
