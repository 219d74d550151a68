# SPDX-License-Identifier: Apache-2.0
"""The sizes that the quantized LeNet-5 is judged by, and one run in little."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.experiments import datasets
from tfrewprune.experiments.lenet5 import WEIGHTS, lenet5
from tfrewprune.experiments.quantized import (
    ROWS,
    Quantized,
    QuantizedRow,
    indexed_bits,
    sizes,
)
from tfrewprune.experiments.runs import RunLog
from tfrewprune.levels import Binary, EqualInterval


def stored(places, gap_bits):
    """Entries of (gap, weight), written one by one."""
    entries, at = 0, -1
    for place in places:
        while place - at - 1 > 2**gap_bits - 1:
            at += 2**gap_bits  # a filler weight stands there
            entries += 1
        entries, at = entries + 1, place
    return entries


@settings(max_examples=50, deadline=None)
@given(places=st.sets(st.integers(0, 2000), max_size=30), bits=st.integers(1, 8))
def test_bits_with_an_index_are_those_of_the_entries(places, bits):
    kernel = np.zeros(2001)
    kernel[sorted(places)] = 1
    expected = min(stored(sorted(places), k) * (bits + k) for k in range(1, 17))
    assert indexed_bits(kernel, bits) == expected


def test_a_binary_network_is_32_times_smaller():
    model = lenet5()
    ratio = sizes(model, Binary())
    assert ratio["payload_bits"] == WEIGHTS and ratio["size_ratio"] == 32
    assert 31.9 < ratio["size_ratio_with_index"] < 32
    kernel = np.zeros((5, 5, 1, 20), np.float32)
    kernel[0] = 1
    model.get_layer("conv1").kernel.assign(kernel)
    kept = WEIGHTS - 400
    assert sizes(model, EqualInterval(3))["payload_bits"] == 3 * kept
    assert sizes(model, Binary())["payload_bits"] == 2 * kept


def test_names():
    assert QuantizedRow(3, "admm", 180).name == "3-bit_admm_180x"
    assert QuantizedRow("binary", "straight-through").name == "binary_straight-through"
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_row_prunes_once_and_ends_on_levels(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    images = random.random((256, 28, 28, 1), np.float32)
    part = images, np.arange(256) % 10
    data = datasets.ImageData(*part, *part, *part)
    monkeypatch.setattr(Quantized, "load_data", lambda self: data)
    row = QuantizedRow(3, "rounds", 180)
    log = RunLog(tmp_path / "log.jsonl")
    plan = dataclasses.replace(Quantized.quick_plan, dense_epochs=1)
    experiment = Quantized(log, tmp_path, plan)
    experiment.run("train", row.name, 0, data)
    (record,) = log.records()
    assert record["size_ratio"] == 32 * WEIGHTS / record["payload_bits"]
    assert record["payload_bits"] == 3 * record["kept"]
    assert record["size_ratio_with_index"] < record["size_ratio"]
    assert [layer["bits"] for layer in record["levels"] if not layer["reason"]] == (
        [3] * 4
    )
    pruned = tmp_path / "gradual-fisher_single-weights_180x-seed0.keras"
    made = pruned.stat().st_mtime_ns
    experiment.run("train", row.name, 0, data)
    assert pruned.stat().st_mtime_ns == made and len(log.records()) == 1


def test_goals(tmp_path):
    class Log:
        def records(self):
            row = {"stage": "train", "seed": 0}
            return [
                {**row, "method": "3-bit_rounds_180x", "size_ratio": 2000.0},
                {**row, "method": "4-bit_rounds_240x", "size_ratio": 1900.0},
            ]

    experiment = Quantized(Log(), tmp_path, Quantized.full_plan)
    accurate, fair = {"test_accuracy": 0.9921}, {"test_accuracy": 0.9899}

    def reached(summary):
        return [done for _, done in experiment.goals(summary)]

    assert reached({"binary_admm": accurate}) == [True]
    assert reached({"binary_admm": fair, "3-bit_rounds_180x": accurate}) == [
        *(False, True)
    ]
    assert reached({"3-bit_rounds_180x": fair, "4-bit_rounds_240x": accurate}) == [
        False
    ]
