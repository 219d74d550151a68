# SPDX-License-Identifier: Apache-2.0
"""convert() tells what it did: a report beside the bytes, one warning for nothing."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from dense_models import block_sparse, conv, conv_model, finish, plain
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.converter import SkipReason
from tfrewprune.converter.flatbuffer import read_model, tensor_shape, write_model
from tfrewprune.converter.report import size_change

PRUNED = block_sparse((64, 3, 3, 32), keep=1 / 8)
FULL = np.random.default_rng(0).standard_normal((64, 1, 1, 64))


def three_layers() -> bytes:
    graph = Graph()
    x = graph.tensor("x", (1, 14, 14, 32))
    y = conv(graph, x, PRUNED, np.zeros(64), name="pruned")
    y = conv(graph, y, FULL, np.zeros(64), name="full")
    weights = graph.constant("depthwise", np.ones((1, 3, 3, 64)))
    bias = graph.constant("bias", np.zeros(64))
    y = plain(graph, "DEPTHWISE_CONV_2D", [y, weights, bias], (1, 14, 14, 64), "last")
    return finish(graph, [x], [y])


def unpruned() -> bytes:
    return conv_model(FULL, (1, 8, 8, 64), np.zeros(64))


def quantized() -> bytes:
    model = read_model(unpruned())
    model.subgraphs[0].tensors[1].type = schema.TensorType.INT8
    return write_model(model)


def no_weights() -> bytes:
    graph = Graph()
    x = graph.tensor("x", (1, 8))
    return finish(graph, [x], [plain(graph, "NEG", [x], (1, 8))])


def test_the_result_is_the_bytes_and_the_report(tmp_path):
    dense = three_layers()
    packed = trp.convert(dense, verify=False)
    (tmp_path / "a.tflite").write_bytes(packed)
    assert (tmp_path / "a.tflite").read_bytes() == bytes(packed) == packed
    report = packed.report
    assert [layer.packed for layer in report.layers] == [True, False, False]
    assert [layer.name for layer in report.packed] == ["pruned"]
    assert [layer.skip for layer in report.layers] == [
        None,
        SkipReason.NO_ZEROS,
        SkipReason.OPERATOR,
    ]
    assert report.layers[2].reason == "depthwise convolutions are not packed"
    assert (report.bytes_before, report.bytes_after) == (len(dense), len(packed))
    assert 0 < report.predicted_ms < report.predicted_dense_ms
    assert report.difference is None
    first, second, third = report.layers
    assert first.predicted_ms < first.predicted_dense_ms
    assert second.predicted_ms == second.predicted_dense_ms
    assert third.predicted_ms is None


def test_the_report_has_one_summary_and_is_json():
    report = trp.convert(three_layers(), verify=False).report
    lines = str(report).splitlines()
    assert lines[0].startswith("1 of 3 layers packed; ") and "x smaller" in lines[0]
    assert lines[2] == (
        "left dense: 1 because none of their weights is 0 (full); "
        "1 because their operator has no packed form (last)."
    )
    document = json.loads(json.dumps(report.to_dict()))
    assert document["layers"][1]["skip"] == "NO_ZEROS"


def test_the_result_runs_and_is_measured_when_verified():
    dense = conv_model(PRUNED, (1, 14, 14, 32), np.zeros(64))
    packed = trp.convert(dense)
    assert 0 <= packed.report.difference < 1e-5
    for interpreter in (trp.Interpreter(packed), trp.Interpreter(model_content=packed)):
        assert interpreter.claimed_nodes == 1


def of_open_size():
    shape, open_ = (1, 1, 1, 32), (-1, -1, -1, 32)
    return conv_model(PRUNED, shape, np.zeros(64), signature=open_)


def test_open_sizes_are_decided_for_a_size_that_the_report_tells():
    fixed = trp.convert(
        conv_model(PRUNED, (1, 32, 32, 32), np.zeros(64)), verify=False
    ).report
    assumed = trp.convert(of_open_size(), verify=False).report
    assert fixed.shapes is None and assumed.shapes == ((1, 32, 32, 32),)
    assert assumed.predicted_ms == pytest.approx(fixed.predicted_ms)
    assert "thread for inputs of 1x32x32x32: " in str(assumed)
    assert assumed.to_dict()["shapes"] == [[1, 32, 32, 32]]
    images = [np.zeros((1, 48, 40, 32), "f4")]
    given = trp.convert(of_open_size(), inputs=images, verify=False)
    assert given.report.shapes == ((1, 48, 40, 32),)
    # Predictions are for it, the file is not.
    assert tensor_shape(read_model(given).subgraphs[0].tensors[0]) == (1, 1, 1, 32)


def test_open_sizes_are_measured_at_the_size_that_is_predicted(monkeypatch):
    from tfrewprune.benchmark import profile

    shapes = []

    def watched(*arguments, **options):
        shapes.append(arguments[2][0].shape)
        return real(*arguments, **options)

    real = profile.time_pair
    monkeypatch.setattr(profile, "time_pair", watched)
    trp.convert(of_open_size(), measure=True)
    assert shapes == [(1, 32, 32, 32)]


def test_the_result_shows_itself_in_one_line_and_can_be_copied():
    packed = trp.convert(three_layers(), verify=False)
    shown = f"<Converted: {len(packed)} bytes, 1 of 3 layers packed>"
    assert repr(packed) == str(packed) == shown
    for other in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed)):
        assert other == packed and other.report == packed.report


@pytest.mark.parametrize(
    "content, message",
    [
        (
            unpruned(),
            r"packed none of 1 layers, 1 of them because none of their weights is 0 "
            r"\(y: no weight is 0\).*tfrewprune inspect",
        ),
        (quantized(), r"they are quantized.*weights are INT8"),
        (no_weights(), "the model has no operator with weights"),
    ],
    ids=["unpruned", "quantized", "no_weights"],
)
def test_nothing_packed_is_one_warning(content, message):
    with pytest.warns(UserWarning, match=message) as caught:
        packed = trp.convert(content)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert packed.report.packed == []


def test_the_commonest_reason_is_one_that_could_have_been_otherwise():
    graph = Graph()
    y = x = graph.tensor("x", (1, 8, 8, 4))
    weights = graph.constant("w", np.ones((1, 3, 3, 4)))
    for n in range(3):
        y = plain(graph, "DEPTHWISE_CONV_2D", [y, weights], (1, 8, 8, 4), f"d{n}")
    y = conv(graph, y, np.ones((16, 1, 1, 4)), np.zeros(16), name="c")
    with pytest.warns(UserWarning, match=r"1 of them because .* \(c: no weight is 0\)"):
        trp.convert(finish(graph, [x], [y]))


def test_a_packed_model_given_again_is_no_warning():
    packed = trp.convert(three_layers(), verify=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = trp.convert(packed)
    assert again == packed
    assert [layer.name for layer in again.report.packed] == ["pruned"]
    assert again.report.packed[0].op == "CONV_2D"


def test_too_few_packed_layers_are_an_error_and_no_file(tmp_path):
    target = tmp_path / "out.tflite"
    trp.convert(three_layers(), target, require_packed=1, verify=False)
    assert target.exists()
    target.unlink()
    message = "at least 2 packed layers, received 1 of 3; left dense: 1 because none"
    with pytest.raises(trp.ConversionError, match=message):
        trp.convert(three_layers(), target, require_packed=2, verify=False)
    assert not target.exists()
    with pytest.raises(trp.ConversionError, match="require_packed must be an integer"):
        trp.convert(three_layers(), require_packed=-1)
    with pytest.raises(trp.ConversionError, match="at least 0, received True"):
        trp.convert(three_layers(), require_packed=True)


@pytest.mark.parametrize(
    "before, after, text",
    [(400, 100, "4.00x smaller"), (100, 160, "1.60x larger"), (5, 5, "1.00x smaller")],
)
def test_a_file_that_grew_is_called_larger(before, after, text):
    assert size_change(before, after) == text
