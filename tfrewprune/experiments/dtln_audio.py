# SPDX-License-Identifier: Apache-2.0
"""Noisy speech for DTLN: spoken digits among synthetic noise, as frames at 16 kHz.

Frames are those of the upstream project (github.com/breizhn/DTLN): 512 samples, 128
apart, whose magnitudes the network multiplies by a mask.
"""

from __future__ import annotations

import os

import numpy as np

from tfrewprune.experiments import datasets

FRAME, HOP, RATE = 512, 128, 16_000
BANDS = FRAME // 2 + 1
#: Speech over noise, in decibels.
LEVELS = (0.0, 5.0, 10.0)


def mixtures(
    part: str, count: int, seconds: float, path: str | os.PathLike[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Speech with noise, and without.

    The noise is white, pink, or the babble of six other recordings.

    Args:
        part: `"train"`: takes 5 and later; `"test"`: the official test part.
        count: How many.
        seconds: How long each is.
        path: By default ``data_path("fsdd.npz")``.

    Returns:
        Noisy and clean samples, ``[count, seconds * 16000]``, float32 within [-1, 1].

    Raises:
        FileNotFoundError: the file is not there.
    """
    from scipy.signal import resample_poly

    with np.load(path or datasets.data_path("fsdd.npz")) as archive:
        audio, offsets = archive["audio"], archive["offsets"]
        chosen = (archive["take"] < 5) == (part == "test")
    clips = [
        audio[begin:end].astype(np.float32) / 32768
        for begin, end, used in zip(offsets[:-1], offsets[1:], chosen, strict=True)
        if used
    ]
    random = np.random.default_rng({"train": 1, "test": 2}[part])
    length = round(seconds * RATE)

    def speech() -> np.ndarray:
        pieces: list[np.ndarray] = []
        while sum(map(len, pieces)) < length // 2:
            pieces += [clips[random.integers(len(clips))], np.zeros(800, np.float32)]
        whole = resample_poly(np.concatenate(pieces)[: length // 2], 2, 1)
        return whole[:length].astype(np.float32)

    def noise() -> np.ndarray:
        kind = random.integers(3)
        if kind == 2:
            return sum(speech() for _ in range(6))
        white = random.standard_normal(length)
        if kind == 1:
            spectrum = np.fft.rfft(white)
            white = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1.0))
        return white

    noisy, clean = (np.zeros((count, length), np.float32) for _ in range(2))
    for number in range(count):
        clean[number] = speech()
        added = noise()[:length]
        level = LEVELS[random.integers(len(LEVELS))]
        power = np.mean(np.square(clean[number])) / np.mean(np.square(added))
        noisy[number] = clean[number] + added * np.sqrt(power / 10 ** (level / 10))
        largest = np.abs(noisy[number]).max()
        if largest > 1:
            noisy[number] /= largest
            clean[number] /= largest
    return noisy, clean


def spectra(samples: np.ndarray) -> np.ndarray:
    """Spectra of frames: ``[n, samples]`` to ``[n, frames, 257]``, complex."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME, axis=-1)
    return np.fft.rfft(frames[..., ::HOP, :])


def joined(spectra: np.ndarray) -> np.ndarray:
    """Samples of overlapping frames: ``[n, frames, 257]`` to ``[n, samples]``."""
    frames = np.fft.irfft(spectra) * (HOP / FRAME)
    count = frames.shape[1]
    whole = np.zeros((len(frames), FRAME + (count - 1) * HOP))
    for place in range(count):
        whole[:, place * HOP : place * HOP + FRAME] += frames[:, place]
    return whole


def signal_to_noise(wanted: np.ndarray, received: np.ndarray) -> float:
    """Decibels of a signal over what differs from it, over all samples."""
    error = np.square(wanted - received).sum()
    return float(10 * np.log10(np.square(wanted).sum() / max(error, 1e-30)))


def distortion_ratio(clean: np.ndarray, received: np.ndarray) -> float:
    """Mean scale-invariant signal-to-distortion ratio in decibels.

    Source: Le Roux et al., "SDR - half-baked or well done?", arXiv 1811.02508, eq. 5.
    """
    scale = (clean * received).sum(-1) / np.square(clean).sum(-1)
    wanted = scale[:, None] * clean
    error = np.square(wanted - received).sum(-1)
    return float(np.mean(10 * np.log10(np.square(wanted).sum(-1) / error)))
