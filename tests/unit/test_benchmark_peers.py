# SPDX-License-Identifier: Apache-2.0
"""Other engines beside ours: they run where installed and are named where not."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from tfrewprune.benchmark import peers
from tfrewprune.benchmark.peers import Peer, PeerError, measure_peers, peer_table


@pytest.fixture
def one_layer(monkeypatch):
    monkeypatch.setattr(peers, "LAYERS", ("conv3x3s2_7_512",))
    monkeypatch.setattr(peers, "STRUCTURES", ("block16x1",))
    monkeypatch.setattr(peers, "RATES", (16,))
    monkeypatch.setattr(peers, "_ROUNDS", 1)


@pytest.fixture
def bare_python(tmp_path) -> str:
    """An interpreter that has numpy and nothing else."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(np.__file__).parents[1].glob("numpy*"):
        (packages / entry.name).symlink_to(entry)
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -S "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def test_missing_engines_are_named_and_the_rest_is_measured(one_layer, bare_python):
    skipped = []
    (record,) = measure_peers(bare_python, skipped=skipped.append)
    assert (
        {"ours", "litert"} <= set(record["seconds"]) <= {"ours", "ours, AVX2", "litert"}
    )
    assert [reason.split(": ")[1] for reason in skipped] == list(peers.ENGINES)
    assert peer_table([record]).row_count == 1


def test_layers_structures_and_rates_can_be_chosen(one_layer, bare_python):
    layer = peers.Layer("small", 8, 8, 4, 16, (3, 3))
    chosen = {"layers": [layer], "structures": ["unstructured"], "rates": [2, 4]}
    records = list(measure_peers(bare_python, **chosen))
    assert [(r["layer"], r["structure"], r["rate"]) for r in records] == [
        ("small", "unstructured", 2),
        ("small", "unstructured", 4),
    ]


def test_installed_engine_computes_the_same_and_is_timed(one_layer):
    if not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        pytest.skip("ONNX Runtime is not installed")
    (record,) = measure_peers(sys.executable)
    assert record["seconds"]["onnxruntime"] > 0
    assert record["versions"]["onnxruntime"]


def test_a_child_that_dies_is_an_error(tmp_path):
    peer = Peer("onnxruntime", "/bin/true")
    with pytest.raises(PeerError, match="onnxruntime"):
        peer.load(tmp_path / "layer.npz", 1)
    peer.close()


def test_layers_are_saved_as_onnx_pads_them(tmp_path):
    # 8 wide, stride 2, kernel 3: TFLite pads nothing before and one column behind.
    layer = peers.Layer("l", 8, 9, 2, 4, (3, 3), 2)
    weights = np.arange(4 * 18, dtype=np.float32).reshape(4, 18)
    values = np.zeros((1, 8, 9, 2), np.float32)
    peers._save(tmp_path / "l.npz", layer, weights, np.zeros(4, np.float32), values)
    saved = np.load(tmp_path / "l.npz")
    assert saved["pads"].tolist() == [0, 1, 1, 1]
    assert saved["output_shape"].tolist() == [1, 4, 4, 5]
    assert saved["input"].shape == (1, 2, 8, 9)
    # Output 1, input channel 1, kernel position (0, 2): column 2 * 2 + 1 of row 1.
    assert saved["weights"][1, 1, 0, 2] == weights[1, 5]


def test_other_engines_are_told_which_filters_share_columns():
    assert peers.filters_of("block16x1") == 16
    assert peers.filters_of("unstructured") == peers.filters_of("pattern16") == 1
