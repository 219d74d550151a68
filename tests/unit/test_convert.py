# SPDX-License-Identifier: Apache-2.0
"""convert(): what is packed, what is left dense and why; nothing else moves."""

import os
from dataclasses import dataclass

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
    fully_connected_model,
    operators,
    plain,
    run,
)
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.options import CONV_2D, FULLY_CONNECTED
from tfrewprune.payload import read_header

CONV = CONV_2D
DENSE = FULLY_CONNECTED


def convert(content, **options):
    return trp.convert(content, minimum_gain=0, **options)


def reasons(content):
    return [layer.reason for layer in find_layers(read_model(content))]


@dataclass
class ConvCase:
    weights: tuple
    input: tuple
    options: dict


CONV_CASES = {
    "3x3": ConvCase((32, 3, 3, 8), (1, 9, 7, 8), {}),
    "stride": ConvCase((16, 3, 3, 8), (1, 11, 8, 8), {"stride": (2, 3)}),
    "dilated": ConvCase((16, 3, 3, 4), (1, 12, 13, 4), {"dilation": (2, 3)}),
    "valid": ConvCase((8, 5, 3, 4), (1, 9, 9, 4), {"padding": "VALID"}),
    "valid_stride": ConvCase(
        *((24, 3, 3, 4), (1, 10, 9, 4), {"padding": "VALID", "stride": (2, 2)})
    ),
    "1x1": ConvCase((64, 1, 1, 32), (1, 5, 6, 32), {}),
    "1x1_stride": ConvCase((16, 1, 1, 8), (1, 7, 7, 8), {"stride": (2, 2)}),
    "even_kernel": ConvCase((20, 2, 4, 5), (1, 8, 8, 5), {}),
    "batch": ConvCase((16, 3, 3, 4), (3, 6, 6, 4), {}),
    "kernel_larger_than_input": ConvCase((16, 7, 7, 3), (1, 3, 4, 3), {}),
    "one_output": ConvCase((1, 3, 3, 1), (1, 4, 4, 1), {}),
}


@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU_N1_TO_1", "RELU6"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("case", CONV_CASES.values(), ids=CONV_CASES)
def test_conv_computes_as_before(case, with_bias, activation, rng):
    weights = block_sparse(case.weights)
    bias = rng.standard_normal(len(weights)) if with_bias else None
    dense = conv_model(
        *(weights, case.input, bias), activation=activation, **case.options
    )
    packed = convert(dense, verify=False)
    assert operators(packed) == [CONV]
    x = rng.standard_normal(case.input).astype(np.float32)
    (received,) = run(packed, x, packed=True)
    expected = tiny_models.conv2d(
        *(x, weights, 0.0 if bias is None else bias),
        activation=activation,
        **case.options,
    )
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)
    if with_bias:
        np.testing.assert_allclose(received, run(dense, x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU_N1_TO_1", "RELU6"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    "shape, keep_num_dims",
    [((1, 40), False), ((5, 40), False), ((2, 3, 40), True), ((2, 4, 20), False)],
)
def test_fully_connected_computes_as_before(
    shape, keep_num_dims, with_bias, activation, rng
):
    weights = block_sparse((24, 40))
    bias = rng.standard_normal(24) if with_bias else None
    dense = fully_connected_model(
        *(weights, shape, bias), activation=activation, keep_num_dims=keep_num_dims
    )
    packed = convert(dense, verify=False)
    assert operators(packed) == [DENSE]
    x = rng.standard_normal(shape).astype(np.float32)
    (received,) = run(packed, x, packed=True)
    expected = x.reshape(-1, 40).astype(np.float64) @ weights.T
    expected = tiny_models.activate(
        expected + (0 if bias is None else bias), activation
    )
    np.testing.assert_allclose(
        received.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4
    )
    assert received.shape == run(dense, x)[0].shape


def test_an_unknown_batch_stays_unknown(rng):
    weights = block_sparse((16, 3, 3, 4))
    zeros = np.zeros(16)
    dense = conv_model(weights, (1, 6, 6, 4), zeros, signature=(-1, 6, 6, 4))
    packed = convert(dense)
    tensors = read_model(packed).subgraphs[0].tensors
    assert list(tensors[0].shapeSignature) == [-1, 6, 6, 4]
    for batch in (1, 4, 2):
        x = rng.standard_normal((batch, 6, 6, 4)).astype(np.float32)
        (received,) = run(packed, x, packed=True)
        np.testing.assert_allclose(
            received, tiny_models.conv2d(x, weights), rtol=1e-4, atol=1e-4
        )


def test_an_all_zero_layer_outputs_its_activated_bias():
    bias = np.linspace(-2, 2, 8)
    weights = np.zeros((8, 3, 3, 2), np.float32)
    packed = convert(conv_model(weights, (1, 4, 4, 2), bias, activation="RELU"))
    assert operators(packed) == [CONV]
    (received,) = run(packed, np.ones((1, 4, 4, 2), np.float32), packed=True)
    expected = np.broadcast_to(np.maximum(bias, 0), (1, 4, 4, 8))
    np.testing.assert_array_equal(received, expected.astype(np.float32))


def test_the_file_shrinks_by_what_was_pruned():
    weights = block_sparse((64, 3, 3, 64), keep=1 / 8)
    dense = conv_model(weights, (1, 8, 8, 64), np.zeros(64))
    packed = convert(dense)
    hosts = 400  # bytes of what the file says of itself
    rest = len(dense) - weights.nbytes + hosts
    assert len(packed) - rest <= 1.06 * weights.nbytes / 8


def test_payloads_start_at_64_bytes_and_other_constants_at_16(rng):
    graph = Graph()
    x = graph.tensor("x", (1, 6, 6, 3))
    bias = rng.standard_normal(16)
    y = conv(graph, x, block_sparse((16, 3, 3, 3)), bias, name="a")
    y = conv(graph, y, block_sparse((16, 1, 1, 16), seed=1), bias, name="b")
    packed = convert(finish(graph, [x], [y]))
    model = read_model(packed)
    base = np.frombuffer(packed, np.uint8).ctypes.data
    payloads = {
        model.subgraphs[0].tensors[op.inputs[1]].buffer
        for op in model.subgraphs[0].operators
    }
    assert len(payloads) == 2
    for index, buffer in enumerate(model.tree.buffers):
        if buffer.data is not None and len(buffer.data):
            alignment = 64 if index in payloads else 16
            assert (buffer.data.ctypes.data - base) % alignment == 0


def test_layers_that_share_weights_share_one_payload():
    weights = block_sparse((16, 1, 1, 16))
    graph = Graph()
    x = graph.tensor("x", (1, 5, 5, 16))
    shared = graph.constant("shared", weights)
    bias = np.ones(16)
    y = conv(graph, x, shared, bias, activation="RELU", name="a")
    y = conv(graph, y, shared, bias, name="b")
    dense = finish(graph, [x], [y])
    packed = convert(dense)
    model = read_model(packed)
    first, second = model.subgraphs[0].operators
    assert first.inputs[1] == second.inputs[1] == shared
    assert packed.count(b"TFRP") == 1
    assert len(packed) < len(dense)


def test_tensors_that_share_a_buffer_share_one_payload():
    weights = block_sparse((16, 16))
    graph = Graph()
    x = graph.tensor("x", (1, 16))
    y = fully_connected(graph, x, weights, name="a")
    y = fully_connected(graph, y, weights, name="b")
    model = read_model(finish(graph, [x], [y]))
    tensors = model.subgraphs[0].tensors
    first, second = (op.inputs[1] for op in model.subgraphs[0].operators)
    tensors[second].buffer = tensors[first].buffer
    packed = convert(write_model(model))
    assert packed.count(b"TFRP") == 1
    assert operators(packed) == [DENSE, DENSE]


@pytest.mark.parametrize("reader", ["operator", "output"])
def test_weights_that_something_else_reads_stay(reader, rng):
    weights = block_sparse((16, 16))
    graph = Graph()
    x = graph.tensor("x", (1, 16))
    constant = graph.constant("weights", weights)
    outputs = [fully_connected(graph, x, constant)]
    if reader == "operator":
        outputs.append(plain(graph, "NEG", [constant], (16, 16), "negated"))
    else:
        outputs.append(constant)
    dense = finish(graph, [x], outputs)
    packed = convert(dense)
    assert operators(packed)[0] == DENSE
    x = rng.standard_normal((1, 16)).astype(np.float32)
    for before, after in zip(run(dense, x), run(packed, x, packed=True), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def two_signatures() -> bytes:
    graphs = []
    for number in range(2):
        graph = Graph()
        x = graph.tensor(f"x{number}", (1, 8, 8, 8))
        weights = block_sparse((16, 3, 3, 8), seed=number)
        y = conv(graph, x, weights, np.ones(16), name=f"y{number}")
        graph.inputs, graph.outputs = [x], [y]
        graphs.append(graph)
    model = read_model(tiny_models.build(*graphs))
    model.tree.signatureDefs = [
        schema.SignatureDefT(
            inputs=[schema.TensorMapT(name="image", tensorIndex=0)],
            outputs=[schema.TensorMapT(name="score", tensorIndex=graph.outputs[0])],
            signatureKey=f"run{number}",
            subgraphIndex=number,
        )
        for number, graph in enumerate(graphs)
    ]
    return write_model(model)


def test_every_signature_and_subgraph_is_converted_and_verified(rng):
    dense = two_signatures()
    packed = convert(dense)
    interpreters = [
        trp.Interpreter(model_content=packed),
        tiny_models_interpreter(dense),
    ]
    x = rng.standard_normal((1, 8, 8, 8)).astype(np.float32)
    results = {}
    for key in ("run0", "run1"):
        results[key] = [
            interpreter.get_signature_runner(key)(image=x)["score"]
            for interpreter in interpreters
        ]
        np.testing.assert_allclose(*results[key], rtol=1e-4, atol=1e-4)
    assert np.abs(results["run0"][0] - results["run1"][0]).max() > 0.1
    assert [len(g.operators) for g in read_model(packed).subgraphs] == [1, 1]
    assert (
        read_model(packed).custom_code(read_model(packed).subgraphs[1].operators[0])
        == CONV
    )


def tiny_models_interpreter(content):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=content)


def test_metadata_description_and_names_are_kept():
    model = read_model(CONV_MODEL)
    model.tree.description = "made by hand"
    model.tree.buffers.append(
        schema.BufferT(data=np.frombuffer(b"\0any\xffbytes", "u1"))
    )
    model.tree.metadata = [
        schema.MetadataT(name="NOTE", buffer=len(model.tree.buffers) - 1)
    ]
    dense = write_model(model)
    before, after = read_model(dense), read_model(convert(dense))
    assert after.tree.description == b"made by hand"
    note, _ = after.tree.metadata  # and where it runs
    assert note.name == b"NOTE"
    assert bytes(after.tree.buffers[note.buffer].data) == b"\0any\xffbytes"
    names = [[t.name for t in m.subgraphs[0].tensors] for m in (before, after)]
    assert names[0] == names[1]


def with_options(content, **changes):
    """The model with other builtin options on its first operator."""
    model = read_model(content)
    for name, value in changes.items():
        setattr(model.subgraphs[0].operators[0].builtinOptions, name, value)
    return write_model(model)


def with_tensor(content, index, **changes):
    model = read_model(content)
    for name, value in changes.items():
        setattr(model.subgraphs[0].tensors[index], name, value)
    return write_model(model)


CONV_MODEL = conv_model(block_sparse((16, 3, 3, 4)), (1, 5, 5, 4), np.zeros(16))
DENSE_MODEL = fully_connected_model(block_sparse((16, 8)), (1, 8), np.zeros(16))
INT8 = schema.TensorType.INT8


@pytest.mark.parametrize(
    "content, reason",
    [
        (
            with_options(CONV_MODEL, fusedActivationFunction=4),
            "fused activation TANH is not applied by LiteRT's own float operator",
        ),
        (with_options(DENSE_MODEL, fusedActivationFunction=5), "activation SIGN_BIT"),
        (with_options(CONV_MODEL, strideH=0), "at least 1, received (0, 1, 1, 1)"),
        (with_options(CONV_MODEL, padding=7), "SAME or VALID, received 7"),
        (with_options(DENSE_MODEL, weightsFormat=1), "stored shuffled"),
        (
            with_options(DENSE_MODEL, asymmetricQuantizeInputs=True),
            "options of a quantized layer",
        ),
        (
            with_tensor(CONV_MODEL, 0, shape=np.array([1, 5, 5, 8], np.int32)),
            "grouped convolution: 8 input channels, filters over 4",
        ),
        (
            with_tensor(CONV_MODEL, 1, shape=np.array([16, 9, 4], np.int32)),
            "expected [O, kh, kw, I]",
        ),
        (
            with_tensor(CONV_MODEL, 1, shape=np.array([0, 3, 3, 4], np.int32)),
            "without 0",
        ),
        (with_tensor(CONV_MODEL, 1, type=INT8), "weights are INT8 without a scale"),
        (with_tensor(CONV_MODEL, 0, type=INT8), "activation is INT8"),
        (with_tensor(DENSE_MODEL, 3, type=INT8), "bias is INT8"),
        (with_tensor(DENSE_MODEL, 1, buffer=0), "weights are not constant"),
        (with_tensor(DENSE_MODEL, 1, isVariable=True), "weights are a variable"),
        (
            with_tensor(DENSE_MODEL, 1, buffer=0, externalBuffer=1),
            "weights are in an external file",
        ),
        (
            with_tensor(DENSE_MODEL, 3, shape=np.array([15], np.int32)),
            "bias has shape [15], expected [16]",
        ),
        (
            with_tensor(DENSE_MODEL, 1, type=schema.TensorType.FLOAT16),
            "FLOAT16 without DEQUANTIZE",
        ),
    ],
)
def test_what_cannot_be_packed_is_left_dense_with_the_reason(content, reason):
    (received,) = reasons(content)
    assert reason in received
    packed = trp.convert(content, minimum_gain=0)
    assert operators(packed) == operators(content)


def test_computed_weights_are_left_dense():
    graph = Graph()
    x = graph.tensor("x", (1, 8))
    constant = graph.constant("w", block_sparse((16, 8)))
    weights = plain(graph, "NEG", [constant], (16, 8), "negated")
    y = fully_connected(graph, x, weights)
    packed = convert(finish(graph, [x], [y]))
    assert operators(packed) == ["NEG", "FULLY_CONNECTED"]
    assert reasons(packed)[-1] == "weights are computed, not constant"


def test_weights_fed_as_an_input_are_left_dense():
    graph = Graph()
    x, weights = graph.tensor("x", (1, 8)), graph.tensor("w", (16, 8))
    y = fully_connected(graph, x, weights)
    content = finish(graph, [x, weights], [y])
    assert reasons(content) == ["weights are not constant"]
    assert operators(convert(content)) == ["FULLY_CONNECTED"]


def test_unpruned_layers_stay_dense_unless_asked_for(rng):
    weights = rng.standard_normal((16, 3, 3, 4)).astype(np.float32)
    dense = conv_model(weights, (1, 5, 5, 4), np.zeros(16))
    assert operators(trp.convert(dense)) == ["CONV_2D"]
    assert operators(convert(dense)) == [CONV]


def test_a_pruned_layer_is_packed_by_default():
    weights = block_sparse((64, 3, 3, 64), keep=1 / 8)
    dense = conv_model(weights, (1, 28, 28, 64), np.zeros(64))
    assert operators(trp.convert(dense)) == [CONV]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(value):
    weights = block_sparse((16, 3, 3, 4))
    weights[2, 1, 0, 3] = value
    dense = conv_model(weights, (1, 5, 5, 4), name="stem/conv")
    message = r"'stem/conv': 1 of 576 weights are NaN or Inf, the first at row 2, colu"
    with pytest.raises(trp.ConversionError, match=message):
        trp.convert(dense)


def test_converting_twice_changes_nothing():
    packed = convert(CONV_MODEL)
    assert convert(packed) == packed


def test_inputs_of_the_caller_are_run():
    x = np.ones((1, 5, 5, 4))
    for sample in (x, [x], {"x": x}):
        assert operators(convert(CONV_MODEL, inputs=[sample])) == [CONV]
    with pytest.raises(trp.ConversionError, match=r"expects float32 \[1, 5, 5, 4\]"):
        convert(CONV_MODEL, inputs=[x[0]])
    with pytest.raises(trp.ConversionError, match=r"expected the names \['x'\], rec"):
        convert(CONV_MODEL, inputs=[{"y": x}])
    with pytest.raises(trp.ConversionError, match="expected 1 arrays"):
        convert(CONV_MODEL, inputs=[[x, x]])
    with pytest.raises(trp.ConversionError, match="received complex128"):
        convert(CONV_MODEL, inputs=[x * 1j])


def test_the_output_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "model.tflite"
    packed = convert(CONV_MODEL, output=target)
    assert target.read_bytes() == packed
    assert os.stat(target).st_mode & 0o777 == 0o666 & ~current_umask()
    assert list(tmp_path.iterdir()) == [target]
    damaged = tmp_path / "other.tflite"
    with pytest.raises(trp.ConversionError):
        convert(CONV_MODEL[:-300], output=damaged)
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(FileNotFoundError):
        convert(CONV_MODEL, output=tmp_path / "nowhere" / "model.tflite")


def current_umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_path_is_read(tmp_path):
    source = tmp_path / "dense.tflite"
    source.write_bytes(CONV_MODEL)
    assert convert(source) == convert(str(source)) == convert(CONV_MODEL)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tolerance": 0}, "tolerance must be above 0, received 0"),
        ({"tolerance": float("nan")}, "tolerance must be above 0"),
        ({"minimum_gain": -1}, "minimum_gain must be at least 0, received -1"),
        ({"band_rows": 12}, "4, 8, 16, 32 or None, received 12"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(trp.ConversionError, match=message):
        trp.convert(CONV_MODEL, **options)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(trp.ConversionError, match="received int"):
        trp.convert(3)
    with pytest.raises(trp.ConversionError, match="TFL3 at byte 4, received b'' in 0"):
        trp.convert(b"")
    with pytest.raises(trp.ConversionError, match="received b'5678' in 9 bytes"):
        trp.convert(b"123456789")
    with pytest.raises(FileNotFoundError, match="no model at"):
        trp.convert(tmp_path / "absent.tflite")
    with pytest.raises(trp.ConversionError, match="has no saved_model.pb"):
        trp.convert(tmp_path)
    with pytest.raises(trp.ConversionError, match="expected a .tflite file"):
        trp.unpack(tmp_path)


@pytest.mark.parametrize("band_rows", [4, 8, 16, 32])
def test_band_rows_can_be_forced(band_rows):
    packed = convert(CONV_MODEL, band_rows=band_rows)
    model = read_model(packed)
    operator = model.subgraphs[0].operators[0]
    payload = model.data(model.subgraphs[0].tensors[operator.inputs[1]])
    assert read_header(payload).band_rows == band_rows
