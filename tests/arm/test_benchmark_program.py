# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune_benchmark` as one runs it over adb, for ARM and for this CPU."""

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import dense_models as dense
import numpy as np
import pytest
from conftest import CPUS, ArmPython

import tfrewprune as trp

FIGURES = {"model", "median_ms", "p10_ms", "p90_ms", "load_ms", "first_ms"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """A packed model and its dense form."""
    folder = tmp_path_factory.mktemp("benchmark")
    bias = np.ones(32, np.float32)
    weights = dense.block_sparse((32, 3, 3, 16), keep=0.125)
    model = dense.conv_model(weights, (1, 10, 10, 16), bias)
    packed, original = folder / "packed.tflite", folder / "dense.tflite"
    trp.convert(model, packed, minimum_gain=0)
    trp.unpack(packed, original)
    return packed, original


@pytest.fixture(params=["x86_64", "aarch64"])
def benchmark(request, build):
    """Runs the program of one machine with these arguments."""
    if request.param == "aarch64":
        python = ArmPython(build / "arm-root", CPUS["cortex-a76"])
        litert = python.root / "site/ai_edge_litert/libLiteRt.so"
        return lambda *arguments: python.run_program(
            build / "arm/tfrewprune_benchmark", f"--litert={litert}", *arguments
        )
    package = Path(importlib.util.find_spec("ai_edge_litert").origin).parent
    return lambda *arguments: subprocess.run(
        [
            build / "native/tfrewprune_benchmark",
            f"--litert={package / 'libLiteRt.so'}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("TFREWPRUNE")},
    )


def test_both_models_are_timed_after_a_check(benchmark, models, tmp_path):
    cache = tmp_path / "tuned.txt"
    completed = benchmark(
        *(*models, "--json", "--tune", f"--cache={cache}"),
        *("--threads=2", "--seconds=0.1"),
    )
    assert completed.returncode == 0, completed.stderr
    found = json.loads(completed.stdout)
    assert found["threads"] == 2 and found["tuned"] and found["rounds"] >= 3
    assert 0 <= found["difference"] < 1e-5
    for side in ("packed", "dense"):
        assert set(found[side]) == FIGURES
        low, middle, high = (found[side][f"{n}_ms"] for n in ("p10", "median", "p90"))
        assert 0 < low <= middle <= high
    ratio = found["dense"]["median_ms"] / found["packed"]["median_ms"]
    assert found["ratio"] == pytest.approx(ratio, rel=1e-2)
    # ARM has one driver for this layer, so nothing to measure and remember.
    assert found["isa"] == "neon" or cache.read_text()


def test_float16_arithmetic(benchmark, models):
    completed = benchmark(*models, "--json", "--fp16", "--seconds=0")
    assert completed.returncode == 0, completed.stderr
    found = json.loads(completed.stdout)
    assert found["float16"] == (found["isa"] == "neon")
    if found["float16"]:
        assert 1e-5 < found["difference"] < 1e-2
    else:
        assert found["difference"] < 1e-5


def test_a_packed_model_alone(benchmark, models):
    completed = benchmark(models[0], "--seconds=0", "--isa=portable")
    assert completed.returncode == 0, completed.stderr
    assert "portable kernels" in completed.stdout
    assert "packed" in completed.stdout and "dense" not in completed.stdout


def test_models_that_differ_are_not_timed(benchmark, models, tmp_path):
    other = tmp_path / "other.tflite"
    bias = np.arange(32, dtype=np.float32)
    weights = dense.block_sparse((32, 3, 3, 16), keep=0.125)
    other.write_bytes(dense.conv_model(weights, (1, 10, 10, 16), bias))
    completed = benchmark(models[0], other)
    assert completed.returncode == 1 and not completed.stdout
    assert "outputs differ by" in completed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads=0"], "--threads must be a number from 1 to 64. Received: 0"),
        (["--seconds=x"], "--seconds must be a number"),
        (["--fast"], "unknown option --fast"),
        (["--cache=x"], "--cache needs --tune"),
        (["--isa=mmx"], "Received: 'mmx'"),
    ],
)
def test_wrong_arguments_are_told(benchmark, models, arguments, message):
    completed = benchmark(models[0], *arguments)
    assert completed.returncode == 2
    assert message in completed.stderr


def test_what_is_missing_is_told(benchmark, models, tmp_path):
    completed = benchmark(tmp_path / "none.tflite")
    assert completed.returncode == 1 and "none.tflite" in completed.stderr
    completed = benchmark(models[0], "--litert=/none/libLiteRt.so")
    assert completed.returncode == 1
    assert "LiteRT's library is needed" in completed.stderr
    completed = benchmark("--help")
    assert completed.returncode == 0 and "--threads" in completed.stdout
