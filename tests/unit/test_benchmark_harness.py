# SPDX-License-Identifier: Apache-2.0
"""Rows of the benchmark, whole-model comparison and the machine's limits."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from dense_models import block_sparse, conv, finish
from tiny_models import Graph

import tfrewprune
from tfrewprune.benchmark import harness
from tfrewprune.benchmark.compare import (
    compare_models,
    random_inputs,
    run_once,
)
from tfrewprune.benchmark.harness import DEFAULT_PLAN, Sweep, measure_layer, run_sweeps
from tfrewprune.benchmark.layers import Layer, build_model
from tfrewprune.benchmark.machine import (
    WORKING_SETS,
    Machine,
    fill_seconds,
    measure_machine,
)
from tfrewprune.benchmark.measure import WrongResultError
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.benchmark.plot import plot_speed_up
from tfrewprune.benchmark.profile import time_layers
from tfrewprune.benchmark.tuning import tuning_gains
from tfrewprune.benchmark.weights import pruned_weights

LAYER = Layer("layer", 10, 10, 32, 64, kernel=(3, 3))
QUICK = {"min_seconds": 0.02}


def write_pair(folder, layer=LAYER, rate=8, scale=1.0):
    weights = pruned_weights(layer, "block16x1", rate)
    bias = np.zeros(layer.outputs, np.float32)
    dense = folder / "dense.tflite"
    dense.write_bytes(build_model(layer, weights * np.float32(scale), bias))
    packed = folder / "packed.tflite"
    packed.write_bytes(pack_every_layer(build_model(layer, weights, bias))[0])
    return packed, dense


def test_row_holds_together():
    row = measure_layer(LAYER, "block16x1", 8, isa="portable", **QUICK)
    weights = 64 * 9 * 32
    assert row.kept == pytest.approx(1 / 8)
    assert row.isa == "portable"
    # Of 100 pixels a corner tap meets 81, an edge tap 90, the centre all.
    work = 2 * (4 * 81 + 4 * 90 + 100) * 32 * 64
    assert row.flops_dense == pytest.approx(work / row.packed_seconds, rel=1e-6)
    assert row.flops_dense == pytest.approx(8 * row.flops_done, rel=0.05)
    assert row.ratio_p10 <= row.ratio <= row.ratio_p90
    # Input, output, and at least the surviving weights.
    assert row.bytes_moved > 4 * (100 * 32 + 100 * 64 + weights / 8)
    assert 1 < row.payload_overhead < 1.2
    assert row.error <= harness.LAYER_TOLERANCE
    json.dumps(row.to_dict())


@pytest.mark.parametrize("structure", ["block4x1", "unstructured", "pattern1"])
def test_other_structures_are_measured(structure):
    assert measure_layer(LAYER, structure, 4, **QUICK).packed_seconds > 0


def test_sweep_is_a_product_and_reports_what_it_skips(tmp_path):
    path = tmp_path / "shapes.txt"
    path.write_text("a conv 6x6 16->16 k3x3\nb fc 32->32\nc fc 8->8\n")
    skipped = []
    sweep = Sweep(
        str(path),
        ("block16x1", "pattern16"),
        (4, 8),
        isas=("portable",),
        only=("a", "b"),
    )
    rows = list(run_sweeps([sweep], skipped=skipped.append, **QUICK))
    assert [(row.layer, row.structure, row.rate) for row in rows] == [
        ("a", "block16x1", 4),
        ("a", "block16x1", 8),
        ("a", "pattern16", 4),
        ("a", "pattern16", 8),
        ("b", "block16x1", 4),
        ("b", "block16x1", 8),
    ]
    # Patterns need a 3x3 kernel.
    assert len(skipped) == 2 and all(reason.startswith("b ") for reason in skipped)


def test_sweep_refuses_a_layer_its_list_does_not_have():
    with pytest.raises(ValueError, match="no_such_layer"):
        Sweep("gemv", only=("no_such_layer",)).layers()


def test_every_sweep_of_the_default_plan_has_layers():
    assert all(sweep.layers() for sweep in DEFAULT_PLAN)


def test_a_wrong_result_is_never_timed(tmp_path, monkeypatch):
    packed, dense = write_pair(tmp_path, scale=1.01)
    monkeypatch.setattr(
        "tfrewprune.benchmark.compare.interleave",
        lambda *_, **__: pytest.fail("timed a wrong result"),
    )
    with pytest.raises(WrongResultError, match="not timed"):
        compare_models(packed, dense, with_cost=False)


def test_comparison_of_two_files(tmp_path):
    packed, dense = write_pair(tmp_path)
    result = compare_models(packed, dense, min_seconds=0.05, isa="portable")
    assert (result.claimed_nodes, result.isa, result.threads) == (1, "portable", 1)
    assert result.dense_bytes == dense.stat().st_size
    assert result.packed_bytes == packed.stat().st_size < result.dense_bytes
    assert result.error < 1e-5
    assert result.packed_cost.load_seconds > 0
    json.dumps(result.to_dict())


def test_comparison_names_a_missing_file(tmp_path):
    packed, dense = write_pair(tmp_path)
    with pytest.raises(ValueError, match=r"`dense`.*gone.tflite"):
        compare_models(packed, tmp_path / "gone.tflite")


def test_inputs_are_refused_by_number(tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    _, dense = write_pair(tmp_path)
    interpreter = Interpreter(model_path=str(dense))
    with pytest.raises(ValueError, match="1 inputs. Received: 0"):
        run_once(interpreter, [])
    same, other = random_inputs(interpreter, 1), random_inputs(interpreter, 2)
    assert (same[0] == random_inputs(interpreter, 1)[0]).all()
    assert (same[0] != other[0]).any()


def test_integers_are_indices_of_every_table():
    detail = {"name": "word", "dtype": np.int32}
    detail |= {"shape": [1, 64], "shape_signature": [1, 64]}
    interpreter = SimpleNamespace(get_input_details=lambda: [detail])
    (words,) = random_inputs(interpreter)
    assert words.dtype == np.int32 and set(words.ravel()) == {0, 1}


def open_pair(folder, shape, signature):
    """Models whose open sizes are not what the file stores."""
    graph = Graph()
    x = graph.tensor("x", shape, signature=signature)
    y = conv(graph, x, block_sparse((16, 3, 3, 4)), np.zeros(16), padding="VALID")
    paths = folder / "open_packed.tflite", folder / "open_dense.tflite"
    paths[1].write_bytes(finish(graph, [x], [y]))
    tfrewprune.convert(paths[1], paths[0], minimum_gain=0)
    return paths


def test_open_height_and_width_are_asked_for(tmp_path):
    pair = open_pair(tmp_path, (1, 3, 3, 4), (-1, -1, -1, 4))
    with pytest.raises(ValueError, match="height and width of input 'x' are open"):
        compare_models(*pair, min_seconds=0.01)
    result = compare_models(*pair, min_seconds=0.01, size=(12, 10))
    assert result.shapes == ((1, 12, 10, 4),)
    assert result.packed_cost.load_seconds > 0
    assert result.frames is None
    # The gains of drivers are those at the same size.
    (gain,) = tuning_gains(pair[0], tune_ms=1, size=(12, 10))
    assert gain.predicted_seconds > 0


def test_an_open_time_is_frames_and_a_fixed_height_is_not(tmp_path):
    pair = open_pair(tmp_path, (1, 3, 8, 4), (1, -1, 8, 4))
    result = compare_models(*pair, min_seconds=0.01, frames=7, with_cost=False)
    assert result.shapes == ((1, 7, 8, 4),) and result.frames == 7
    with pytest.raises(ValueError, match="a size is for open height and width"):
        compare_models(*pair, min_seconds=0.01, size=(12, 10))
    pair = open_pair(tmp_path, (1, 8, 8, 4), None)
    result = compare_models(*pair, min_seconds=0.01, with_cost=False)
    assert result.frames is None


@pytest.mark.parametrize("form", ["packed", "dense"])
def test_each_layer_of_a_model_is_timed(tmp_path, form):
    packed, dense = write_pair(tmp_path)
    path = packed if form == "packed" else dense
    (layer,) = time_layers(path.read_bytes(), min_seconds=0.02)
    assert layer.packed_in_model == (form == "packed")
    assert layer.shape == (64, 3, 3, 32)
    assert layer.ratio.median > 0


def test_machine_limits_are_plausible():
    machine = measure_machine("portable", 1, 0.01)
    if machine.peak is None:
        pytest.skip("no C compiler")
    assert 1e8 < machine.peak < 1e13
    assert len(machine.read) == len(machine.write) == len(WORKING_SETS)
    # A set that fits the first cache is read no slower than one that fits none.
    assert machine.read[0] > 0.8 * machine.read[-1]
    with pytest.raises(ValueError, match="isa"):
        measure_machine("sse9", 1, 0.01)


@pytest.mark.parametrize("threads", [1, 2])
def test_filling_a_larger_buffer_takes_longer(threads):
    small, large = (
        fill_seconds("portable", size, threads, 0.005) for size in (2**16, 2**24)
    )
    if small is None:
        pytest.skip("no C compiler")
    assert 0 < small < large
    with pytest.raises(ValueError, match="isa"):
        fill_seconds("sse9", 2**16)


def test_least_time_is_bytes_over_bandwidth():
    sizes = len(WORKING_SETS)
    machine = Machine("cpu", "avx2", 1, 1e9, (2e9,) * sizes, (1e9,) * sizes)
    assert machine.least_seconds(2_000_000, 1_000_000) == pytest.approx(2e-3)
    unknown = Machine("cpu", "avx2", 1, None, None, None)
    assert unknown.least_seconds(1, 1) is None


def test_plot_needs_two_rates(tmp_path):
    rows = [measure_layer(LAYER, rate=rate, **QUICK) for rate in (4, 8)]
    plot_speed_up(rows, tmp_path / "plot.svg")
    assert b"<svg" in (tmp_path / "plot.svg").read_bytes()
    with pytest.raises(ValueError, match="two rates"):
        plot_speed_up(rows[:1], tmp_path / "other.svg")
    assert not (tmp_path / "other.svg").exists()


def test_command_writes_json_lines(tmp_path):
    path = tmp_path / "shapes.txt"
    path.write_text("a conv 6x6 16->16 k3x3\n")
    words = ["--shapes", str(path), "--seconds", "0.02", "--rates", "4", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "tfrewprune.benchmark", *words, "--output", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "benchmark.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["kind"] for record in records] == [
        "environment",
        "layer",
        "layer",
        "machine",
    ]
    assert (tmp_path / "speed_up.svg").exists()
