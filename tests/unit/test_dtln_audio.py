# SPDX-License-Identifier: Apache-2.0
"""Frames of sound there and back, and the measures of what a mask does to it."""

import numpy as np
import pytest

from tfrewprune.experiments import dtln_audio


def test_frames_joined_again_are_the_samples():
    samples = np.random.default_rng(0).standard_normal((2, 4000))
    spectra = dtln_audio.spectra(samples)
    assert spectra.shape == (2, 1 + (4000 - 512) // 128, 257)
    joined = dtln_audio.joined(spectra)
    inside = slice(512 - 128, joined.shape[1] - 512)  # where four frames overlap
    np.testing.assert_allclose(joined[:, inside], samples[:, inside])


def test_ratios_in_decibels():
    random = np.random.default_rng(1)
    clean = random.standard_normal((3, 20_000))
    noise = random.standard_normal((3, 20_000))
    given = dtln_audio.signal_to_noise(clean, clean + 0.1 * noise)
    assert given == pytest.approx(20, abs=0.2)
    # Loudness does not count in the other one.
    for factor in (1.0, 3.0):
        ratio = dtln_audio.distortion_ratio(clean, factor * (clean + 0.1 * noise))
        assert ratio == pytest.approx(20, abs=0.3)


@pytest.mark.parametrize("part", ["train", "test"])
def test_mixtures_are_repeatable_and_of_the_levels_asked_for(part, tmp_path):
    random = np.random.default_rng(2)
    lengths = random.integers(1000, 3000, 20)
    np.savez(
        tmp_path / "fsdd.npz",
        audio=random.integers(-20_000, 20_000, lengths.sum()).astype(np.int16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        take=np.arange(20) % 10,
    )
    made = [dtln_audio.mixtures(part, 4, 0.5, tmp_path / "fsdd.npz") for _ in range(2)]
    np.testing.assert_array_equal(made[0][0], made[1][0])
    noisy, clean = made[0]
    assert noisy.shape == clean.shape == (4, 8000) and np.abs(noisy).max() <= 1
    for a, b in zip(noisy, clean, strict=True):
        level = dtln_audio.signal_to_noise(b, a)
        assert min(abs(level - wanted) for wanted in dtln_audio.LEVELS) < 0.1
