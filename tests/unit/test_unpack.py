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
    operators,
    run,
)
from tiny_models import Graph, conv2d_model

import tfrewprune as trp
from tfrewprune.converter.flatbuffer import read_model, write_model


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


def without_negative_zeros(content):
    """Zeros lose their sign in a payload."""
    model = read_model(content)
    for tensor in model.subgraphs[0].tensors:
        data = model.data(tensor)
        if data is not None:
            values = data.view("f4") + np.float32(0)
            model.tree.buffers[tensor.buffer].data = values.view("u1")
    return write_model(model)


def test_everything_is_as_before_conversion():
    dense = "TfrewpruneFullyConnected"
    assert operators(PACKED) == ["TfrewpruneConv2D"] * 3 + [dense] * 2
    assert describe(trp.unpack(PACKED)) == describe(without_negative_zeros(DENSE))


def test_the_unpacked_model_runs_without_delegate_and_alike():
    x = np.random.default_rng(0).standard_normal((2, 9, 9, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(trp.unpack(PACKED), x)[0], run(DENSE, x)[0])


def test_packing_again_gives_the_same_bytes():
    assert trp.convert(trp.unpack(PACKED), minimum_gain=0) == PACKED
    assert trp.unpack(trp.convert(trp.unpack(PACKED), minimum_gain=0)) == trp.unpack(
        PACKED
    )


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
