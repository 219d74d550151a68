# SPDX-License-Identifier: Apache-2.0
"""The static library, installed, in an interpreter that a C++ program builds."""

import importlib.util
import os
import subprocess
from pathlib import Path

import dense_models as dense
import numpy as np
import pytest

import tfrewprune as trp

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run_packed(native_build, tmp_path_factory) -> Path:
    """The example, built against the installed package."""
    build = tmp_path_factory.mktemp("build")
    tensorflow = Path(importlib.util.find_spec("tensorflow").origin).parent
    for command in (
        [
            *("cmake", "-S", HERE, "-B", build, "-DCMAKE_BUILD_TYPE=Release"),
            f"-DCMAKE_PREFIX_PATH={native_build / 'install'}",
            f"-DTENSORFLOW_FOLDER={tensorflow}",
        ],
        ["cmake", "--build", build],
    ):
        completed = subprocess.run(command, capture_output=True, text=True)
        assert completed.returncode == 0, completed.stdout + completed.stderr
    return build / "registered_ops/run_packed"


def _run(program: Path, model: Path, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [program, model],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )


def _convolution() -> tuple[bytes, tuple[int, ...]]:
    bias = np.linspace(-1, 1, 32, dtype=np.float32)
    weights = dense.block_sparse((32, 3, 3, 16))
    return dense.conv_model(weights, (1, 9, 9, 16), bias), (1, 9, 9, 16)


def _fully_connected() -> tuple[bytes, tuple[int, ...]]:
    return dense.fully_connected_model(dense.block_sparse((48, 64)), (2, 64)), (2, 64)


@pytest.mark.parametrize("build_model", [_convolution, _fully_connected])
def test_runs_a_packed_model(run_packed, tmp_path, build_model):
    model, shape = build_model()
    packed = bytes(trp.convert(model, minimum_gain=0))
    assert [op.split()[0] for op in dense.operators(packed)] in (
        ["TfrewpruneConv2D"],
        ["TfrewpruneFullyConnected"],
    )
    file = tmp_path / "packed.tflite"
    file.write_bytes(packed)
    completed = _run(run_packed, file)
    assert completed.returncode == 0, completed.stderr
    x = (np.arange(np.prod(shape)) % 100 / 100).astype(np.float32).reshape(shape)
    (expected,) = dense.run(model, x)
    found = np.array(completed.stdout.split(), np.float32)
    assert len(found) == 10
    np.testing.assert_allclose(
        found, expected.ravel()[:10], atol=1e-5 * np.abs(expected).max()
    )


def test_a_damaged_payload_is_refused_with_a_reason(run_packed, tmp_path):
    model, _ = _convolution()
    packed = bytearray(trp.convert(model, minimum_gain=0))
    packed[packed.find(b"TFRP")] ^= 1
    file = tmp_path / "packed.tflite"
    file.write_bytes(packed)
    completed = _run(run_packed, file)
    assert completed.returncode == 1
    assert "the payload is damaged" in completed.stderr
    assert "TfrewpruneConv2D (output 'y')" in completed.stderr


def test_an_option_of_the_environment_that_is_wrong_is_refused(run_packed, tmp_path):
    model, _ = _convolution()
    file = tmp_path / "packed.tflite"
    file.write_bytes(bytes(trp.convert(model, minimum_gain=0)))
    completed = _run(run_packed, file, TFREWPRUNE_ISA="mmx")
    assert completed.returncode == 1
    assert "TFREWPRUNE_ISA" in completed.stderr and "mmx" in completed.stderr
