# SPDX-License-Identifier: Apache-2.0
"""Sparse-encoded TFLite tensors are read as LiteRT itself reads them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from dense_models import block_sparse, conv, finish, operators, plain, run
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.converter.densify import SparseForm, read_weights, write_weights
from tfrewprune.converter.flatbuffer import Model, read_model, write_model
from tfrewprune.converter.options import CONV_2D

DENSE, CSR = schema.DimensionType.DENSE, schema.DimensionType.SPARSE_CSR


def encode(array, order, block_map=(), block_sizes=(), sparse=()):
    """Encodes an array level by level; returns (values, SparsityParametersT).

    The definition, followed literally: `order` are the levels, levels in `sparse` are
    CSR, dimension `rank + i` is the inside of the blocks of dimension `block_map[i]`.
    """
    rank = array.ndim
    split, axes = [], {}
    for dimension, length in enumerate(array.shape):
        axes[dimension] = len(split)
        if dimension in block_map:
            which = block_map.index(dimension)
            split += [length // block_sizes[which], block_sizes[which]]
            axes[rank + which] = len(split) - 1
        else:
            split.append(length)
    levels = array.reshape(split).transpose([axes[dimension] for dimension in order])
    nodes, metadata = [()], []
    for level, length in enumerate(levels.shape):
        segments, indices, children = [0], [], []
        for node in nodes:
            for index in range(length):
                if level not in sparse or np.any(levels[(*node, index)]):
                    indices.append(index)
                    children.append((*node, index))
            segments.append(len(indices))
        nodes = children
        entry = schema.DimensionMetadataT(format=DENSE, denseSize=length)
        if level in sparse:
            entry = schema.DimensionMetadataT(
                format=CSR,
                arraySegmentsType=schema.SparseIndexVector.Int32Vector,
                arraySegments=schema.Int32VectorT(values=np.array(segments, np.int32)),
                arrayIndicesType=schema.SparseIndexVector.Uint8Vector,
                arrayIndices=schema.Uint8VectorT(values=np.array(indices, np.uint8)),
            )
        metadata.append(entry)
    sparsity = schema.SparsityParametersT(
        traversalOrder=np.array(order, np.int32),
        blockMap=np.array(block_map, np.int32),
        dimMetadata=metadata,
    )
    return np.array([levels[node] for node in nodes], array.dtype), sparsity


ENCODINGS = {
    "rows": {"order": [0, 1], "sparse": {1}},
    "columns": {"order": [1, 0], "sparse": {1}},
    "both": {"order": [0, 1], "sparse": {0, 1}},
    "blocks": {
        "order": [0, 1, 2],
        "block_map": [1],
        "block_sizes": [4],
        "sparse": {1},
    },
    "two_blocks": {
        "order": [0, 1, 2, 3],
        "block_map": [0, 1],
        "block_sizes": [2, 4],
        "sparse": {1},
    },
    "dense": {"order": [0, 1], "sparse": set()},
}


def one_tensor(shape, values, sparsity, dtype=schema.TensorType.FLOAT32):
    buffer = schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8))
    tensor = schema.TensorT(
        shape=np.array(shape, np.int32), type=dtype, name="w", sparsity=sparsity
    )
    return Model(schema.ModelT(buffers=[buffer])), tensor


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_encoding_gives_the_weights_back(encoding, dtype):
    weights = block_sparse((6, 8), keep=0.3, rows=2).astype(dtype)
    values, sparsity = encode(weights, **encoding)
    code = {np.float32: 0, np.float16: schema.TensorType.FLOAT16}[dtype]
    model, tensor = one_tensor(weights.shape, values, sparsity, code)
    received = read_weights(model, tensor)
    assert received.dtype == np.float32
    np.testing.assert_array_equal(received, weights.astype(np.float32))


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_encoding_is_written_as_it_was_read(encoding, dtype):
    weights = block_sparse((6, 8), keep=0.3, rows=2).astype(dtype)
    values, sparsity = encode(weights, **encoding)
    code = {np.float32: 0, np.float16: schema.TensorType.FLOAT16}[dtype]
    _, tensor = one_tensor(weights.shape, values, None, code)
    form = SparseForm.of(sparsity)
    data = write_weights(tensor, weights.astype(np.float32), form)
    assert data.tobytes() == values.tobytes()
    assert SparseForm.of(tensor.sparsity) == form
    assert SparseForm.parse(json.loads(json.dumps(asdict(form)))) == form
    for one, other in zip(
        tensor.sparsity.dimMetadata, sparsity.dimMetadata, strict=True
    ):
        assert vars(plainly(one)) == vars(plainly(other))


def test_indices_that_do_not_fit_their_type_get_a_larger_one():
    weights = np.zeros((1, 300), np.float32)
    weights[0, 299] = 1
    values, sparsity = encode(weights[:, :200] + 1, [0, 1], sparse={1})
    form = SparseForm.of(sparsity)
    _, tensor = one_tensor((1, 300), values, None)
    data = write_weights(tensor, weights, form)
    model, tensor = one_tensor((1, 300), data, tensor.sparsity)
    np.testing.assert_array_equal(read_weights(model, tensor), weights)


def test_weights_without_any_value_are_zero():
    values, sparsity = encode(np.zeros((4, 8), np.float32), [0, 1], sparse={0, 1})
    model, tensor = one_tensor((4, 8), np.zeros(1, np.float32), sparsity)
    model.tree.buffers[0].data = np.zeros(3, np.uint8)  # less than one value
    assert len(values) == 0
    assert not read_weights(model, tensor).any()


def densified_conv(dtype=np.float32) -> tuple[bytes, np.ndarray]:
    """sparse constant -> DENSIFY (-> DEQUANTIZE) -> CONV_2D, as in MediaPipe."""
    weights = block_sparse((16, 1, 1, 8), keep=0.4).astype(dtype)
    values, sparsity = encode(weights, [0, 1, 2, 3], sparse={3})
    code = {np.float32: 0, np.float16: schema.TensorType.FLOAT16}[dtype]
    graph = Graph()
    x = graph.tensor("x", (1, 5, 5, 8))
    chain = graph.tensor("sparse", weights.shape, values.tobytes(), code)
    chain = plain(graph, "DENSIFY", [chain], weights.shape, "dense", dtype=code)
    if dtype == np.float16:
        chain = plain(graph, "DEQUANTIZE", [chain], weights.shape, "float")
    y = conv(graph, x, chain, np.ones(16))
    model = read_model(finish(graph, [x], [y]))
    model.subgraphs[0].tensors[1].sparsity = sparsity
    return write_model(model), weights.astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_densified_weights_are_packed_and_their_decoders_removed(dtype):
    dense, weights = densified_conv(dtype)
    packed = trp.convert(dense, minimum_gain=0)
    assert operators(packed) == [CONV_2D]
    x = np.random.default_rng(0).standard_normal((1, 5, 5, 8)).astype(np.float32)
    expected = run(dense, x)[0]  # LiteRT's own DENSIFY
    np.testing.assert_allclose(run(packed, x, packed=True)[0], expected, atol=1e-5)
    unpacked = trp.unpack(packed)
    assert operators(unpacked) == operators(dense)
    np.testing.assert_allclose(run(unpacked, x)[0], expected, atol=1e-5)
    before, after = (read_model(c).subgraphs[0].tensors[1] for c in (dense, unpacked))
    assert (before.type, list(before.shape)) == (after.type, list(after.shape))
    np.testing.assert_array_equal(
        read_weights(read_model(unpacked), after), weights.astype(np.float32)
    )
    assert [vars(level) for level in map(plainly, after.sparsity.dimMetadata)] == [
        vars(level) for level in map(plainly, before.sparsity.dimMetadata)
    ]
    assert trp.convert(unpacked, minimum_gain=0) == packed


def plainly(level):
    """A level of the encoding with lists in place of vectors."""
    for name in ("arraySegments", "arrayIndices"):
        vector = getattr(level, name)
        setattr(level, name, vector and (type(vector), vector.values.tolist()))
    return level


def test_decoders_that_something_else_reads_stay():
    weights = block_sparse((16, 1, 1, 8)).astype(np.float16)
    half = schema.TensorType.FLOAT16
    graph = Graph()
    x = graph.tensor("x", (1, 5, 5, 8))
    constant = graph.tensor("half", weights.shape, weights.tobytes(), half)
    chain = plain(graph, "DEQUANTIZE", [constant], weights.shape, "float")
    y = conv(graph, x, chain, np.ones(16))
    z = plain(graph, "NEG", [chain], weights.shape, "negated")
    dense = finish(graph, [x], [y, z])
    packed = trp.convert(dense, minimum_gain=0)
    assert operators(packed) == ["DEQUANTIZE", CONV_2D, "NEG"]
    x = np.random.default_rng(0).standard_normal((1, 5, 5, 8)).astype(np.float32)
    for before, after in zip(run(dense, x), run(packed, x, packed=True), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_operators_that_are_numbered_elsewhere_are_not_removed():
    dense, _ = densified_conv()
    model = read_model(dense)
    model.tree.buffers.append(schema.BufferT(data=np.zeros(8, np.uint8)))
    model.tree.metadata = [
        schema.MetadataT("model_control_dependencies", len(model.tree.buffers) - 1)
    ]
    (record,) = trp.inspect_model(write_model(model))
    assert "control dependencies number its operators" in record.reason


def test_two_layers_behind_one_decoder_are_both_packed():
    weights = block_sparse((8, 1, 1, 8)).astype(np.float16)
    half = schema.TensorType.FLOAT16
    graph = Graph()
    x = graph.tensor("x", (1, 5, 5, 8))
    constant = graph.tensor("half", weights.shape, weights.tobytes(), half)
    chain = plain(graph, "DEQUANTIZE", [constant], weights.shape, "float")
    y = conv(graph, x, chain, np.ones(8), name="a")
    y = conv(graph, y, chain, np.ones(8), name="b")
    packed = trp.convert(finish(graph, [x], [y]), minimum_gain=0)
    assert operators(packed) == [CONV_2D] * 2
    assert packed.count(b"TFRP") == 1


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda s: s.traversalOrder.__setitem__(0, 1), "traversal order"),
        (lambda s: s.dimMetadata.pop(), "expected 2 levels, received 1"),
        (
            lambda s: s.dimMetadata[1].arraySegments.values.__setitem__(2, 99),
            "segments of level 1 do not ascend",
        ),
        (
            lambda s: s.dimMetadata[1].arrayIndices.values.__setitem__(0, 200),
            "an index of level 1 is not below 8",
        ),
        (
            lambda s: setattr(s.dimMetadata[0], "denseSize", 5),
            "level 0 has size 5, expected 6",
        ),
        (lambda s: setattr(s, "blockMap", np.array([9], np.int32)), "traversal order"),
    ],
)
def test_a_damaged_encoding_is_refused(damage, message):
    weights = block_sparse((6, 8), keep=0.3, rows=2)
    values, sparsity = encode(weights, [0, 1], sparse={1})
    damage(sparsity)
    model, tensor = one_tensor((6, 8), values, sparsity)
    with pytest.raises(trp.ConversionError, match=message):
        read_weights(model, tensor)


def test_missing_values_are_refused():
    values, sparsity = encode(block_sparse((6, 8)), [0, 1], sparse={1})
    model, tensor = one_tensor((6, 8), values[:-1], sparsity)
    with pytest.raises(trp.ConversionError, match="values are described"):
        read_weights(model, tensor)


def test_a_buffer_of_the_wrong_size_is_refused():
    model, tensor = one_tensor((6, 8), np.zeros(47, np.float32), None)
    with pytest.raises(trp.ConversionError, match="need 192 bytes, their buffer holds"):
        read_weights(model, tensor)
