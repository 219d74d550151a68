# SPDX-License-Identifier: Apache-2.0
"""Converted models in the real LiteRT for ARM, beside the same models on this CPU."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import dense_models as dense
import numpy as np
import pytest

import tfrewprune as trp

RUNNER = Path(__file__).with_name("run_models.py")


def _models(rng: np.random.Generator) -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Dense models and input shapes: every kind of payload and kernel, small."""
    bias = rng.standard_normal(32).astype(np.float32)
    single = dense.block_sparse((32, 3, 3, 16), keep=0.15, rows=1, seed=3)
    return {
        "conv3x3": (
            dense.conv_model(dense.block_sparse((32, 3, 3, 16)), (1, 14, 14, 16), bias),
            (1, 14, 14, 16),
        ),
        "stride2": (
            dense.conv_model(
                dense.block_sparse((32, 3, 3, 8)), (1, 15, 13, 8), bias, stride=(2, 2)
            ),
            (1, 15, 13, 8),
        ),
        "pointwise": (
            dense.conv_model(dense.block_sparse((32, 1, 1, 64)), (1, 9, 9, 64), bias),
            (1, 9, 9, 64),
        ),
        "narrow_blocks": (
            dense.conv_model(
                dense.block_sparse((32, 3, 3, 16), rows=4), (1, 10, 10, 16), bias
            ),
            (1, 10, 10, 16),
        ),
        "single_weights": (
            dense.conv_model(single, (1, 12, 12, 16), bias),
            (1, 12, 12, 16),
        ),
        "fully_connected": (
            dense.fully_connected_model(
                dense.block_sparse((96, 256), seed=5), (2, 256)
            ),
            (2, 256),
        ),
        "one_vector": (
            dense.fully_connected_model(
                dense.block_sparse((96, 256), seed=6), (1, 256)
            ),
            (1, 256),
        ),
        "float16": (dense.half_model(), (1, 6, 6, 4)),
    }


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    """A folder of packed models with inputs and the outputs of this CPU."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(11)
    for name, (model, shape) in _models(rng).items():
        packed = bytes(trp.convert(model, minimum_gain=0))
        assert any(op.startswith("Tfrewprune") for op in dense.operators(packed)), name
        inputs = [rng.standard_normal(shape).astype(np.float32)]
        _keep(folder, name, packed, inputs)
    return folder


def _keep(folder: Path, name: str, packed: bytes, inputs: list[np.ndarray]) -> None:
    (folder / f"{name}.tflite").write_bytes(packed)
    np.savez(folder / f"{name}.inputs.npz", *inputs)
    np.savez(folder / f"{name}.expected.npz", *dense.run(packed, *inputs, packed=True))


FLOAT32 = 2e-5  # sums in another order
FLOAT16 = 2e-3
# What is packed in bands of 16 rows.
IN_HALVES = {"conv3x3", "stride2", "pointwise", "one_vector", "float16"}


def _differences(folder: Path) -> dict[str, float]:
    """ARM's outputs against those of this CPU, over the largest; takes them away."""
    found = {}
    for file in sorted(folder.glob("*.expected.npz")):
        outputs = file.with_name(file.name.replace("expected", "outputs"))
        with np.load(file) as expected, np.load(outputs) as ours:
            assert expected.files == ours.files
            found[file.name.removesuffix(".expected.npz")] = max(
                np.abs(ours[key] - expected[key]).max() / np.abs(expected[key]).max()
                for key in expected.files
            )
        outputs.unlink()
    return found


def _compare(folder: Path) -> None:
    for name, difference in _differences(folder).items():
        assert difference <= FLOAT32, name


def test_linux_library(arm_python, linux_library, cases):
    arm_python.run(RUNNER, cases, linux_library)
    _compare(cases)


def test_android_library(arm_python, android_library, cases):
    """The very file of the Android build; glibc stands in for bionic."""
    arm_python.run(RUNNER, cases, android_library)
    _compare(cases)


@pytest.mark.parametrize("system", ["linux", "android"])
def test_float16_arithmetic(arm_python, linux_library, android_library, system, cases):
    """Close to float32 where the CPU has it, and float32 everywhere else."""
    library = linux_library if system == "linux" else android_library
    arm_python.run(RUNNER, cases, library, "float16")
    has_it = "asimdhp" in arm_python.cpu.features
    for name, difference in _differences(cases).items():
        if has_it and name in IN_HALVES:
            assert FLOAT32 < difference <= FLOAT16, name
        else:
            assert difference <= FLOAT32, name


def test_android_library_of_x86_64(build, cases, tmp_path):
    """The emulator's and a Chromebook's; here the CPU can run it as it is."""
    for library in ("libc.so.6", "libm.so.6", "libdl.so.2"):
        name = library.removesuffix(Path(library).suffix)
        stand_in = f"-Wl,-soname,{name}", "-x", "c", "/dev/null"
        output = tmp_path / name
        command = ["cc", "-shared", "-nostdlib", "-Wl,--no-as-needed", *stand_in]
        command += ["-o", output, f"-l:{library}"]
        subprocess.run(command, check=True)
    subprocess.run(
        [
            sys.executable,
            RUNNER,
            cases,
            build / "android/x86_64/libtfrewprune_delegate.so",
        ],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        check=True,
    )
    _compare(cases)


@pytest.mark.parametrize("host", ["Interpreter", "CompiledModel"])
def test_wheel(arm_python, wheel, host, cases, tmp_path):
    """The package as an ARM user installs it, without TensorFlow and Keras."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    arm_python.run(RUNNER, cases, host, packages=tmp_path)
    _compare(cases)
