# SPDX-License-Identifier: Apache-2.0
"""Dynamic-range models: int8 weights stay int8, arithmetic becomes float."""

import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from dense_models import (
    block_sparse,
    conv,
    dynamic_range,
    finish,
    fully_connected,
    fully_connected_model,
    operators,
    run,
)
from test_convert_float16 import value_types
from test_unpack import describe
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.benchmark.compare import compare_models
from tfrewprune.converter import SkipReason
from tfrewprune.converter.dynamic_range import in_float
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.options import CONV_2D, FULLY_CONNECTED
from tfrewprune.inspection import inspect_model


def float_model(rows: int = 16) -> bytes:
    """Two convolutions, one layer without zeros, a fully connected layer used twice."""
    graph = Graph()
    x = graph.tensor("x", (1, 9, 9, 16))
    zeros = np.zeros(32)
    y = conv(graph, x, block_sparse((32, 3, 3, 16), rows=rows), zeros, name="a")
    y = conv(graph, y, np.ones((32, 1, 1, 32)) / 32, zeros, (2, 2), name="full")
    y = conv(graph, y, block_sparse((32, 1, 1, 32), rows=rows), zeros, name="b")
    shared = graph.constant("shared", block_sparse((32, 32), rows=rows, seed=2))
    y = fully_connected(graph, y, shared, zeros, keep_num_dims=True, name="c")
    y = fully_connected(graph, y, shared, zeros, "RELU", keep_num_dims=True, name="d")
    return finish(graph, [x], [y])


IMAGE = np.random.default_rng(0).standard_normal((1, 9, 9, 16)).astype(np.float32)
KINDS = pytest.mark.parametrize("per_channel", [True, False], ids=["rows", "tensor"])
LAYOUTS = pytest.mark.parametrize("rows", [16, 1], ids=["banded", "irregular"])


@KINDS
@LAYOUTS
def test_integers_are_packed_and_compute_in_float(rows, per_channel) -> None:
    content = dynamic_range(float_model(rows), per_channel)
    packed = trp.convert(content, minimum_gain=0)
    assert value_types(packed) == {2}
    assert len(packed.report.packed) == 5
    assert packed.report.difference < 1e-5
    (floats,), (ours,) = run(in_float(content), IMAGE), run(packed, IMAGE, packed=True)
    assert np.abs(floats - ours).max() < 1e-5 * np.abs(floats).max()
    # LiteRT rounds the activations of every layer to 8 bits.
    (rounded,) = run(content, IMAGE)
    assert 1e-4 < np.abs(rounded - ours).max() / np.abs(ours).max() < 0.05


@KINDS
@LAYOUTS
def test_unpacking_restores_every_tensor_and_operator(rows, per_channel) -> None:
    content = dynamic_range(float_model(rows), per_channel)
    packed = trp.convert(content, minimum_gain=0)
    assert operators(packed) == [CONV_2D] * 3 + [FULLY_CONNECTED] * 2
    unpacked = trp.unpack(packed)
    assert describe(unpacked) == describe(content)
    quantization = [
        [
            (list(q.scale), list(q.zeroPoint), q.quantizedDimension)
            for q in (tensor.quantization for tensor in model.subgraphs[0].tensors)
            if q is not None and q.scale is not None
        ]
        for model in map(read_model, (unpacked, content))
    ]
    assert quantization[0] == quantization[1]
    np.testing.assert_array_equal(run(unpacked, IMAGE)[0], run(content, IMAGE)[0])
    assert trp.convert(unpacked, minimum_gain=0) == packed


def test_layers_that_stay_int8_are_compared_in_float_too() -> None:
    content = dynamic_range(float_model(), True)
    packed = trp.convert(content, minimum_gain=1e-9)  # whatever has zeros
    assert operators(packed).count("CONV_2D") == 1
    assert packed.report.difference < 1e-5
    assert len(packed) < len(content)


def test_float16_leaves_integers_as_they_are() -> None:
    content = dynamic_range(float_model())
    packed = trp.convert(content, minimum_gain=0, weights="float16")
    assert value_types(packed) == {2}


def test_integers_behind_dequantize_are_packed_as_integers() -> None:
    model = read_model(dynamic_range(float_model(), False))
    (subgraph,) = model.subgraphs
    operator = subgraph.operators[0]
    decoded = schema.TensorT(
        shape=subgraph.tensors[operator.inputs[1]].shape,
        type=schema.TensorType.FLOAT32,
        buffer=0,
        name="decoded",
    )
    subgraph.tensors.append(decoded)
    code = schema.BuiltinOperator.DEQUANTIZE
    model.tree.operatorCodes.append(
        schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=2)
    )
    last = len(subgraph.tensors) - 1
    decoder = schema.OperatorT(
        opcodeIndex=len(model.tree.operatorCodes) - 1,
        inputs=operator.inputs[1:2],
        outputs=np.array([last], np.int32),
        builtinOptionsType=schema.BuiltinOptions.DequantizeOptions,
        builtinOptions=schema.DequantizeOptionsT(),
    )
    operator.inputs = np.array([operator.inputs[0], last, operator.inputs[2]], np.int32)
    subgraph.operators.insert(0, decoder)
    content = write_model(model)
    packed = trp.convert(content, minimum_gain=0)
    assert value_types(packed) == {2} and "DEQUANTIZE" not in operators(packed)
    assert describe(trp.unpack(packed)) == describe(content)


def test_dense_integers_are_expected_to_be_faster_than_dense_floats() -> None:
    """At half the weights packed floats beat dense floats, not dense integers."""
    weights = block_sparse((256, 1024), keep=0.5)
    content = fully_connected_model(weights, (1, 1024))
    assert trp.convert(content).report.packed
    with pytest.warns(UserWarning, match="dense is predicted to be faster"):
        report = trp.convert(dynamic_range(content)).report
    assert [layer.skip for layer in report.layers] == [SkipReason.DENSE_IS_FASTER]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"scale": None}, "weights are INT8 without a scale"),
        ({"scale": np.zeros(32, "f4")}, "a scale of INT8 weights is not above 0"),
        ({"zeroPoint": np.ones(32, "i8")}, "the zero of INT8 weights is not 0"),
        ({"scale": np.ones(9, "f4")}, "9 scales along dimension 0, expected 1, or 32"),
        ({"quantizedDimension": 3}, "32 scales along dimension 3"),
    ],
)
def test_other_integers_stay_with_a_reason(change, reason) -> None:
    model = read_model(dynamic_range(float_model()))
    weights = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]]
    for name, value in change.items():
        setattr(weights.quantization, name, value)
    first, *_ = inspect_model(write_model(model))
    assert first.skip is SkipReason.TYPE
    assert reason in first.reason


def test_inspect_tells_the_bytes_that_the_integers_took() -> None:
    content = dynamic_range(float_model())
    before = inspect_model(content)
    after = inspect_model(trp.convert(content, minimum_gain=0))
    assert [r.bytes_dense for r in after] == [r.bytes_dense for r in before]
    assert [r.kept for r in after] == [r.kept for r in before]


def test_bench_compares_with_the_weights_as_floats(tmp_path) -> None:
    content = dynamic_range(float_model())
    (tmp_path / "dense.tflite").write_bytes(content)
    trp.convert(content, tmp_path / "packed.tflite", minimum_gain=0)
    result = compare_models(
        *(tmp_path / "packed.tflite", tmp_path / "dense.tflite"),
        min_seconds=0.01,
        with_cost=False,
    )
    assert result.error < 1e-5
    assert result.claimed_nodes == 5


@pytest.mark.parametrize(
    "weights, message",
    [
        (10_000, "metadata 'tfrewprune.sources' is damaged"),
        (None, "metadata 'tfrewprune.sources' is damaged"),
        (0, "must be weights of shape"),  # the input, a float
        (2, "must be weights of shape"),  # the bias
    ],
)
def test_sources_that_name_other_tensors_are_refused(weights, message) -> None:
    model = read_model(trp.convert(dynamic_range(float_model()), minimum_gain=0))
    entry, _ = model.tree.metadata  # of the sources, of the hosts
    buffer = model.tree.buffers[entry.buffer]
    sources = json.loads(bytes(buffer.data))
    sources[0]["weights"] = weights
    buffer.data = np.frombuffer(json.dumps(sources).encode(), np.uint8)
    with pytest.raises(trp.ConversionError, match=message):
        trp.unpack(write_model(model))
