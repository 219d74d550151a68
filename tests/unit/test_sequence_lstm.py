# SPDX-License-Identifier: Apache-2.0
"""TFLite's own LSTM, packed: the same outputs call after call, and the way back."""

import re

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter as LiteRt
from tiny_models import Graph, Operator

import tfrewprune as trp
from tfrewprune.converter.flatbuffer import Model, read_model, write_model

UNITS, FEATURES, STEPS = 20, 7, 5
LSTM = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
OPTIONS = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions


def make(batch=1, keep=1.0, missing=(), present=(), half=False, **options) -> bytes:
    """A file with one such operator; `missing` and `present` are places of inputs."""
    random = np.random.default_rng(1)
    graph = Graph()
    major = options.get("timeMajor", False)
    outer = (STEPS, batch) if major else (batch, STEPS)
    x = graph.tensor("x", (*outer, FEATURES))
    inputs = [x]

    def weights(shape):
        # 0.5 and more: cell states reach their clip.
        values = random.uniform(-1, 1, shape)
        values = np.where(random.random(shape) < keep, values, 0)
        name = f"w{len(inputs)}"
        if not half:
            return graph.constant(name, values)
        stored = graph.tensor(
            name, shape, values.astype(np.float16).tobytes(), schema.TensorType.FLOAT16
        )
        wide = graph.tensor(f"{name}/wide", shape)
        code = schema.BuiltinOperator.DEQUANTIZE
        kind = schema.BuiltinOptions.DequantizeOptions
        graph.operators.append(
            Operator(code, [stored], [wide], b"", schema.DequantizeOptionsT(), kind)
        )
        return wide

    for place in range(1, 24):
        if place in (18, 19):
            inputs.append(graph.tensor(f"state{place}", (batch, UNITS)))
            continue
        shape = (UNITS, FEATURES) if place < 5 else (UNITS, UNITS)
        if place in range(9, 16) or place > 19:
            shape = (UNITS,)
        there = place in present or place < 9 or 12 <= place < 16
        inputs.append(weights(shape) if there and place not in missing else -1)
    y = graph.tensor("y", (*outer, UNITS))
    given = {"fusedActivationFunction": 4, "cellClip": 1.5} | options
    made = schema.UnidirectionalSequenceLSTMOptionsT(**given)
    graph.operators.append(Operator(LSTM, inputs, [y], b"", made, OPTIONS))
    graph.inputs, graph.outputs = [x], [y]
    model = read_model(graph.to_bytes())
    for state in inputs[18:20]:
        model.subgraphs[0].tensors[state].isVariable = True
    return write_model(model)


def feeds(batch=1, count=4, major=False):
    random = np.random.default_rng(2)
    shape = (STEPS, batch, FEATURES) if major else (batch, STEPS, FEATURES)
    return [2 * random.standard_normal(shape).astype("f4") for _ in range(count)]


def follow(interpreter, inputs, reset_before=()):
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]
    outputs = []
    for number, x in enumerate(inputs):
        if number in reset_before:
            interpreter.reset_all_variables()
        interpreter.set_tensor(place, x)
        interpreter.invoke()
        outputs.append(
            interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        )
    return np.array(outputs)


def operators(content) -> list[str]:
    model: Model = read_model(bytes(content))
    return [
        (model.custom_code(op) or str(model.builtin_code(op))).split()[0]
        for graph in model.subgraphs
        for op in graph.operators
    ]


CASES = {
    "plain": {},
    "no clip": {"cellClip": 0.0},
    "relu": {"fusedActivationFunction": 1, "cellClip": 0.75},
    "batch": {"batch": 3},
    "time first": {"batch": 3, "timeMajor": True},
    "time first, one sequence": {"timeMajor": True},
    "float16": {"half": True},
    "pruned": {"keep": 0.1},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_states_stay_from_call_to_call_as_in_litert(case):
    content = make(**case)
    packed = trp.convert(content, require_packed=2)
    assert operators(packed).count("TfrewpruneLSTM") == 1
    inputs = feeds(case.get("batch", 1), major=case.get("timeMajor", False))
    expected = follow(LiteRt(model_content=content), inputs, reset_before=[3])
    received = follow(trp.Interpreter(packed), inputs, reset_before=[3])
    np.testing.assert_allclose(received, expected, atol=1e-5)
    dense = trp.unpack(packed)
    assert operators(dense).count(str(LSTM)) == 1
    back = follow(LiteRt(model_content=dense), inputs, reset_before=[3])
    np.testing.assert_allclose(back, expected, atol=1e-6)
    again = trp.convert(dense)
    assert again.report.packed and operators(again) == operators(packed)


def test_a_state_is_not_forgotten_and_not_shared():
    packed = trp.convert(make())
    first, second = trp.Interpreter(packed), trp.Interpreter(packed)
    inputs = feeds(count=3)
    kept = follow(first, [inputs[0]] * 3)
    assert np.abs(kept[0] - kept[1]).max() > 1e-3
    np.testing.assert_array_equal(follow(second, [inputs[0]])[0], kept[0])


def test_float16_weights_stay_half_as_large():
    sizes = [
        sum(layer.bytes_packed for layer in trp.inspect_model(bytes(trp.convert(file))))
        for file in (make(), make(half=True))
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_compiled_model_takes_states_as_inputs_only():
    """LiteRT's CompiledModel refuses variable tensors, dense or packed."""
    content = make()
    with pytest.raises(RuntimeError, match="unsupported"):
        trp.CompiledModel(bytes(trp.convert(content)))
    model = trp.CompiledModel(bytes(trp.convert(content, streaming=True)))
    inputs = feeds()
    states = [np.zeros((1, UNITS), np.float32)] * 2
    for x, wanted in zip(inputs, follow(LiteRt(model_content=content), inputs)):  # noqa: B905
        y, *states = model.run([x, *states]).values()
        np.testing.assert_allclose(np.reshape(y, wanted.shape), wanted, atol=1e-5)


def test_streaming_makes_its_states_inputs_and_outputs():
    content = make()
    packed = trp.convert(content, streaming=True)
    interpreter = trp.Interpreter(packed)
    interpreter.allocate_tensors()
    names = [detail["name"] for detail in interpreter.get_input_details()]
    assert names == ["x", "y/state", "y/cell_state"]
    inputs = feeds()
    expected = follow(LiteRt(model_content=content), inputs)
    states = [np.zeros((1, UNITS), np.float32)] * 2
    dense = LiteRt(model_content=trp.unpack(packed))
    dense.allocate_tensors()
    for x, wanted in zip(inputs, expected, strict=True):
        for runner in (interpreter, dense):
            details = runner.get_input_details()
            for detail, value in zip(details, [x, *states], strict=True):
                runner.set_tensor(detail["index"], value)
            runner.invoke()
            y, *after = (
                runner.get_tensor(d["index"]) for d in runner.get_output_details()
            )
            np.testing.assert_allclose(y, wanted, atol=1e-5)
        states = after


LEFT = {
    "peepholes": ({"present": (9, 10, 11)}, "peepholes"),
    "a projection": ({"present": (16,)}, "projection"),
    "layer normalization": ({"present": (20, 21, 22, 23)}, "layer normalization"),
    "tied gates": ({"missing": (1, 5, 12)}, "tied to its forget gate"),
    "no weights": ({"missing": (2,)}, "recurrent operators are not packed|constants"),
    "NONE": ({"fusedActivationFunction": 0}, "received activation 0"),
    "RELU6": ({"fusedActivationFunction": 3}, "received activation 3"),
    "diagonals": ({"diagonalRecurrentTensors": True}, "diagonal"),
    "a clip below 0": ({"cellClip": -1.0}, "at least 0, received -1"),
    "a clip of NaN": ({"cellClip": float("nan")}, "received nan"),
}


@pytest.mark.parametrize(("case", "reason"), LEFT.values(), ids=LEFT)
def test_what_the_packed_operator_lacks_stays_with_its_reason(case, reason):
    content = make(**case)
    with pytest.warns(UserWarning, match="packed none"):
        result = trp.convert(content)
    assert bytes(result) == content
    (layer,) = result.report.layers
    assert layer.op == "UNIDIRECTIONAL_SEQUENCE_LSTM" and not layer.packed
    assert re.search(reason, layer.reason), layer.reason


@pytest.mark.parametrize("what", ["plain", "shape", "type"])
def test_states_that_are_no_states_are_left_alone(what):
    model = read_model(make())
    state = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[18]]
    if what == "plain":
        state.isVariable = False
    elif what == "shape":
        state.shape = np.array([1, UNITS + 1], np.int32)
    else:
        state.type = schema.TensorType.INT8
    with pytest.warns(UserWarning, match="packed none"):
        result = trp.convert(write_model(model))
    assert "the states of an LSTM are" in result.report.layers[0].reason


def test_a_loop_that_claims_to_be_stateful_needs_variables():
    """No file of ours has one: its loop could not keep anything."""
    from tfrewprune.converter.conversion import with_own_loops
    from tfrewprune.converter.recurrent.recognise import find_loops

    model = read_model(with_own_loops(make()))
    assert [loop.layer.options.stateful for loop in find_loops(model)] == [1]
    for tensor in model.subgraphs[0].tensors:
        tensor.isVariable = False
    assert find_loops(model) == []


def test_inspecting_the_dense_file_says_what_convert_will_do():
    (record,) = trp.inspect_model(make())
    assert record.op == "UNIDIRECTIONAL_SEQUENCE_LSTM" and not record.packed
    assert record.reason.endswith("convert packs the layer as a whole")
