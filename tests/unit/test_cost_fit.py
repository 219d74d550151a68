# SPDX-License-Identifier: Apache-2.0
"""The fit gets back the coefficients that made its data."""

import json

import numpy as np
import pytest

from tfrewprune.benchmark import cost_fit
from tfrewprune.payload.cost import (
    CostModel,
    DenseCost,
    IrregularCost,
    LayerShape,
    PackedCost,
)

pytest.importorskip("scipy")


def packed_cost(scale: float) -> PackedCost:
    heights = (4, 8, 16, 32)
    return PackedCost(
        band={r: scale * 1e-4 * r for r in heights},
        column={r: scale * 1e-5 * r for r in heights},
        channel={r: scale * 1e-4 for r in heights},
        scatter=scale * 5e-3,
        uncached_byte=2e-5,
    )


MODEL = CostModel(
    call=0.5,
    cache_bytes=cost_fit.CACHE_BYTES,
    dense_cost=DenseCost(weight=2e-5, mac=8e-6, channel=1e-4, uncached_byte=1e-5),
    many=packed_cost(1.0),
    single=packed_cost(3.0),
    irregular_cost=IrregularCost(
        weight=2e-4,
        segment=7e-4,
        channel=2e-3,
        single_weight=3e-4,
        single_segment=2e-3,
        uncached_byte=2e-5,
    ),
)


def samples() -> list[cost_fit.Sample]:
    """Layers of many sizes, with the times that MODEL gives them."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(240):
        taps, pixels = (9, int(generator.integers(50, 3000))) if number % 2 else (1, 1)
        rows, channels = 16 * generator.integers(2, 100, 2)
        shape = LayerShape(int(rows), int(channels) * taps, pixels, taps)
        weights = shape.rows * shape.columns
        kept = int(weights * generator.uniform(0.05, 0.5))
        band_rows = (0, 4, 8, 16, 32)[number // 2 % 5]
        if band_rows:
            bands, columns = -(-shape.rows // band_rows), kept // band_rows
            scattered = int(generator.integers(0, bands + 1))
            time = MODEL.packed(shape, band_rows, bands, columns, scattered)
        else:
            bands, columns, scattered = shape.rows, kept, 0
            time = MODEL.irregular(shape, columns, bands)
        found.append(
            cost_fit.Sample(
                "some",
                *(shape.rows, shape.columns, shape.pixels, shape.taps),
                band_rows=band_rows,
                bands=bands,
                kept=columns,
                scattered=scattered,
                dense=MODEL.dense(shape),
                packed=time,
            )
        )
    return found


def test_fit_recovers_the_model_that_made_the_data() -> None:
    fields = cost_fit.fit(samples())
    assert fields["call"] == pytest.approx(MODEL.call, rel=0.2)
    assert fields["dense"]["mac"] == pytest.approx(MODEL.dense_cost.mac, rel=0.05)
    for name in ("many", "single"):
        expected = getattr(MODEL, name)
        for rows, cost in expected.column.items():
            assert fields[name]["column"][str(rows)] == pytest.approx(cost, rel=0.05)
        assert fields[name]["scatter"] == pytest.approx(expected.scatter, rel=0.05)
    weight = fields["irregular"]["weight"]
    assert weight == pytest.approx(MODEL.irregular_cost.weight, rel=0.05)
    for low, middle, high in fields["predicted_over_measured_p5_p50_p95"].values():
        assert 0.9 < low <= middle <= high < 1.1


def test_measured_layer_describes_what_was_packed() -> None:
    layer = cost_fit.parse_layers("small conv 8x8 16->32 k3x3")[0]

    def measure(*how) -> cost_fit.Sample:
        return cost_fit.measure(cost_fit.Case(layer, *how), "some")

    banded = measure(16, 0.25)
    assert (banded.target, banded.case) == ("some", "small R16 0.25")
    assert (banded.rows, banded.columns, banded.pixels, banded.taps) == (32, 144, 64, 9)
    assert (banded.bands, banded.kept, banded.scattered) == (2, 72, 0)
    shuffled = measure(16, 0.25, True)
    assert (shuffled.kept, shuffled.scattered) == (72, 2)
    irregular = measure(0, 0.25)
    assert (irregular.band_rows, irregular.kept) == (0, 32 * 144 // 4)
    assert min(banded.dense, banded.packed, shuffled.packed, irregular.packed) > 0


def test_the_file_is_what_its_data_give() -> None:
    """And no target is fitted from another one's samples."""
    samples = cost_fit.read_samples()
    assert {sample.target for sample in samples} == set(cost_fit.MEASURED)
    keys = [(s.target, s.case) for s in samples if s.case]
    assert len(keys) == len(set(keys)), "nothing was measured twice"
    assert cost_fit.fit_all(samples) == json.loads(cost_fit.COEFFICIENTS.read_text())
