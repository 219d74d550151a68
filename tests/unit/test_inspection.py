# SPDX-License-Identifier: Apache-2.0
"""inspect_model(): figures of dense and of packed layers, as JSON."""

import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from dense_models import block_sparse, conv, conv_model, finish, fully_connected, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import Graph, Operator

import tfrewprune as trp
from tfrewprune.converter import SkipReason
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.inspection import detect_structure
from tfrewprune.structures.layout import KernelShape

WEIGHTS = block_sparse((64, 3, 3, 32), keep=1 / 8)


def sample() -> bytes:
    graph = Graph()
    x = graph.tensor("x", (1, 14, 14, 32))
    y = conv(graph, x, WEIGHTS, np.zeros(64), name="stage1/conv;stage1/relu")
    dense = np.random.default_rng(0).standard_normal((10, 14 * 14 * 64))
    y = fully_connected(graph, y, dense, np.zeros(10), name="logits")
    return finish(graph, [x], [y])


def test_figures_of_dense_and_packed_layers():
    content = sample()
    packed = trp.convert(content, verify=False)
    kept = np.count_nonzero(WEIGHTS)
    for model, is_packed in ((content, False), (packed, True)):
        first, second = trp.inspect_model(model)
        assert (first.name, first.op) == ("stage1/conv", "CONV_2D")
        assert first.shape == (64, 3, 3, 32)
        assert (first.weights, first.kept) == (WEIGHTS.size, kept)
        assert first.sparsity == pytest.approx(1 - kept / WEIGHTS.size)
        assert first.structure == "Block(16, 1)"
        assert first.bytes_dense == WEIGHTS.nbytes
        assert 4 * kept < first.bytes_packed < 1.08 * 4 * kept
        assert first.macs == WEIGHTS.size * 14 * 14
        assert (first.packed, first.reason) == (is_packed, None)
        assert first.predicted_packed_us < first.predicted_dense_us / 2
        assert (second.name, second.op) == ("logits", "FULLY_CONNECTED")
        assert (second.sparsity, second.structure) == (0, None)
        assert (second.packed, second.reason) == (False, "no weight is 0")


def test_the_payload_has_the_bytes_and_the_time_that_were_announced():
    content = sample()
    announced = trp.inspect_model(content)[0]
    packed = trp.inspect_model(trp.convert(content, verify=False))[0]
    assert packed.bytes_packed == announced.bytes_packed
    assert packed.predicted_packed_us == announced.predicted_packed_us


def test_records_are_json(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(sample())
    rows = json.loads(json.dumps([r.to_json() for r in trp.inspect_model(path)]))
    assert rows[0]["name"] == "stage1/conv"
    assert rows[0]["shape"] == [64, 3, 3, 32]


def test_layers_that_cannot_be_packed_say_why():
    graph = Graph()
    x = graph.tensor("x", (1, 6, 6, 4))
    weights = graph.constant("depthwise", np.ones((1, 3, 3, 4)))
    bias = graph.constant("bias", np.zeros(4))
    y = plain(graph, "DEPTHWISE_CONV_2D", [x, weights, bias], (1, 6, 6, 4), "d")
    sizes = graph.constant("sizes", np.ones(4))
    y = plain(graph, "TRANSPOSE_CONV", [sizes, weights, y], (1, 6, 6, 4), "t")
    records = trp.inspect_model(finish(graph, [x], [y]))
    assert [r.reason for r in records] == [
        "depthwise convolutions are not packed",
        "transposed convolutions are not packed",
    ]
    assert [r.skip for r in records] == [SkipReason.OPERATOR] * 2


def operators_with_weights() -> bytes:
    """One operator of every kind, none of them packable, and some without weights."""
    graph = Graph()
    x = graph.tensor("x", (1, 6, 6, 4))
    pruned = np.ones((3, 3, 3, 4, 8))
    pruned[0] = 0
    kernel = graph.constant("3d", pruned)
    bias = graph.constant("bias", np.zeros(8))
    plain(graph, "CONV_3D", [x, kernel, bias], (1, 6, 6, 8), "conv3d")
    plain(graph, "CONV_3D_TRANSPOSE", [bias, kernel, x], (1, 6, 6, 8), "transposed3d")
    matrix = graph.constant("matrix", np.ones((4, 16)))
    plain(graph, "BATCH_MATMUL", [x, matrix], (1, 6, 6, 16), "product")
    plain(graph, "BATCH_MATMUL", [x, x], (1, 6, 6, 6), "computed product")
    ids = graph.tensor("ids", (1, 6), dtype=schema.TensorType.INT32)
    table = graph.constant("table", np.ones((100, 8)))
    plain(graph, "GATHER", [table, ids], (1, 6, 8), "embedding")
    plain(graph, "EMBEDDING_LOOKUP", [ids, table], (6, 8), "lookup")
    gates = [graph.constant(f"gate{n}", np.eye(8, 4)) for n in range(4)]
    inner = [graph.constant(f"inner{n}", np.ones((8, 8))) for n in range(4)]
    biases = [graph.constant(f"bias{n}", np.ones(8)) for n in range(4)]
    plain(
        *(graph, "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        *([x, *gates, *inner, -1, -1, -1, *biases], (1, 6, 8), "lstm"),
    )
    half = graph.tensor(
        *("half", (5, 8), np.ones((5, 8), np.float16).tobytes()),
        dtype=schema.TensorType.FLOAT16,
    )
    decoded = plain(graph, "DEQUANTIZE", [half], (5, 8), "decoded")
    plain(graph, "ADD", [x, decoded], (5, 8), "positions")
    quantized = graph.tensor(*("q", (4, 4), bytes(16)), dtype=schema.TensorType.INT8)
    plain(graph, "BATCH_MATMUL", [x, quantized], (1, 6, 6, 4), "quantized product")
    # Sizes, indices and a scale for each channel are no weights.
    sizes = graph.tensor(*("sizes", (2, 2), bytes(16)), dtype=schema.TensorType.INT32)
    plain(graph, "PAD", [x, sizes], (1, 6, 6, 4), "pad")
    y = plain(
        *(graph, "MUL", [x, graph.constant("scale", np.ones((1, 1, 1, 4)))]),
        *((1, 6, 6, 4), "scaled"),
    )
    return finish(graph, [x, ids], [y])


def test_every_operator_with_weights_is_listed_with_its_reason():
    records = {r.name: r for r in trp.inspect_model(operators_with_weights())}
    assert {name: record.reason for name, record in records.items()} == {
        "conv3d": "3D convolutions are not packed",
        "transposed3d": "transposed convolutions are not packed",
        "product": "batched products are not packed",
        "embedding": "tables that are looked up are not packed",
        "lookup": "tables that are looked up are not packed",
        "lstm": "the operator carries no UnidirectionalSequenceLSTMOptions",
        "positions": "ADD is not packed",
        "quantized product": "batched products are not packed",
    }
    assert {r.skip for r in records.values()} == {SkipReason.OPERATOR}
    assert not any(r.packed for r in records.values())
    conv3d, lstm = records["conv3d"], records["lstm"]
    assert (conv3d.op, conv3d.shape) == ("CONV_3D", (3, 3, 3, 4, 8))
    assert (conv3d.weights, conv3d.kept, conv3d.bytes_dense) == (864, 576, 4 * 864)
    assert conv3d.sparsity == pytest.approx(1 / 3)
    assert lstm.weights == 4 * 32 + 4 * 64
    assert lstm.kept == 4 * 4 + 4 * 64
    assert (records["positions"].weights, records["positions"].kept) == (40, 40)
    assert records["positions"].bytes_dense == 2 * 40
    assert records["quantized product"].kept is None
    assert records["quantized product"].bytes_dense == 16
    assert [r.weights > 0 for r in records.values()] == [True] * 8


def test_what_states_begin_with_is_no_layer():
    graph = Graph()
    x = graph.tensor("x", (1, 8))
    resource = schema.TensorType.RESOURCE
    handle = plain(graph, "VAR_HANDLE", [], (), "state", dtype=resource)
    zeros = graph.constant("zeros", np.zeros((2, 8)))
    graph.operators.append(
        Operator(schema.BuiltinOperator.ASSIGN_VARIABLE, [handle, zeros], [])
    )
    y = fully_connected(graph, x, np.ones((16, 8), "f4"))
    (layer,) = trp.inspect_model(finish(graph, [x], [y]))
    assert layer.op == "FULLY_CONNECTED"


def test_keras_layers_that_nothing_packs_are_listed():
    pytest.importorskip("tensorflow")
    import keras
    from keras import layers

    if keras.backend.backend() != "tensorflow":
        pytest.skip("the in-process export needs Keras' TensorFlow backend")
    x = keras.Input((4, 8, 8, 2))
    y = layers.Conv3D(4, 3)(x)
    y = layers.Conv3DTranspose(4, 3)(y)
    y = layers.Reshape((8, 8, 16))(y)
    y = layers.Conv2DTranspose(4, 3)(y)
    y = layers.DepthwiseConv2D(3)(y)
    y = layers.Reshape((32, 8))(y)
    y = layers.EinsumDense("abc,bcd->abd", (32, 4))(y)
    tokens = keras.Input((6,), dtype="int32")
    z = layers.Embedding(20, 8)(tokens)
    with pytest.warns(UserWarning, match="packed none"):
        packed = trp.convert(keras.Model([x, tokens], [y, z]))
    operators = {"CONV_3D", "CONV_3D_TRANSPOSE", "TRANSPOSE_CONV", "DEPTHWISE_CONV_2D"}
    records = trp.inspect_model(packed)
    assert operators | {"BATCH_MATMUL", "GATHER"} == {record.op for record in records}
    assert all(record.reason for record in records)


def test_damaged_weights_are_a_reason_not_an_exception():
    weights = WEIGHTS.copy()
    weights[0, 0, 0, 0] = np.nan
    (record,) = trp.inspect_model(conv_model(weights, (1, 8, 8, 32), np.zeros(64)))
    assert "1 of 18432 weights are NaN or Inf" in record.reason
    assert record.skip is SkipReason.DAMAGED


def test_a_damaged_payload_is_a_reason_not_an_exception():
    packed = trp.convert(sample(), verify=False).replace(b"TFRP", b"XXXX")
    record = trp.inspect_model(packed)[0]
    assert record.packed and "magic" in record.reason


def test_macs_need_known_sizes():
    model = read_model(conv_model(WEIGHTS, (1, 8, 8, 32), np.zeros(64)))
    names = [t.name for t in model.subgraphs[0].tensors]
    output = model.subgraphs[0].tensors[names.index(b"y")]
    for signature, macs in (
        ([-1, 8, 8, 64], WEIGHTS.size * 64),
        ([1, -1, 8, 64], None),
    ):
        output.shapeSignature = np.array(signature, np.int32)
        (record,) = trp.inspect_model(write_model(model))
        assert record.macs == macs


def test_quantized_weights_say_their_type():
    model = read_model(conv_model(WEIGHTS, (1, 8, 8, 32), np.zeros(64)))
    model.subgraphs[0].tensors[1].type = schema.TensorType.INT16
    (record,) = trp.inspect_model(write_model(model))
    assert record.reason == (
        "weights are INT16, only FLOAT32, FLOAT16 and INT8 are packed"
    )
    assert record.skip is SkipReason.TYPE
    assert record.to_json()["skip"] == "TYPE"


STRUCTURES = [
    trp.Filter(),
    trp.Channel(),
    trp.Column(),
    trp.Block(32, 1),
    trp.Block(16, 1),
    trp.Block(8, 1),
    trp.Block(4, 1),
    trp.Block(2, 1),
    trp.Block(1, 4),
    trp.Block(8, 4),
    trp.Block(1, 16),
    trp.Unstructured(),
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    taps=st.sampled_from([1, 9]),
    keep=st.floats(0.2, 0.6),
)
def test_the_structure_that_pruned_is_found(structure, seed, taps, keep):
    generator = np.random.default_rng(seed)
    shape = KernelShape(taps, 64, 96)
    if taps == 1 and structure == trp.Column():
        structure = trp.Channel()  # the same groups, under the coarser name
    kept = generator.random(structure.group_grid(shape)) < keep
    kept.flat[0], kept.flat[-1] = True, False
    mask = structure.spread(kept, shape).reshape(-1, 96).T
    weights = generator.uniform(1, 2, mask.shape) * mask
    assert detect_structure(weights, taps) == structure
