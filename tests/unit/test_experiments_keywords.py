# SPDX-License-Identifier: Apache-2.0
"""Keywords in a stream: sound, labels, front end, spotter."""

import numpy as np
import pytest

from tfrewprune.experiments import digits, keywords
from tfrewprune.experiments.keywords import HOP, RATE, WINDOW, Spoken, Spotter


def beeps(count=6):
    random = np.random.default_rng(0)
    lengths = random.integers(RATE // 5, RATE // 2, count)
    times = [np.arange(n) / RATE for n in lengths]
    return [(1000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16) for t in times]


def test_recordings_are_found_where_the_spans_say():
    recordings, words = beeps(), [1, 2, 3, 1, 2, 3]
    spoken = keywords.string_together(recordings, words, seed=4)
    assert sorted(spoken.words) == sorted(words)
    lengths = sorted(int(end - start) for start, end in spoken.spans)
    assert lengths == sorted(map(len, recordings))
    assert np.abs(spoken.audio).max() <= 1
    outside = np.ones(len(spoken.audio), bool)
    for start, end in spoken.spans:
        outside[start:end] = False
        assert np.abs(spoken.audio[start:end]).max() > 0.15
    assert np.abs(spoken.audio[outside]).max() < 0.02  # noise alone
    again = keywords.string_together(recordings, words, seed=4)
    np.testing.assert_array_equal(again.audio, spoken.audio)


def test_a_keyword_is_to_be_told_from_its_middle_until_shortly_after_it():
    spans = np.array([[10 * HOP, 30 * HOP], [60 * HOP, 70 * HOP]])
    spoken = Spoken(np.zeros(100 * HOP, np.float32), np.array([2, 1]), spans)
    labels, weights = spoken.labels()
    assert len(labels) == len(weights) == spoken.frames
    assert set(np.flatnonzero(labels == 2)) == set(range(20, 40))
    assert set(np.flatnonzero(labels == 1)) == set(range(65, 80))
    counted = set(range(spoken.frames)) - set(range(10, 20)) - set(range(60, 65))
    assert set(np.flatnonzero(weights)) == counted


def test_the_front_end_computes_mel_bands_of_the_power_spectrum():
    fourier, bands = keywords.front_end_matrices()
    sound = np.random.default_rng(1).standard_normal(WINDOW)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(WINDOW))) ** 2
    bins = len(spectrum)
    energy = np.square(sound @ fourier) @ bands
    np.testing.assert_allclose(energy, spectrum @ bands[:bins], rtol=1e-4)
    # A tone is strongest in the band it lies in: bands are in the order of pitch.
    times = np.arange(WINDOW) / RATE
    strongest = [
        int((np.square(np.sin(2 * np.pi * hertz * times) @ fourier) @ bands).argmax())
        for hertz in (200, 500, 1000, 2000, 3500)
    ]
    assert strongest == sorted(set(strongest))


class Scripted:
    """A streamer whose scores are given, frame by frame."""

    def __init__(self, likely):
        self.scores = np.log(np.asarray(likely, np.float32) + 1e-6)
        self.pushed = []

    def push(self, frames):
        begin = sum(map(len, self.pushed))
        self.pushed.append(frames)
        return self.scores[begin : begin + len(frames)]


def script(*spells):
    """Probabilities of three classes: (class, how likely, frames)."""
    rows = []
    for word, likely, frames in spells:
        row = np.full(3, (1 - likely) / 2)
        row[word] = likely
        rows += [row] * frames
    return rows


@pytest.mark.parametrize("chunk", [37, 160, 800, 10_000])
def test_a_spotter_gets_the_same_frames_in_pieces_of_any_length(chunk):
    rows = script((0, 0.9, 20), (1, 0.95, 12), (0, 0.9, 20), (2, 0.95, 12))
    audio = np.random.default_rng(2).standard_normal(HOP * (len(rows) - 1) + WINDOW)
    streamer = Scripted(rows)
    spotter = Spotter(streamer, smooth=4, level=0.6)
    events = []
    for begin in range(0, len(audio), chunk):
        events += spotter.push(audio[begin : begin + chunk])
    frames = np.concatenate(streamer.pushed)
    expected = keywords.frames_of(audio, 0, len(rows))
    np.testing.assert_allclose(frames, expected, rtol=1e-6)
    assert [word for _, word in events] == [1, 2]
    assert 20 <= events[0][0] < 24 and 52 <= events[1][0] < 56


def test_a_spotter_tells_a_keyword_once_until_it_is_over():
    wavering = script((1, 0.9, 9), (1, 0.55, 5), (1, 0.9, 9), (0, 0.95, 9), (1, 0.9, 9))
    spotter = Spotter(Scripted(wavering), smooth=4, level=0.6)
    events = spotter.push(np.zeros(HOP * (len(wavering) - 1) + WINDOW, np.float32))
    assert [word for _, word in events] == [1, 1]
    assert events[1][0] >= 32


def test_accuracy_wants_each_keyword_once_and_no_other():
    spans = HOP * np.array([[10, 20], [40, 50], [70, 80], [100, 110]])
    spoken = Spoken(np.zeros(1), np.array([3, 1, 4, 1]), spans)
    right = [(18, 3), (55, 1), (75, 4), (105, 1)]
    assert keywords.accuracy(right, spoken) == 1.0
    assert keywords.accuracy([], spoken) == 0.0
    assert keywords.accuracy([*right[:2], (78, 2), *right[3:]], spoken) == 0.75
    assert keywords.accuracy([*right[:3], (90, 4), right[3]], spoken) == 0.75  # twice
    assert keywords.accuracy([(3, 2), *right], spoken) == 0.75  # before anything


def test_recordings_of_the_parts_are_different_takes(tmp_path):
    takes = np.tile(np.arange(12), 5)
    # Recordings that tell their take by their length.
    sounds = [np.full(400 + take, 100, np.int16) for take in takes]
    np.savez(
        tmp_path / "fsdd.npz",
        audio=np.concatenate(sounds),
        offsets=np.concatenate([[0], np.cumsum([len(s) for s in sounds])]),
        label=np.arange(60) % 10,
        take=takes,
    )
    data = digits.fsdd(tmp_path / "fsdd.npz")
    parts = {
        name: {int(end - start) - 400 for start, end in getattr(data, name).spans}
        for name in ("train", "validation", "test")
    }
    assert parts == {
        "train": {10, 11},
        "validation": {5, 6, 7, 8, 9},
        "test": {0, 1, 2, 3, 4},
    }
    assert len(data.test.words) == 25
    assert len(digits.fsdd(tmp_path / "fsdd.npz", 4, 3).train.words) == 4
