# SPDX-License-Identifier: Apache-2.0
"""The demo's data, and what it makes of its figures."""

import json

import numpy as np
import pytest

from tfrewprune.benchmark.compare import Comparison, Cost
from tfrewprune.benchmark.measure import Ratio, Timing
from tfrewprune.demo import DemoResult
from tfrewprune.demo.data import CLASSES, load_digits
from tfrewprune.demo.result import Accuracy
from tfrewprune.report import Curve, Layer, render_report


def test_parts_share_no_digit_and_lose_none():
    data = load_digits(seed=3)
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1077, 360, 360]
    seen = [{image.tobytes() for image in part.images} for part in parts]
    assert not seen[0] & seen[2] and not seen[1] & seen[2] and not seen[0] & seen[1]
    for part in parts:
        assert part.images.shape[1:] == (16, 16, 1)
        assert part.images.dtype == np.float32
        assert 0 <= part.images.min() and part.images.max() <= 1
        shares = np.bincount(part.labels, minlength=CLASSES) / len(part)
        assert np.all(np.abs(shares - 0.1) < 0.01)


def test_split_follows_the_seed():
    first, again, other = load_digits(0), load_digits(0), load_digits(1)
    assert (first.test.images == again.test.images).all()
    assert (first.test.images != other.test.images).any()


def test_enlarging_keeps_the_picture():
    from sklearn.datasets import load_digits as originals

    small = {image.sum() for image in originals().images}
    images = load_digits().train.images
    # Bilinear with aligned centres: the 2x2 mean stays near the original's.
    assert abs(4 * np.mean(list(small)) / 16 - images.sum((1, 2, 3)).mean()) < 3


@pytest.fixture
def result() -> DemoResult:
    mask = np.eye(4, 60, dtype=bool)
    return DemoResult(
        dense=Accuracy(0.99, 0.985, 0.985),
        pruned=Accuracy(0.985, 0.98, 0.9775),
        mac_rate=7.8,
        weight_rate=5.2,
        chosen_rate=8,
        tried={16: 0.95, 8: 0.985},
        comparison=Comparison(
            threads=1,
            isa="avx2",
            claimed_nodes=2,
            dense=Timing(1e-3, 0.9e-3, 1.1e-3, 100),
            packed=Timing(2e-4, 1.9e-4, 2.2e-4, 500),
            ratio=Ratio(5.0, 4.8, 5.1),
            rounds=30,
            error=1e-7,
            dense_bytes=2_000_000,
            packed_bytes=100_000,
            dense_cost=Cost(0.02, 8_000_000),
            packed_cost=None,
        ),
        layers=[
            Layer("conv1", "Conv2D", (3, 3, 1, 8), 72, 72),
            Layer("conv2", "Conv2D", (3, 3, 8, 64), 4608, 128, "Block(16, 1)", mask),
        ],
        accuracy_curves=[Curve("dense", [0.9, 0.99]), Curve("pruned", [0.8, 0.98])],
        sparsity_curve=Curve("sparsity", [0.9], start=1),
        phases=[("warm-up", 0, 1), ("reweighted", 1, 2)],
        test_examples=400,
        seconds=60.0,
        facts={"CPU": "some"},
    )


def test_table_tells_both_models_apart(result):
    heads, rows = result.rows()
    dense, pruned = (dict(zip(heads, row, strict=True)) for row in rows)
    assert dense["as run by LiteRT"] == "98.50%"
    assert pruned["as run by LiteRT"] == "97.75%"
    assert dense["weights"] == "4,680" and pruned["weights"] == "200"
    assert dense["file"] == "2,000 kB" and pruned["file"] == "100 kB"
    assert pruned["speed"] == "5.00x" and pruned["memory"] == "-"


def test_result_becomes_json_without_masks(result):
    document = json.loads(json.dumps(result.to_dict()))
    assert document["layers"][1]["groups"] == 240
    assert document["layers"][1]["groups_kept"] == 4
    assert document["comparison"]["ratio"]["median"] == 5.0
    assert document["tried"] == {"16": 0.95, "8": 0.985}


def test_report_admits_a_loss(result):
    page = render_report(result.report())
    assert "-0.8 points" in page or "-0.7 points" in page
    assert "16x: 95.00%, 8x: 98.50%" in page
    assert "400 test digits" in page
