# SPDX-License-Identifier: Apache-2.0
"""Costs of several kinds of processors, and which one this is."""

import numpy as np
import pytest
from dense_models import block_sparse, conv_model
from hypothesis import given
from hypothesis import strategies as st

import tfrewprune as trp
from tfrewprune.converter import ConversionError
from tfrewprune.payload.cost import LayerShape, cost_model, targets
from tfrewprune.payload.cost_targets import PORTABLE, TARGET_VARIABLE, this_target
from tfrewprune.payload.gain import predicted_gain

AVX512 = "fma f16c avx2 avx512f avx512vl avx512dq avx512bw"
PHONES = ("arm-big", "arm-small")

shapes = st.builds(
    lambda rows, channels, pixels, taps: LayerShape(
        rows, channels * taps, pixels, taps
    ),
    st.integers(1, 600),
    st.integers(1, 600),
    st.integers(1, 4000),
    st.sampled_from([1, 3, 9, 25]),
)


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "expected"),
    [
        (("AuthenticAMD", 25, AVX512), "x86_64", "x86-avx512-zen4"),
        (("AuthenticAMD", 26, AVX512), "x86_64", "x86-avx512-zen5"),
        (("AuthenticAMD", 25, "fma f16c avx2"), "x86_64", "x86-avx2"),
        (("GenuineIntel", 6, AVX512), "x86_64", "x86-avx512-intel"),
        (("GenuineIntel", 6, "avx2 avx512f"), "AMD64", "x86-avx2"),
        (None, "x86_64", "x86-avx2"),
        (None, "aarch64", "arm-big"),
        (None, "armv7l", "arm-big"),
    ],
)
def test_the_processor_is_recognised(cpuinfo, machine, expected):
    text = "nothing known"
    if cpuinfo:
        vendor, family, flags = cpuinfo
        core = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nflags\t\t: {flags}\n"
        text = f"processor\t: 0\n{core}\nprocessor\t: 1\n{core}"
    assert this_target(text, machine) == expected


def test_the_environment_names_another_one(monkeypatch):
    here = this_target()
    monkeypatch.setenv(TARGET_VARIABLE, "arm-small")
    assert cost_model() is cost_model("arm-small")
    monkeypatch.setenv(TARGET_VARIABLE, "abacus")
    with pytest.raises(ValueError, match="portable. Received: 'abacus'"):
        cost_model()
    monkeypatch.delenv(TARGET_VARIABLE)
    assert this_target() == here


@pytest.mark.parametrize("target", targets())
def test_every_target_says_that_pruning_pays(target):
    model = cost_model(target)
    conv, dense = LayerShape(128, 9 * 128, 28 * 28, 9), LayerShape(1024, 1024, 1)
    for shape in (conv, dense):
        gains = [predicted_gain(shape, rate, 16, model) for rate in (2, 4, 8, 16)]
        assert gains == sorted(gains)
        assert 3 < gains[2] < 25
        # Rows that agree are worth something everywhere.
        assert predicted_gain(shape, 8, 1, model) < gains[2]


@given(shapes, st.sampled_from([4, 8, 16, 32]), st.floats(0.01, 1))
def test_portable_holds_on_every_phone(shape, band_rows, kept):
    """What is worth packing for phones is worth it on each of their cores."""
    bands = -(-shape.rows // band_rows)
    counts = (band_rows, bands, round(kept * bands * shape.columns), 0)
    segments = (round(kept * shape.rows * shape.columns), shape.rows)
    portable = cost_model(PORTABLE)
    phones = [cost_model(name) for name in PHONES]
    for ways in (
        [m.packed(shape, *counts) / m.dense(shape) for m in (portable, *phones)],
        [m.irregular(shape, *segments) / m.dense(shape) for m in (portable, *phones)],
    ):
        assert ways[0] == pytest.approx(max(ways[1:]))


def test_small_cores_are_slower_than_big_ones():
    shape = LayerShape(256, 9 * 256, 196, 9)
    small, big = cost_model("arm-small"), cost_model("arm-big")
    assert small.dense(shape) > 2 * big.dense(shape)
    for core in (small, big):
        # A column of 16 rows is cheaper than four of 4.
        assert core.many.column[16] < 4 * core.many.column[4]


def test_convert_decides_for_the_target(monkeypatch):
    weights = block_sparse((64, 3, 3, 64), keep=1 / 8)
    model = conv_model(weights, (1, 14, 14, 64), np.zeros(64))
    times = {}
    for target in ("arm-small", PORTABLE, "x86-avx512-zen4"):
        report = trp.convert(model, target=target, verify=False).report
        assert len(report.packed) == 1
        times[target] = report.predicted_dense_ms
    assert times["arm-small"] > 5 * times["x86-avx512-zen4"]
    assert times[PORTABLE] == pytest.approx(
        cost_model("arm-big").dense(LayerShape(64, 576, 196, 9)) / 1000
    )


def test_an_unknown_target_is_refused():
    with pytest.raises(ConversionError, match="x86-avx2, .*received 'z80'"):
        trp.convert(b"", target="z80")
