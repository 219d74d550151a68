# SPDX-License-Identifier: Apache-2.0
"""The command line as a script sees it: output, messages, exit codes."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from dense_models import block_sparse, conv, finish
from tiny_models import Graph

from tfrewprune.benchmark.layers import Layer, build_model
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.cli import SUBCOMMANDS, main, output
from tfrewprune.cli.footnotes import Footnotes

LAYER = Layer("layer", 14, 14, 64, 64, kernel=(3, 3))


@pytest.fixture
def dense(tmp_path):
    """A pruned but dense model that is worth packing."""
    path = tmp_path / "dense.tflite"
    weights = pruned_weights(LAYER, "block16x1", 16)
    path.write_bytes(build_model(LAYER, weights, np.zeros(64, np.float32)))
    return path


@pytest.fixture
def packed(dense, tmp_path, capsys):
    path = tmp_path / "packed.tflite"
    assert main(["convert", str(dense), str(path), "--no-verify"]) == 0
    capsys.readouterr()
    return path


def call(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_convert_packs_verifies_and_tells(dense, tmp_path, capsys):
    target = tmp_path / "out.tflite"
    code, out, _ = call(capsys, "convert", dense, target)
    assert code == 0
    assert "1 packed" in out and "x smaller" in out
    assert target.stat().st_size < dense.stat().st_size / 5


def test_convert_json(dense, tmp_path, capsys):
    target = tmp_path / "out.tflite"
    code, out, _ = call(capsys, "convert", dense, target, "--json")
    document = json.loads(out)
    assert code == 0 and document["verified"]
    assert document["packed_bytes"] == target.stat().st_size
    assert document["dense_bytes"] == dense.stat().st_size
    assert [layer["packed"] for layer in document["layers"]] == [True]


def test_convert_leaves_dense_what_has_no_zeros(tmp_path, capsys):
    source, target = tmp_path / "full.tflite", tmp_path / "out.tflite"
    weights = np.ones((64, LAYER.columns), np.float32)
    source.write_bytes(build_model(LAYER, weights, np.zeros(64, np.float32)))
    code, out, _ = call(capsys, "convert", source, target)
    assert code == 0 and "no weight is 0" in out
    code, out, _ = call(capsys, "convert", source, target, "--pack-all", "--json")
    assert json.loads(out)["layers"][0]["packed"]


def test_convert_can_demand_packed_layers(dense, tmp_path, capsys):
    target = tmp_path / "out.tflite"
    code, _, _ = call(capsys, "convert", dense, target, "--require-packed", 1)
    assert code == 0 and target.exists()
    target.unlink()
    code, out, err = call(capsys, "convert", dense, target, "--require-packed", 2)
    assert code == 1 and out == "" and not target.exists()
    (line,) = err.splitlines()
    assert "expected at least 2 packed layers, received 1 of 1" in line


def test_convert_warns_in_one_line_when_nothing_is_packed(tmp_path, capsys):
    source, target = tmp_path / "full.tflite", tmp_path / "out.tflite"
    weights = np.ones((64, LAYER.columns), np.float32)
    source.write_bytes(build_model(LAYER, weights, np.zeros(64, np.float32)))
    code, _, err = call(capsys, "convert", source, target)
    (line,) = err.splitlines()
    assert code == 0
    assert line.startswith("tfrewprune convert: warning: convert packed none of 1")


def test_a_larger_and_slower_file_is_called_so(tmp_path, capsys):
    source, target = tmp_path / "full.tflite", tmp_path / "out.tflite"
    weights = np.random.default_rng(0).standard_normal((64, LAYER.columns))
    weights = weights.astype(np.float32)
    source.write_bytes(build_model(LAYER, weights, np.zeros(64, np.float32)))
    code, out, _ = call(capsys, "convert", source, target, "--pack-all", "--no-verify")
    assert code == 0 and "x larger" in out and "smaller" not in out
    words = ["--against", source, "--seconds", "0.02", "--isa", "portable"]
    code, out, _ = call(capsys, "bench", target, *words)
    assert code == 0 and "x larger" in out and "smaller" not in out
    assert "x slower (" in out and "faster" not in out


def test_a_missing_output_folder_is_named(dense, tmp_path, capsys):
    folder = tmp_path / "nowhere"
    for command in ("convert", "unpack"):
        code, _, err = call(capsys, command, dense, folder / "out.tflite")
        assert code == 1
        assert err == (
            f"tfrewprune {command}: error: there is no such folder for the output: "
            f"{folder}\n"
        )


def test_batch_size_reaches_the_converter(dense, tmp_path, capsys):
    words = ["--batch-size", "2"]
    code, _, err = call(capsys, "convert", dense, tmp_path / "out.tflite", *words)
    assert code == 1 and "batch_size applies to Keras models" in err


def test_unpack_gives_the_dense_weights_back(dense, packed, tmp_path, capsys):
    target = tmp_path / "back.tflite"
    code, out, _ = call(capsys, "unpack", packed, target, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["dense_bytes"] == target.stat().st_size
    assert document["packed_bytes"] == packed.stat().st_size
    weights = pruned_weights(LAYER, "block16x1", 16)
    assert weights.tobytes() in target.read_bytes()


def test_inspect_table(packed, capsys):
    code, out, _ = call(capsys, "inspect", packed)
    assert code == 0
    assert "64x3x3x64" in out and "93.8%" in out and "packed" in out
    assert "\x1b" not in out, "no colours outside a terminal"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_tables_fit_the_columns(width, packed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = call(capsys, "inspect", packed)
    assert max(map(len, out.splitlines())) <= width
    assert ("MACs" in out) == (width > 80), "little room, few columns"


def test_a_narrow_table_shortens_names_and_keeps_figures():
    columns = [output.Column("layer"), output.Column(">ms"), output.Column("note", 1)]
    names = [f"backbone/stage{n}/block3/conv2" for n in range(4)]
    rows = [(name, "0.1234", "a long remark") for name in names]
    file = io.StringIO()
    table = output.fitted_table(None, columns, rows, width=24)
    output.Console(file=file, width=24).print(table)
    lines = file.getvalue().splitlines()
    assert "note" not in lines[0] and max(map(len, lines)) <= 24
    for number, line in enumerate(lines[2:]):
        assert line.startswith("…") and f"e{number}" in line and "conv2" in line
        assert line.endswith("0.1234")


def test_reasons_stand_below_the_table_once():
    notes, file = Footnotes(), io.StringIO()
    marks = [notes.mark("dense", reason) for reason in ("no zeros", "int8", "no zeros")]
    assert marks == ["dense (1)", "dense (2)", "dense (1)"]
    notes.print(output.Console(file=file))
    assert file.getvalue().split() == "(1) no zeros (2) int8".split()


def test_inspect_json_with_measured_times(packed, capsys):
    code, out, _ = call(capsys, "inspect", packed, "--json", "--measure")
    (layer,) = json.loads(out)["layers"]
    assert code == 0
    assert layer["measured_ratio"] == pytest.approx(
        layer["measured_dense_us"] / layer["measured_packed_us"], rel=0.5
    )


def test_inspect_of_a_model_without_layers(tmp_path, capsys):
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors = graph.inputs = graph.outputs = graph.operators = []
    model.subgraphs = [graph]
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "empty.tflite"
    path.write_bytes(builder.Output())
    code, out, _ = call(capsys, "inspect", path)
    assert code == 0 and "no layer" in out


def test_bench_table_and_json(packed, dense, capsys):
    words = ["--seconds", "0.05", "--isa", "portable"]
    code, out, _ = call(capsys, "bench", packed, *words)
    assert code == 0
    assert "dense" in out and "faster" in out and "portable" in out
    code, out, _ = call(capsys, "bench", packed, "--against", dense, "--json", *words)
    document = json.loads(out)
    assert code == 0
    assert document["claimed_nodes"] == 1 and document["isa"] == "portable"
    assert document["ratio"]["p10"] <= document["ratio"]["median"]
    assert document["against"] == str(dense)


def test_bench_refuses_what_it_cannot_tell(packed, dense, capsys):
    code, out, err = call(capsys, "bench", dense)
    assert code == 1 and out == "" and f"no packed layer in {dense}" in err
    words = ["--seconds", "0.02", "--isa", "portable"]
    assert call(capsys, "bench", dense, "--against", dense, *words)[0] == 0
    code, out, err = call(capsys, "bench", packed, "--frame-ms", "20", *words)
    assert code == 1 and out == "" and "this one takes 1x14x14x64" in err


def test_bench_and_inspect_take_and_tell_an_open_size(tmp_path, capsys):
    graph = Graph()
    x = graph.tensor("x", (1, 1, 1, 32), signature=(-1, -1, -1, 32))
    weights = block_sparse((64, 3, 3, 32))
    dense, packed = tmp_path / "dense.tflite", tmp_path / "packed.tflite"
    dense.write_bytes(finish(graph, [x], [conv(graph, x, weights, np.zeros(64))]))
    _, out, _ = call(capsys, "convert", dense, packed)
    assert "predicted for inputs of 1x32x32x32." in " ".join(out.split())
    code, out, err = call(capsys, "bench", packed, "--seconds", "0.02")
    assert code == 1 and out == "" and "--size" in err
    words = ["--size", "10x12", "--seconds", "0.02"]
    code, out, _ = call(capsys, "bench", packed, *words)
    assert code == 0 and "inputs of 1x10x12x32" in out
    _, out, _ = call(capsys, "inspect", packed, "--size", "10x12", "--measure")
    assert "measured for inputs of 1x10x12x32." in " ".join(out.split())
    code, out, err = call(capsys, "inspect", packed, "--measure")
    assert code == 1 and out == "" and "--size" in err
    _, out, _ = call(capsys, "inspect", packed, "--json")
    assert json.loads(out)["shapes"] == [[1, 32, 32, 32]]


def test_bench_refuses_a_model_that_computes_something_else(packed, tmp_path, capsys):
    other = tmp_path / "other.tflite"
    weights = pruned_weights(LAYER, "block16x1", 16, seed=9)
    other.write_bytes(build_model(LAYER, weights, np.zeros(64, np.float32)))
    code, out, err = call(capsys, "bench", packed, "--against", other, "--json")
    assert code == 1 and out == ""
    assert "computes something else" in err


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "{gone}", "{out}"),
        ("unpack", "{gone}", "{out}"),
        ("inspect", "{gone}"),
        ("bench", "{gone}"),
        ("convert", "{garbage}", "{out}"),
        ("unpack", "{garbage}", "{out}"),
        ("inspect", "{garbage}"),
        ("bench", "{garbage}"),
    ],
    ids=" ".join,
)
def test_failures_are_one_line_and_exit_1(words, tmp_path, capsys):
    garbage = tmp_path / "garbage.tflite"
    garbage.write_bytes(b"this is no model at all, but long enough to be read" * 4)
    names = {
        "gone": tmp_path / "gone.tflite",
        "garbage": garbage,
        "out": tmp_path / "out.tflite",
    }
    code, out, err = call(capsys, *(word.format(**names) for word in words))
    assert code == 1 and out == ""
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith(f"tfrewprune {words[0]}: error: ")
    assert not names["out"].exists()


def test_traceback_on_demand(tmp_path, monkeypatch):
    monkeypatch.setenv("TFREWPRUNE_TRACEBACK", "1")
    with pytest.raises(OSError):
        main(["inspect", str(tmp_path / "gone.tflite")])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["convert", "only-one"],
        ["bench", "model", "--threads", "0"],
        ["bench", "model", "--threads", "two"],
        ["bench", "model", "--isa", "sse9"],
        ["bench", "model", "--size", "12"],
        ["bench", "model", "--seconds", "-1"],
        ["bench", "model", "--tolerance", "nan"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: tfrewprune" in capsys.readouterr().err


@pytest.mark.parametrize("command", [None, *SUBCOMMANDS])
def test_help_documents_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"] if command else ["--help"])
    assert stop.value.code == 0
    assert "exit codes:" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from tfrewprune.cli import build_parser\n"
        "build_parser().format_help()\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'rich', 'ai_edge_litert'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_reader_that_goes_away_is_no_failure(packed):
    done = subprocess.run(
        f"{sys.executable} -m tfrewprune inspect {packed} | head -n 0; "
        "exit ${PIPESTATUS[0]}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr and "error" not in done.stderr


def test_json_has_no_nan():
    file = io.StringIO()
    output.print_json({"a": [float("nan"), 1.5], "b": float("inf")}, file)
    assert json.loads(file.getvalue()) == {"a": [None, 1.5], "b": None}


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (9_999, "9999 B"), (20_600, "20.6 kB"), (102_400_000, "102.4 MB")],
)
def test_readable_bytes(count, text):
    assert output.readable_bytes(count) == text
