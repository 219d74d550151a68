# SPDX-License-Identifier: Apache-2.0
"""Drivers chosen by measuring: the interpreter's options, the file, the reports."""

import json

import numpy as np
import pytest

import tfrewprune as trp
from tfrewprune.benchmark import drivers
from tfrewprune.benchmark.compare import run_once
from tfrewprune.benchmark.layers import Layer, build_model
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.benchmark.tuning import tuning_gains
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.cli import main
from tfrewprune.runtime.library import driver_names

LAYERS = {
    "conv": Layer("conv", 9, 7, 16, 48, kernel=(3, 3)),
    "pointwise": Layer("pointwise", 8, 8, 32, 64, kernel=(1, 1)),
    "dense": Layer("dense", 1, 1, 96, 64),
}


def packed_layer(layer: Layer, structure: str = "block16x1") -> bytes:
    weights = pruned_weights(layer, structure, 4)
    bias = np.linspace(-1, 1, layer.outputs, dtype=np.float32)
    return pack_every_layer(build_model(layer, weights, bias))[0]


@pytest.fixture(scope="module")
def packed() -> bytes:
    return packed_layer(LAYERS["conv"])


def outputs(content: bytes, layer: Layer, **options) -> tuple[np.ndarray, tuple]:
    interpreter = trp.Interpreter(model_content=content, **options)
    inputs = np.random.default_rng(3).standard_normal(layer.input_shape)
    (result,) = run_once(interpreter, [inputs.astype(np.float32)])
    (run,) = interpreter.trace()[0].layers
    return result, (run.driver, run.threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("structure", ["block16x1", "block8x1", "unstructured"])
@pytest.mark.parametrize("name", LAYERS)
def test_tuned_outputs_are_the_untuned_ones(name, structure, threads):
    content = packed_layer(LAYERS[name], structure)
    expected, _ = outputs(content, LAYERS[name], num_threads=threads)
    tuned, (driver, used) = outputs(
        content, LAYERS[name], num_threads=threads, tune="once", tune_ms=5
    )
    np.testing.assert_allclose(tuned, expected, atol=1e-5)
    assert driver in driver_names() and driver != "reference"
    assert used in (1, threads)


def test_every_driver_can_be_asked_for(packed):
    expected, _ = outputs(packed, LAYERS["conv"])
    taken = set()
    for name in driver_names():
        result, (driver, _) = outputs(
            packed, LAYERS["conv"], driver=name, log_level="error"
        )
        np.testing.assert_allclose(result, expected, atol=1e-5)
        taken.add(driver)
    assert {"direct", "reference"} <= taken


def test_the_file_remembers(packed, tmp_path, capfd):
    path = tmp_path / "folder" / "tuned.txt"
    path.parent.mkdir()
    options = {"num_threads": 2, "tune": "once", "cache_path": path}

    def log() -> str:
        capfd.readouterr()
        outputs(packed, LAYERS["conv"], log_level="debug", **options)
        return capfd.readouterr().err

    assert " is measured, " in log()
    assert [entry.name for entry in path.parent.iterdir()] == ["tuned.txt"]
    assert path.read_text().startswith("tfrewprune tuning 1, library ")
    assert " is remembered, " in log()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"direct", b"dirac!").replace(b"cpu", b"CPU"))
    assert " is measured, " in log()
    assert path.read_bytes().startswith(content.splitlines()[0])


def test_a_file_that_cannot_be_written_is_a_warning(packed, tmp_path, capfd):
    path = tmp_path / "gone" / "tuned.txt"
    result, _ = outputs(
        packed, LAYERS["conv"], num_threads=2, tune="once", cache_path=path
    )
    assert np.isfinite(result).all()
    assert "could not be written to cache_path" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": "always"}, "off or once. Received: 'always'"),
        ({"tune": "once", "tune_ms": 0}, "from 1 to 60000. Received: '0'"),
        ({"cache_path": "x"}, 'need tune="once". Received: tune=None'),
        ({"tune": "off", "tune_ms": 5}, "need tune=\"once\". Received: tune='off'"),
        ({"driver": "fastest"}, "auto, direct.* Received: 'fastest'"),
        ({"precision": "double"}, "float32 or float16. Received: 'double'"),
    ],
)
def test_options_that_make_no_sense_are_refused(packed, options, message):
    with pytest.raises(ValueError, match=message):
        trp.Interpreter(model_content=packed, **options)


def test_gains_of_a_model(packed, tmp_path):
    path = tmp_path / "packed.tflite"
    path.write_bytes(packed)
    (gain,) = tuning_gains(path, tune_ms=5)
    assert gain.predicted in driver_names() and gain.tuned in driver_names()
    assert gain.predicted_seconds > 0 and gain.tuned_seconds > 0 and gain.gain > 0
    assert gain.name


def test_bench_shows_the_gain_of_each_layer(packed, tmp_path, capsys):
    path = tmp_path / "packed.tflite"
    path.write_bytes(packed)
    words = ["bench", str(path), "--tune", "--seconds", "0.05"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "of 1 packed layers" in " ".join(out.split())
    assert main([*words, "--json"]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["tuning"]
    assert layer["tuned"] in driver_names()


def test_all_drivers_of_a_layer_are_compared(tmp_path, capsys):
    row = drivers.measure_drivers(LAYERS["pointwise"], rate=4, min_seconds=0.02)
    assert {row.predicted, row.tuned} <= set(row.seconds)
    assert len(row.seconds) >= 2 and "reference" not in row.seconds
    assert row.predicted_loss >= 0 and row.tuned_loss >= 0
    shapes, output = tmp_path / "shapes.txt", tmp_path / "rows.jsonl"
    shapes.write_text("a conv 6x6 16->32 k1x1\nb fc 32->32\n")
    words = ["--shapes", str(shapes), "--seconds", "0.02", "--output", str(output)]
    assert drivers.main(words) == 0
    assert "layers lose more than 3 %" in " ".join(capsys.readouterr().out.split())
    names = [json.loads(line)["layer"] for line in output.read_text().splitlines()]
    assert names == ["a", "b"]
