# SPDX-License-Identifier: Apache-2.0
"""unpack(): the way back to a standard model, bit-equal weights, exact options."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from dense_models import (
    block_sparse,
    conv,
    conv_model,
    finish,
    fully_connected,
    fully_connected_model,
    half_model,
    operators,
    plain,
    run,
)
from tiny_models import Graph, conv2d_model

import tfrewprune as trp
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.options import CONV_2D, FULLY_CONNECTED


def model_of_all_kinds() -> bytes:
    graph = Graph()
    x = graph.tensor("x", (2, 9, 9, 4))
    shared = graph.constant("shared", block_sparse((16, 1, 1, 16), seed=3))
    y = conv(
        *(graph, x, block_sparse((16, 3, 5, 4)), np.arange(16)),
        stride=(2, 1),
        dilation=(1, 2),
        activation="RELU6",
        name="a",
    )
    y = conv(graph, y, shared, np.ones(16), padding="VALID", name="b")
    y = conv(graph, y, shared, np.ones(16), activation="RELU_N1_TO_1", name="c")
    y = fully_connected(graph, y, block_sparse((8, 16)), keep_num_dims=True, name="d")
    y = fully_connected(
        graph, y, block_sparse((10, 360)), np.ones(10), activation="RELU", name="e"
    )
    return finish(graph, [x], [y])


DENSE = model_of_all_kinds()
PACKED = trp.convert(DENSE, minimum_gain=0)


def describe(content):
    """What TFLite sees of a model: operators with options, tensors with data."""
    model = read_model(content)
    (subgraph,) = model.subgraphs
    return [
        (
            model.builtin_code(operator),
            model.tree.operatorCodes[operator.opcodeIndex].version,
            vars(operator.builtinOptions),
            [int(i) for i in operator.inputs],
            [int(i) for i in operator.outputs],
        )
        for operator in subgraph.operators
    ], [
        (
            tensor.name,
            tensor.type,
            list(tensor.shape),
            None if model.data(tensor) is None else bytes(model.data(tensor)),
        )
        for tensor in subgraph.tensors
    ]


def without_negative_zeros(content, dtype="f4"):
    """Zeros lose their sign in a payload."""
    model = read_model(content)
    for tensor in model.subgraphs[0].tensors:
        data = model.data(tensor)
        if data is not None:
            values = data.view(dtype) + np.zeros((), dtype)
            model.tree.buffers[tensor.buffer].data = values.view("u1")
    return write_model(model)


def test_everything_is_as_before_conversion():
    dense = FULLY_CONNECTED
    assert operators(PACKED) == [CONV_2D] * 3 + [dense] * 2
    assert describe(trp.unpack(PACKED)) == describe(without_negative_zeros(DENSE))


def test_the_unpacked_model_runs_without_delegate_and_alike():
    x = np.random.default_rng(0).standard_normal((2, 9, 9, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(trp.unpack(PACKED), x)[0], run(DENSE, x)[0])


def test_packing_again_gives_the_same_bytes():
    assert trp.convert(trp.unpack(PACKED), minimum_gain=0) == PACKED
    assert trp.unpack(trp.convert(trp.unpack(PACKED), minimum_gain=0)) == trp.unpack(
        PACKED
    )


def stored(content):
    """(name, type, values) of every constant."""
    model = read_model(content)
    return {
        (tensor.name, tensor.type, bytes(model.data(tensor)))
        for tensor in model.subgraphs[0].tensors
        if model.data(tensor) is not None
    }


def test_float16_weights_come_back_in_float16_behind_dequantize():
    dense = half_model()
    packed = trp.convert(dense, minimum_gain=0)
    assert operators(packed).count("DEQUANTIZE") == 1  # that of the bias
    unpacked = trp.unpack(packed)
    assert sorted(operators(unpacked)) == sorted(operators(dense))
    assert stored(unpacked) == stored(without_negative_zeros(dense, "f2"))
    assert len(unpacked) < 1.02 * len(dense)
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(unpacked, x)[0], run(dense, x)[0])
    assert trp.convert(unpacked, minimum_gain=0) == packed
    assert read_model(unpacked).tree.metadata in (None, [])


def test_litert_runs_the_unpacked_model_in_as_few_pieces_as_the_original():
    dense = half_model()
    unpacked = trp.unpack(trp.convert(dense, minimum_gain=0))
    assert delegates(unpacked) == delegates(dense) == 1


def delegates(content):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    return names.count("DELEGATE")


def test_one_constant_behind_two_decoders_comes_back_once():
    weights = block_sparse((16, 1, 1, 16)).astype(np.float16)
    graph = Graph()
    y = x = graph.tensor("x", (1, 5, 5, 16))
    constant = graph.tensor(
        "half", weights.shape, weights.tobytes(), schema.TensorType.FLOAT16
    )
    for name in "ab":
        decoded = plain(graph, "DEQUANTIZE", [constant], weights.shape, f"w{name}")
        y = conv(graph, y, decoded, np.ones(16), name=name)
    dense = finish(graph, [x], [y])
    unpacked = trp.unpack(trp.convert(dense, minimum_gain=0))
    assert sorted(operators(unpacked)) == sorted(operators(dense))
    assert stored(unpacked) == stored(without_negative_zeros(dense, "f2"))


def test_a_model_packed_in_two_steps_remembers_both():
    dense = half_model()
    model = read_model(dense)
    model.subgraphs[0].tensors[1].type = schema.TensorType.BFLOAT16
    partly = trp.convert(write_model(model), minimum_gain=0, verify=False)
    assert operators(partly).count("CONV_2D") == 1
    model = read_model(partly)
    model.subgraphs[0].tensors[1].type = schema.TensorType.FLOAT16
    packed = trp.convert(write_model(model), minimum_gain=0)
    assert "CONV_2D" not in operators(packed)
    unpacked = trp.unpack(packed)
    assert stored(unpacked) == stored(without_negative_zeros(dense, "f2"))


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b'"code":6', b'"code":1', "operator 1 decodes nothing"),
        (b'"input":', b'"input":999', "no tensor 999"),
        (b'"subgraph"', b'"subgroup"', "is damaged: 'subgraph'"),
        (b"[{", b"{", "is damaged"),
    ],
)
def test_a_damaged_memory_of_the_source_is_refused(old, new, message):
    model = read_model(trp.convert(half_model(), minimum_gain=0))
    entry, _ = model.tree.metadata  # of the sources, of the hosts
    buffer = model.tree.buffers[entry.buffer]
    damaged = bytes(buffer.data).replace(old, new)
    assert damaged != bytes(buffer.data)
    buffer.data = np.frombuffer(damaged, np.uint8)
    with pytest.raises(trp.ConversionError, match=message):
        trp.unpack(write_model(model))


def test_a_dense_model_comes_back_as_it_is():
    assert describe(trp.unpack(DENSE)) == describe(DENSE)


def test_unpack_reads_and_writes_files(tmp_path):
    source, target = tmp_path / "packed.tflite", tmp_path / "dense.tflite"
    source.write_bytes(PACKED)
    assert trp.unpack(source, target) == target.read_bytes() == trp.unpack(PACKED)


def test_a_model_that_never_had_the_builtin_operator_gets_its_code():
    """Packed models need not come from convert."""
    weights = block_sparse((16, 3, 3, 4))
    packed = conv2d_model(weights, (1, 6, 6, 4), np.ones(16)).to_bytes()
    unpacked = trp.unpack(packed)
    assert operators(unpacked) == ["CONV_2D"]
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 4)).astype(np.float32)
    expected = run(packed, x, packed=True)[0]
    np.testing.assert_allclose(run(unpacked, x)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda c: c.replace(b"TFRP", b"XXXX", 1), "magic: expected b'TFRP'"),
        (lambda c: c.replace(b"TFPO", b"ABCD", 1), "expected magic and version"),
    ],
)
def test_damaged_payloads_and_options_are_refused(damage, message):
    damaged = damage(PACKED)
    assert damaged != PACKED
    with pytest.raises(trp.ConversionError, match=message):
        trp.unpack(damaged)


def test_options_that_do_not_fit_the_payload_are_refused():
    packed = trp.convert(
        conv_model(block_sparse((16, 3, 3, 4)), (1, 5, 5, 4), np.ones(16)),
        minimum_gain=0,
    )
    model = read_model(packed)
    operator = model.subgraphs[0].operators[0]
    words = np.array(operator.customOptions).view("<i4")
    words[6] = 5
    operator.customOptions = words.view("u1")
    with pytest.raises(trp.ConversionError, match=r"\(3, 3, 5\) needs 45 columns"):
        trp.unpack(write_model(model))


def test_a_payload_that_is_not_constant_is_refused():
    packed = trp.convert(
        fully_connected_model(block_sparse((16, 8)), (1, 8)), minimum_gain=0
    )
    model = read_model(packed)
    tensor = model.subgraphs[0].operators[0].inputs[1]
    model.subgraphs[0].tensors[tensor].buffer = 0
    with pytest.raises(trp.ConversionError, match="its payload is not constant"):
        trp.unpack(write_model(model))


def test_a_payload_that_another_operator_reads_is_refused():
    packed = trp.convert(
        fully_connected_model(block_sparse((16, 8)), (1, 8)), minimum_gain=0
    )
    model = read_model(packed)
    (operator,) = model.subgraphs[0].operators
    code = schema.BuiltinOperator.NEG
    model.tree.operatorCodes.append(
        schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code)
    )
    model.subgraphs[0].operators.append(
        schema.OperatorT(
            opcodeIndex=len(model.tree.operatorCodes) - 1,
            inputs=operator.inputs[1:2],
            outputs=operator.outputs,
        )
    )
    with pytest.raises(trp.ConversionError, match="read by another operator too"):
        trp.unpack(write_model(model))
