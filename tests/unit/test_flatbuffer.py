# SPDX-License-Identifier: Apache-2.0
"""Reading and writing models: nothing is lost, damaged files are refused."""

import io
import struct
import time
import zipfile

import flatbuffers
import numpy as np
import pytest
import tiny_models
from ai_edge_litert import schema_py_generated as schema
from dense_models import (
    block_sparse,
    conv,
    conv_model,
    finish,
    fully_connected,
    operators,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.converter import bounds, flatbuffer
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.options import CONV_2D


def two_layers() -> bytes:
    graph = Graph()
    x = graph.tensor("x", (1, 6, 6, 4))
    y = conv(graph, x, block_sparse((16, 3, 3, 4)), np.zeros(16), name="a")
    y = conv(graph, y, block_sparse((8, 1, 1, 16)), np.zeros(8), name="b")
    return finish(graph, [x], [y])


DENSE = two_layers()
PACKED = trp.convert(DENSE, minimum_gain=0)


def as_data(value):
    """A tree of the schema's objects as plain data, to be compared."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [as_data(item) for item in value]
    if hasattr(value, "__dict__"):
        return {name: as_data(item) for name, item in vars(value).items()}
    return value


@pytest.mark.parametrize("content", [DENSE, PACKED], ids=["dense", "packed"])
def test_reading_and_writing_loses_nothing(content):
    model = read_model(content)
    again = read_model(write_model(model))
    assert as_data(again.tree) == as_data(model.tree)


def test_buffers_are_views_of_the_file():
    model = read_model(DENSE)
    whole = np.frombuffer(DENSE, np.uint8)
    for buffer in model.tree.buffers:
        if buffer.data is not None and len(buffer.data):
            assert np.shares_memory(buffer.data, whole)


def test_buffers_outside_the_flatbuffer_are_read_written_and_run(monkeypatch):
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 4)).astype(np.float32)
    expected = run(DENSE, x)[0]
    monkeypatch.setattr(flatbuffer, "MAX_INLINE_BYTES", 100)
    outside = write_model(read_model(DENSE))
    raw = schema.ModelT.InitFromPackedBuf(outside, 0)
    assert all(buffer.data is None for buffer in raw.buffers)
    assert all(b.offset % 16 == 0 for b in raw.buffers)
    np.testing.assert_array_equal(run(outside, x)[0], expected)
    monkeypatch.undo()
    packed = trp.convert(outside, minimum_gain=0)
    assert operators(packed) == [CONV_2D] * 2
    raw = schema.ModelT.InitFromPackedBuf(packed, 0)
    for operator in raw.subgraphs[0].operators:
        payload = raw.buffers[raw.subgraphs[0].tensors[operator.inputs[1]].buffer]
        assert payload.offset % 64 == 0
        assert packed[payload.offset :].startswith(b"TFRP")
    np.testing.assert_allclose(run(packed, x, packed=True)[0], expected, atol=1e-5)
    np.testing.assert_array_equal(run(trp.unpack(packed), x)[0], expected)


def test_buffers_outside_the_file_are_refused():
    content = tiny_models.build(graph_with_constant())
    with pytest.raises(trp.ConversionError, match=r"must lie inside the file of \d+"):
        read_model(content[:-4])


def graph_with_constant() -> Graph:
    graph = Graph()
    x = graph.tensor("x", (1, 8))
    y = fully_connected(graph, x, block_sparse((16, 8)))
    graph.inputs, graph.outputs = [x], [y]
    return graph


def test_large_custom_options_are_brought_inside():
    model = read_model(DENSE)
    code = schema.OperatorCodeT(
        builtinCode=schema.BuiltinOperator.CUSTOM,
        deprecatedBuiltinCode=schema.BuiltinOperator.CUSTOM,
        customCode="Other",
    )
    model.tree.operatorCodes.append(code)
    operator = schema.OperatorT(
        opcodeIndex=len(model.tree.operatorCodes) - 1,
        inputs=np.array([0], np.int32),
        outputs=np.array([0], np.int32),
        largeCustomOptionsOffset=len(DENSE) + 4096,
        largeCustomOptionsSize=5,
    )
    model.tree.subgraphs[0].operators.append(operator)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.tree.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    content = content.ljust(operator.largeCustomOptionsOffset, b"\0") + b"large"
    packed = trp.convert(content, minimum_gain=0, verify=False)
    (other,) = [
        operator
        for operator in read_model(packed).subgraphs[0].operators
        if read_model(packed).custom_code(operator) == "Other"
    ]
    assert bytes(other.customOptions) == b"large"


def with_archive(comment: bytes = b"", how: int = zipfile.ZIP_STORED) -> bytes:
    """A dense model with two associated files, one of them a million equal bytes."""
    content = io.BytesIO()
    content.write(DENSE)
    with zipfile.ZipFile(content, "a", how) as archive:
        archive.writestr("labels.txt", "cat\ndog\n")
        archive.writestr("padding.txt", "a" * 1_000_000)
        archive.comment = comment
    return content.getvalue()


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"made by a tool", b"long" * 1000])
def test_associated_files_stay_behind_the_model(comment, how):
    content = with_archive(comment, how)
    packed = trp.convert(content, minimum_gain=0)
    for result in (packed, trp.unpack(packed)):
        with zipfile.ZipFile(io.BytesIO(result)) as archive:
            assert archive.testzip() is None
            assert archive.read("labels.txt") == b"cat\ndog\n"
            assert archive.read("padding.txt") == b"a" * 1_000_000
            assert archive.comment == comment
            assert archive.infolist()[1].compress_type == how
        x = np.zeros((1, 6, 6, 4), np.float32)
        ours = CONV_2D in operators(result)
        assert run(result, x, packed=ours)[0].shape == (1, 6, 6, 8)


@pytest.mark.parametrize("field", [10, 12, 16])  # of the end record
def test_a_damaged_archive_is_refused(field):
    content = bytearray(with_archive())
    content[len(content) - 22 + field + 1] ^= 0x40
    with pytest.raises(trp.ConversionError, match="the ZIP archive behind"):
        trp.convert(bytes(content), minimum_gain=0)


def test_layouts_name_every_field_of_the_schema():
    for table, layout in bounds._TABLES.items():
        assert len(layout) == bounds.field_count(table), table


def read_all(content: bytes) -> None:
    """What users can do with a file; only ConversionError may come out."""
    for use in (
        lambda: trp.convert(content, minimum_gain=0, verify=False),
        lambda: trp.unpack(content),
        lambda: trp.inspect_model(content),
    ):
        try:
            use()
        except trp.ConversionError as error:
            assert str(error)


@pytest.mark.parametrize("content", [DENSE, PACKED], ids=["dense", "packed"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 4))
        value = data.draw(
            st.one_of(
                st.integers(0, 2**32 - 1),
                st.sampled_from([0, 1, 4, 2**31 - 1, 2**31, 2**32 - 1, len(content)]),
            )
        )
        struct.pack_into("<I", damaged, at, value)
    read_all(bytes(damaged))


@pytest.mark.parametrize("content", [DENSE, PACKED], ids=["dense", "packed"])
def test_flipped_bits_are_refused_or_read(content):
    generator = np.random.default_rng(0)
    for bit in generator.choice(len(content) * 8, 400, replace=False):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        read_all(bytes(damaged))


@pytest.mark.parametrize("content", [DENSE, PACKED], ids=["dense", "packed"])
def test_truncated_files_are_refused(content):
    for length in {*range(0, 64), *range(64, len(content), 97)}:
        with pytest.raises(trp.ConversionError):
            read_model(content[:length])


def test_tables_that_share_each_other_do_not_take_for_ever(monkeypatch):
    """A hostile file of a few bytes could describe a billion tables."""
    monkeypatch.setattr(bounds, "MAX_TABLES", 10_000)
    builder = flatbuffers.Builder(1024)
    tensor = schema.TensorT(name="t").Pack(builder)
    schema.SubGraphStartTensorsVector(builder, 5000)
    for _ in range(5000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 5000)
    for _ in range(5000):
        builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    start = time.process_time()
    with pytest.raises(trp.ConversionError, match="the table after 10000"):
        read_model(bytes(builder.Output()))
    assert time.process_time() - start < 5


def test_strings_that_share_bytes_do_not_fill_the_memory():
    model = read_model(DENSE)
    builder = flatbuffers.Builder(1024)
    name = builder.CreateString("n" * 1_000_000)
    metadata = []
    for _ in range(1000):
        schema.MetadataStart(builder)
        schema.MetadataAddName(builder, name)
        metadata.append(schema.MetadataEnd(builder))
    schema.ModelStartMetadataVector(builder, len(metadata))
    for entry in metadata:
        builder.PrependUOffsetTRelative(entry)
    vector = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddMetadata(builder, vector)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(trp.ConversionError, match="shares its bytes too often"):
        read_model(bytes(builder.Output()))
    assert model.tree.metadata is None


def test_fields_of_a_newer_schema_are_not_lost_in_silence():
    builder = flatbuffers.Builder(1024)
    builder.StartObject(bounds.field_count("Model") + 1)
    builder.PrependInt32Slot(bounds.field_count("Model"), 7, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    with pytest.raises(trp.ConversionError, match="update ai-edge-litert"):
        read_model(bytes(builder.Output()))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda g, t: setattr(g, "inputs", [99]), r"inputs of subgraph 0 .* below"),
        (lambda g, t: setattr(g, "outputs", [-1]), "received -1"),
        (lambda g, t: setattr(g.tensors[0], "buffer", 50), "buffer of tensor 'x'"),
        (lambda g, t: setattr(g.operators[0], "opcodeIndex", 9), "code of operator 0"),
        (lambda g, t: setattr(g.operators[0], "inputs", [77]), "input of operator 0"),
        (lambda g, t: setattr(g.operators[0], "outputs", [77]), "outputs of operator"),
        (
            lambda g, t: setattr(t, "metadata", [schema.MetadataT(b"M", 60)]),
            "buffer of metadata 'M'",
        ),
        (
            lambda g, t: setattr(
                t,
                "signatureDefs",
                [schema.SignatureDefT(signatureKey="s", subgraphIndex=4)],
            ),
            "subgraph of signature 's'",
        ),
    ],
)
def test_every_index_must_point_at_something(change, message):
    model = read_model(DENSE)
    change(model.subgraphs[0], model.tree)
    with pytest.raises(trp.ConversionError, match=message):
        read_model(write_model(model))


@pytest.mark.parametrize("name", ["inputs", "outputs"])
def test_absent_vectors_mean_empty_ones(name):
    model = read_model(DENSE)
    setattr(model.subgraphs[0], name, None)
    content = write_model(model)
    packed = trp.convert(content, minimum_gain=0, verify=False)
    assert operators(packed) == [CONV_2D] * 2
    assert len(getattr(read_model(packed).subgraphs[0], name)) == 0


@pytest.mark.slow
def test_a_model_above_256_mib_is_converted():
    """Weights are never copied more often than the file needs."""
    generator = np.random.default_rng(0)
    weights = generator.random((4096, 17_000), np.float32)
    for start in range(0, 4096, 16):
        weights[start : start + 16, generator.random(17_000) < 0.9] = 0
    dense = conv_model(
        weights.reshape(4096, 1, 1, 17_000), (1, 1, 1, 17_000), np.zeros(4096)
    )
    assert len(dense) > 256 << 20
    packed = trp.convert(dense)
    assert operators(packed) == [CONV_2D]
    assert len(packed) < 0.11 * len(dense)
