# SPDX-License-Identifier: Apache-2.0
"""What a user reads about a model before training it."""

import json
import os
import subprocess
import sys

import keras
import pytest

from tfrewprune.cli import main
from tfrewprune.converter.conversion import read_content
from tfrewprune.inspection import inspect_model
from tfrewprune.planning import RATES, plan, total_gain
from tfrewprune.structures import Unstructured

layers = keras.layers


@pytest.fixture(scope="module")
def model() -> keras.Model:
    inputs = x = keras.Input((28, 28, 3))
    x = layers.Conv2D(32, 3, name="stem")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(64, 3, strides=2, padding="same", name="middle")(x)
    x = layers.Conv2D(64, 3, padding="same", name="frozen", trainable=False)(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, name="up")(x)
    x = layers.Conv2D(8, 1, name="tiny")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(256, name="hidden")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="net")


@pytest.fixture(scope="module")
def rows(model) -> dict:
    return {row.layer: row for row in plan(model)}


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    return path


@pytest.mark.backend
def test_every_layer_is_explained(rows) -> None:
    assert list(rows) == [
        *("stem", "norm", "depthwise", "middle", "frozen", "up", "tiny", "hidden"),
        "logits",
    ]
    assert "first convolution" in rows["stem"].left_dense
    assert "depthwise" in rows["depthwise"].not_prunable
    assert rows["frozen"].not_prunable == "frozen"
    assert rows["up"].not_prunable is None
    assert "no packed operator" in rows["up"].not_packable
    assert rows["up"].not_packable in rows["up"].left_dense
    assert rows["middle"].left_dense is None
    assert rows["middle"].shape == (3, 3, 32, 64) and rows["middle"].pixels == 144
    assert "last classifier" in rows["logits"].left_dense


def test_a_layer_that_cannot_gain_is_left_dense_by_default() -> None:
    model = keras.Sequential(
        [
            keras.Input((64, 64, 1)),
            layers.Conv2D(64, 3, name="stem"),
            layers.Conv2D(4, 1, name="narrow"),
            layers.Conv2D(64, 3, name="wide"),
        ]
    )
    rows = {row.layer: row for row in plan(model)}
    assert max(rows["narrow"].gains.values()) <= 1
    assert rows["narrow"].left_dense and rows["wide"].gains[8] > 1


def test_shares_and_gains(rows) -> None:
    shares = [row.share for row in rows.values() if row.share is not None]
    assert sum(shares) == pytest.approx(1)
    assert rows["frozen"].share > rows["hidden"].share > 0
    assert list(rows["middle"].gains) == list(RATES)
    assert 1 < rows["middle"].gains[2] < rows["middle"].gains[8] < 9
    # What is left dense holds the model back.
    assert 1 < total_gain(list(rows.values()), 8) < rows["middle"].gains[8]


@pytest.mark.backend
def test_dense_times_are_those_of_the_converter(model, rows) -> None:
    times = {
        record.shape: record.predicted_dense_us
        for record in inspect_model(read_content(model))
    }
    assert rows["middle"].dense_us == pytest.approx(times[64, 3, 3, 32])
    assert rows["hidden"].dense_us == pytest.approx(times[256, 8])


def test_structure_decides_the_gain(model, rows) -> None:
    single = {row.layer: row for row in plan(model, Unstructured())}
    assert single["middle"].gains[8] < rows["middle"].gains[8]


def test_attention_has_a_time_like_any_matrix() -> None:
    inputs = keras.Input((16, 64))
    attention = layers.MultiHeadAttention(2, 32, name="attention")
    outputs = layers.Dense(64, name="dense")(attention(inputs, inputs))
    rows = {row.layer: row for row in plan(keras.Model(inputs, outputs))}
    for part in ("query", "key", "value"):
        row = rows[f"attention/{part}"]
        assert row.pixels == 16 and row.gains[8] > 1
        assert row.dense_us == pytest.approx(rows["dense"].dense_us)


def test_unknown_image_size_is_no_failure() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(64, 3)])
    (row,) = plan(model)
    assert row.weights == 1728 and row.pixels is None and row.share is None
    assert total_gain([row], 8) is None


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer with weights"):
        plan(keras.Sequential([keras.Input((2, 2)), layers.Flatten()]))


def test_plan_command(saved, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", str(saved)]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()[1:]) <= 80
    (middle,) = [line for line in out.splitlines() if line.startswith("middle")]
    assert middle.rstrip().endswith("pruned")
    assert "left dense" in out and "no packed operator" in out
    assert "1 BatchNormalization" in out and "1 DepthwiseConv2D" in out
    assert "at 8x fewer weights" in " ".join(out.split())


def test_inspect_of_a_keras_file_is_the_plan(saved, capsys) -> None:
    assert main(["plan", str(saved), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["gains"]["8"] > planned["gains"]["2"] > 1
    assert main(["inspect", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == planned
    assert main(["inspect", str(saved), "--measure"]) == 1
    assert "needs a .tflite" in capsys.readouterr().err


def test_a_model_without_matrices_has_no_table(tmp_path, capsys) -> None:
    path = tmp_path / "model.keras"
    inputs = keras.Input((8, 4))
    keras.Model(inputs, layers.BatchNormalization()(inputs)).save(path)
    assert main(["plan", str(path)]) == 0
    out = capsys.readouterr().out
    assert "1 BatchNormalization" in out and "share" not in out


def test_every_name_of_a_keras_file_is_one(tmp_path, capsys) -> None:
    path = tmp_path / "model.hdf5"
    keras.Sequential([keras.Input((64,)), layers.Dense(64, name="wide")]).save(path)
    assert main(["inspect", str(path)]) == 0
    assert "wide" in capsys.readouterr().out


def test_plan_by_structure(saved, capsys) -> None:
    def gain(*words) -> float:
        assert main(["plan", str(saved), "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)["gains"]["8"]

    assert gain("--structure", "unstructured") < gain("--structure", "block8x1")
    assert gain() == gain("--structure", "block16x1")
    with pytest.raises(SystemExit):
        main(["plan", str(saved), "--structure", "block0x1"])
    told = capsys.readouterr().err
    assert "must be block<rows>x<columns>" in told
    # All that can be asked for, and what needs arguments is not among it.
    assert "punched, rowcolumn, unstructured, received" in told
    assert "balanced" not in told


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_bad_file_is_one_line(content, tmp_path, capsys) -> None:
    path = tmp_path / "bad.keras"
    if content:
        path.write_bytes(content)
    assert main(["plan", str(path)]) == 1
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1
    assert str(path) in streams.err


@pytest.mark.slow
def test_a_tflite_file_is_referred_to_inspect(tmp_path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3")
    with pytest.raises(ValueError, match="received the .tflite file .* inspect"):
        plan(path)


def test_plan_keeps_tensorflow_quiet(saved) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tfrewprune", "plan", str(saved)],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""


def test_a_plan_for_another_processor_asks_none_about_this_one(
    model, monkeypatch
) -> None:
    def asked():
        raise AssertionError("this machine's cost model")

    monkeypatch.setattr("tfrewprune.payload.gain.default_cost_model", asked)
    rows = {row.layer: row for row in plan(model, target="arm-small")}
    assert rows["middle"].finest is not None


def test_plan_for_another_processor(model, rows, tmp_path, capsys) -> None:
    slow = {row.layer: row for row in plan(model, target="arm-small")}
    assert slow["middle"].dense_us > 3 * rows["middle"].dense_us
    assert slow["middle"].gains[8] > 1
    with pytest.raises(ValueError, match="Received: 'z80'"):
        plan(model, target="z80")
    path = tmp_path / "model.keras"
    model.save(path)
    assert main(["plan", str(path), "--target", "arm-small", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    middle = next(layer for layer in layers if layer["layer"] == "middle")
    assert middle["dense_us"] == slow["middle"].dense_us
