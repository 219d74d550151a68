# SPDX-License-Identifier: Apache-2.0
"""What works, and what is said, where TensorFlow or the extras are not installed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfrewprune.benchmark.layers import Layer, build_model
from tfrewprune.benchmark.weights import pruned_weights

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("tensorflow", "keras", "jax", "torch")
EXTRAS = ("sklearn", "scipy", "matplotlib", "jinja2")
# Child processes of a command start with it too.
WITHOUT = """\
import sys
from importlib.machinery import PathFinder

class Blind(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] not in {blocked!r}:
            return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Blind
"""


@pytest.fixture
def without(tmp_path):
    """Runs the command line where some packages cannot be imported."""

    def run(blocked: tuple[str, ...], *words) -> subprocess.CompletedProcess:
        code = WITHOUT.format(blocked=blocked)
        (tmp_path / "sitecustomize.py").write_text(code)
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-m", "tfrewprune", *map(str, words)],
            env={**os.environ, "PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def dense(tmp_path):
    layer = Layer("layer", 14, 14, 64, 64, kernel=(3, 3))
    path = tmp_path / "dense.tflite"
    weights = pruned_weights(layer, "block16x1", 16)
    path.write_bytes(build_model(layer, weights, np.zeros(64, np.float32)))
    return path


def test_tflite_commands_need_litert_and_numpy_only(without, dense, tmp_path):
    packed, back = tmp_path / "packed.tflite", tmp_path / "back.tflite"
    for words in (
        ("convert", dense, packed),
        ("inspect", packed, "--measure"),
        ("bench", packed, "--seconds", "0.02"),
        ("unpack", packed, back),
        ("--help",),
    ):
        done = without(FRAMEWORKS + EXTRAS, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert packed.stat().st_size < back.stat().st_size


@pytest.mark.parametrize(
    "words", [("convert", "model.keras", "out.tflite"), ("plan", "model.keras")]
)
def test_keras_files_name_what_is_missing(words, without, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"whatever")
    done = without(FRAMEWORKS, *words)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"tfrewprune {words[0]}: error: needs Keras and TensorFlow: "
        "pip install keras tensorflow"
    ]


@pytest.mark.parametrize("blocked", [EXTRAS, ("jinja2",)], ids=str)
def test_demo_names_the_extra_before_it_trains(blocked, without, tmp_path):
    done = without(blocked, "demo", "--output", tmp_path / "demo-output")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "pip install" in done.stderr
    assert "tfrewprune[report]" in done.stderr and "Jinja2" in done.stderr
    assert not (tmp_path / "demo-output").exists()
