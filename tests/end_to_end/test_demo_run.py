# SPDX-License-Identifier: Apache-2.0
"""The demo from the data to the report, with few epochs."""

import json

import numpy as np
import pytest

import tfrewprune as trp
from tfrewprune.demo.data import load_digits
from tfrewprune.demo.run import run_demo
from tfrewprune.demo.training import Plan


class Recorder:
    def __init__(self):
        self.stages, self.epochs = [], []

    def stage(self, name):
        self.stages.append(name)

    def epoch(self, phase, number, total, logs):
        self.epochs.append(phase)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    recorder = Recorder()
    plan = Plan(1, 3, 2, strength=1e-4, rates=(1000, 4), allowed_loss=0.05)
    result = run_demo(folder, plan=plan, progress=recorder, min_seconds=0.3)
    return folder, result, recorder


@pytest.mark.slow
def test_files_are_written(demo):
    folder, _, _ = demo
    names = {path.name for path in folder.iterdir()}
    assert names == {"dense.tflite", "packed.tflite", "demo.json", "report.html"}


@pytest.mark.slow
def test_baseline_gets_as_many_epochs_as_the_pruned_model(demo):
    _, result, recorder = demo
    dense = recorder.epochs.count("dense baseline")
    tries = len(result.tried)
    assert dense == 6
    assert len(recorder.epochs) - dense == 6 + 2 * (tries - 1)


@pytest.mark.slow
def test_the_rate_is_the_first_that_holds_on_the_validation_part(demo):
    _, result, _ = demo
    floor = result.dense.validation - 0.05
    *failed, chosen = result.tried.items()
    assert all(accuracy < floor for _, accuracy in failed)
    assert result.chosen_rate == chosen[0]
    assert chosen[1] >= floor or chosen[0] == 4
    # The stripped model still is the one that was judged.
    assert result.pruned.validation == pytest.approx(chosen[1], abs=1e-6)


@pytest.mark.slow
def test_packed_file_gives_the_reported_accuracy(demo):
    folder, result, _ = demo
    test = load_digits(0).test
    interpreter = trp.Interpreter(folder / "packed.tflite")
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, test.images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, test.images)
    interpreter.invoke()
    scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    accuracy = np.mean(scores.argmax(axis=-1) == test.labels)
    assert accuracy == pytest.approx(result.pruned.test_litert)
    assert accuracy == pytest.approx(result.pruned.test, abs=1 / len(test) + 1e-9)
    assert interpreter.claimed_nodes == result.comparison.claimed_nodes >= 3


@pytest.mark.slow
def test_layers_add_up_and_were_timed(demo):
    folder, result, _ = demo
    records = trp.inspect_model(folder / "packed.tflite")
    assert [layer.weights for layer in result.layers] == [r.weights for r in records]
    assert [layer.kept for layer in result.layers] == [r.kept for r in records]
    kept = sum(layer.kept for layer in result.layers)
    total = sum(layer.weights for layer in result.layers)
    assert result.weight_rate == pytest.approx(total / kept)
    pruned = [layer for layer in result.layers if layer.structure]
    assert len(pruned) == 4
    for layer in pruned:
        assert layer.survivors.sum() * 16 == layer.kept
        assert layer.dense_seconds > 0


@pytest.mark.slow
def test_it_is_smaller_and_faster(demo):
    _, result, _ = demo
    assert result.comparison.packed_bytes < result.comparison.dense_bytes / 3
    # Far below what is reached, but never noise.
    assert result.comparison.ratio.median > 1.3


@pytest.mark.slow
def test_json_and_report_tell_the_same(demo):
    folder, result, _ = demo
    document = json.loads((folder / "demo.json").read_text())
    assert document["pruned"]["test_litert"] == result.pruned.test_litert
    page = (folder / "report.html").read_text()
    assert f"{result.comparison.ratio.median:.2f}x" in page
    assert page.count("data:image/png") == 2 * 4, "four layers, for screen and phone"
