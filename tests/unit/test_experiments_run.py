# SPDX-License-Identifier: Apache-2.0
"""A whole experiment in little: trained, pruned, converted, timed, resumed."""

import numpy as np
import pytest

from tfrewprune.experiments.lenet5 import BLOCK_RATES, LeNet5
from tfrewprune.experiments.runs import RunLog

pytestmark = pytest.mark.slow


@pytest.fixture
def stripes(tmp_path, monkeypatch):
    """Images of the shape of MNIST whose class is where a bright stripe lies."""
    random = np.random.default_rng(0)

    def draw(count):
        labels = random.integers(0, 10, count).astype(np.uint8)
        images = random.integers(0, 60, (count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6] = 255
        return images, labels

    x, y = draw(5000 + 2560)
    x_test, y_test = draw(500)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    monkeypatch.setenv("TFREWPRUNE_DATA", str(tmp_path))
    return tmp_path


def test_a_quick_run_trains_prunes_converts_and_resumes(stripes, capsys):
    try:
        import tfrewprune

        tfrewprune.delegate_path()
    except (OSError, RuntimeError) as reason:
        pytest.skip(f"no delegate library: {reason}")
    work = stripes / "work"
    arguments = ["--quick", "--work", str(work), "--methods", "dense"]
    LeNet5.main([*arguments, "--stages", "train"])
    start = (work / "start-seed0.keras").read_bytes()
    arguments.append("reweighted-block")
    LeNet5.main(arguments)
    assert "LeNet-5 on MNIST" in capsys.readouterr().out

    log = RunLog(work / "results.jsonl")
    found = {(run["method"], run["stage"]): run for run in log.records()}
    assert len(found) == len(log.records()) == 4
    assert (work / "start-seed0.keras").read_bytes() == start  # shared, not retrained

    dense, trained = found["dense", "train"], found["reweighted-block", "train"]
    assert dense["weights"] == trained["weights"] == 430_500
    assert dense["rate"] == pytest.approx(1, abs=1e-3)
    assert trained["recipe"]["method"]["method"] == "Reweighted"
    assert trained["kept_in_layer"]["fc1"] <= 400_000 / BLOCK_RATES["fc1"]
    assert trained["rate"] >= 30

    measured = found["reweighted-block", "measure"]
    assert measured["litert_accuracy"] == pytest.approx(
        measured["test_accuracy"], abs=0.004
    )
    assert measured["packed_layers"] >= 2
    assert measured["packed_bytes"] < measured["dense_bytes"] / 10
    assert measured["latency"][0]["threads"] == 1
    assert found["dense", "measure"]["test_accuracy"] > 0.5

    LeNet5.main(arguments)
    assert len(log.records()) == 4
