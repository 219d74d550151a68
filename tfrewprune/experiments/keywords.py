# SPDX-License-Identifier: Apache-2.0
"""Keywords in a stream of sound: recordings strung together, a network, a spotter.

A frame is 32 ms of sound, every 20 ms a new one. The network takes the samples of each
frame as they are; its log-mel front end is two matrices inside it, so that the
converted file goes from sound to scores by itself. Class 0 is "no keyword".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

RATE = 8000
"""Samples a second."""

WINDOW, HOP = 256, 160
"""Samples of a frame, and from one frame to the next."""

BANDS = 40
AFTER = 10
"""Frames after the end of a keyword in which it is still to be told."""


@dataclasses.dataclass(frozen=True)
class Spoken:
    """Keywords strung together with pauses.

    Attributes:
        audio: float32 ``(samples,)`` in -1 to 1.
        words: Class of each keyword, from 1.
        spans: int ``(words, 2)``, first sample and end of each.
    """

    audio: np.ndarray
    words: np.ndarray
    spans: np.ndarray

    @property
    def frames(self) -> int:
        """Whole frames in the audio."""
        return (len(self.audio) - WINDOW) // HOP + 1

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the class each frame should have, and what each counts.

        A keyword is to be told from the middle of it until 10 frames after it; its
        first half does not count, since nobody could know.
        """
        labels, weights = np.zeros(self.frames, np.int64), np.ones(self.frames, "f4")
        for word, (start, end) in zip(self.words, self.spans // HOP, strict=True):
            middle = (start + end) // 2
            weights[start:middle] = 0
            labels[middle : end + AFTER] = word
        return labels, weights


def string_together(
    recordings: Sequence[np.ndarray], words: Sequence[int], seed: int
) -> Spoken:
    """Strings recordings together in random order, with pauses, loudness and noise.

    Args:
        recordings: Each ``(samples,)``, int16 or float in -1 to 1.
        words: Their classes, from 1.
        seed: Of all that is random.
    """
    random = np.random.default_rng(seed)
    pieces, spans, place = [], [], 0
    order = random.permutation(len(recordings))
    for index in order:
        sound = np.asarray(recordings[index], np.float32)
        sound = sound * (random.uniform(0.2, 0.9) / max(np.abs(sound).max(), 1e-6))
        pause = np.zeros(int(RATE * random.uniform(0.3, 0.8)), np.float32)
        spans.append((place + len(pause), place + len(pause) + len(sound)))
        pieces += [pause, sound]
        place = spans[-1][1]
    pieces.append(np.zeros(RATE, np.float32))
    audio = np.concatenate(pieces)
    audio += 0.002 * random.standard_normal(len(audio), np.float32)
    return Spoken(audio, np.asarray(words)[order], np.array(spans))


def frames_of(audio: np.ndarray, first: np.ndarray | int, count: int) -> np.ndarray:
    """Returns ``(..., count, WINDOW)`` frames of ``audio`` from frame ``first`` on."""
    starts = HOP * (np.asarray(first)[..., None] + np.arange(count))
    return audio[starts[..., None] + np.arange(WINDOW)]


def pieces(
    spoken: Spoken, seed: int, batch_size: int, steps: int, batches: int
) -> keras.utils.PyDataset:
    """Returns pieces of ``spoken`` from random places, in batches.

    Args:
        spoken: What to cut.
        seed: Of the places.
        batch_size: Pieces a batch.
        steps: Frames a piece.
        batches: Batches an epoch.
    """
    import keras

    labels, weights = spoken.labels()

    class Pieces(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.random = np.random.default_rng(seed)

        def __len__(self):
            return batches

        def __getitem__(self, index):
            first = self.random.integers(0, spoken.frames - steps, batch_size)
            chosen = first[:, None] + np.arange(steps)
            frames = frames_of(spoken.audio, first, steps)
            return frames, labels[chosen], weights[chosen]

    return Pieces()


def front_end_matrices() -> tuple[np.ndarray, np.ndarray]:
    """Returns the windowed Fourier transform and the mel bands.

    Returns:
        ``(WINDOW, 2 * bins)``, real parts before imaginary ones, and
        ``(2 * bins, BANDS)``, triangles from 60 Hz to the highest frequency on the mel
        scale of 2595 log10(1 + Hz / 700), the same for both parts.
    """
    bins = WINDOW // 2 + 1
    angles = 2 * np.pi / WINDOW * np.outer(np.arange(WINDOW), np.arange(bins))
    parts = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    fourier = np.hanning(WINDOW)[:, None] * parts
    edges = np.linspace(
        *(2595 * np.log10(1 + np.array([60, RATE / 2]) / 700)), BANDS + 2
    )
    edges = 700 * (10 ** (edges / 2595) - 1)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hertz = np.linspace(0, RATE / 2, bins)[:, None]
    rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    bands = np.maximum(0, np.minimum(rising, falling))
    return fourier.astype("f4"), np.concatenate([bands, bands]).astype("f4")


def network(units: int, classes: int, layers_count: int = 2):
    """Returns an untrained network: ``(batch, frames, WINDOW)`` samples to scores.

    Args:
        units: Width of the GRU layers.
        classes: Keywords, and one for none.
        layers_count: How many GRU layers.
    """
    import keras
    from keras import layers, ops

    sound = keras.Input((None, WINDOW), name="sound")
    fixed = {"use_bias": False, "trainable": False}
    fourier, bands = front_end_matrices()
    transform = layers.Dense(fourier.shape[1], name="fourier", **fixed)
    mel = layers.Dense(BANDS, name="mel", **fixed)
    energy = mel(ops.square(transform(sound)))
    x = 0.25 * ops.log(energy + 1e-4)
    for number in range(1, layers_count + 1):
        x = layers.GRU(units, return_sequences=True, name=f"gru_{number}")(x)
        x = layers.Dropout(0.2)(x)
    scores = layers.Dense(classes, name="keyword")(x)
    model = keras.Model(sound, scores, name="keywords")
    transform.set_weights([fourier])
    mel.set_weights([bands])
    return model


class Spotter:
    """Sound in, keywords out, as it comes.

    A keyword is told once when its probability, averaged over the last ``smooth``
    frames, rises to ``level``; the same one again only after it has fallen below half
    of that.

    Args:
        streamer: A :class:`tfrewprune.Streamer` or a stream of one, at its beginning.
        smooth: Frames to average.
        level: Probability.

    Example:
        >>> spotter = Spotter(trp.Streamer("digits.tflite"))  # doctest: +SKIP
        >>> for samples in microphone:  # any number of them  # doctest: +SKIP
        ...     for frame, word in spotter.push(samples):
        ...         print(word)
    """

    def __init__(self, streamer: Any, smooth: int = 12, level: float = 0.8):
        self._streamer = streamer
        self._level = level
        self._recent = None
        self._smooth = smooth
        self._waiting = np.zeros(0, np.float32)
        self._frames = 0
        self._active = 0

    def push(self, samples: np.ndarray) -> list[tuple[int, int]]:
        """Takes the next samples, float32 ``(n,)`` in -1 to 1.

        Returns:
            The keywords that were heard: (number of the frame, class).
        """
        self._waiting = np.concatenate([self._waiting, samples])
        count = max(0, (len(self._waiting) - WINDOW) // HOP + 1)
        if not count:
            return []
        scores = self._streamer.push(frames_of(self._waiting, 0, count))
        self._waiting = self._waiting[HOP * count :]
        return [event for row in scores for event in self._hear(row)]

    def _hear(self, scores: np.ndarray) -> list[tuple[int, int]]:
        likely = np.exp(scores - scores.max())
        likely /= likely.sum()
        if self._recent is None:
            self._recent = np.zeros((self._smooth, len(likely)), np.float32)
        self._recent[self._frames % self._smooth] = likely
        self._frames += 1
        mean = self._recent.mean(axis=0)
        best = int(mean[1:].argmax()) + 1
        told = best if mean[best] >= self._level else 0
        again = told == self._active
        if told or mean[self._active] < self._level / 2:
            self._active = told
        return [] if again or not told else [(self._frames - 1, told)]


def accuracy(events: Sequence[tuple[int, int]], spoken: Spoken) -> float:
    """Returns the share of keywords told right: that keyword, once, and no other.

    What is told from the beginning of a keyword to that of the next counts for it.

    Args:
        events: What a :class:`Spotter` heard: (frame, class), in order.
        spoken: The truth.
    """
    begins = spoken.spans[:, 0] // HOP
    told: list[list[int]] = [[] for _ in begins]
    for frame, word in events:
        told[max(0, int(np.searchsorted(begins, frame, side="right")) - 1)].append(word)
    right = [
        [int(word)] == heard for word, heard in zip(spoken.words, told, strict=True)
    ]
    return float(np.mean(right))
