# SPDX-License-Identifier: Apache-2.0
"""Phone-labelled speech: utterances, what a network gets of them, how it is judged.

The data set is ``ru_phones.npz``: one speaker, 558 sentences, 40 log-mel energies and
one of 51 phones for every 10 ms. No phone is shorter than 30 ms, so a network gets
three frames at a time, one *step*, and says one phone for them. It may hear
:data:`DELAY` more steps before it has to say it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrewprune.experiments.datasets import data_path

if TYPE_CHECKING:
    import keras

STACK = 3
"""Frames of 10 ms that make one step."""

DELAY = 1
"""Steps that a network hears beyond the one whose phone it says."""

GRAMMAR = 0.5
"""What the order of phones counts beside the sound when a sentence is decoded."""

Utterances = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class PhoneData:
    """Sentences, cut in three; each is in one part only.

    Attributes:
        x_train: Per sentence float32 ``(frames, bands)``, each band with mean 0 and
            variance 1 over the training part.
        y_train: Per sentence the phone of each frame, int64 ``(frames,)``.
        x_validation: Every tenth sentence, of those that are not for testing.
        y_validation: Their phones.
        x_test: The official test part; looked at once, at the end.
        y_test: Its phones.
        phones: Names of the phones.
        silence: Number of the one that is silence.
    """

    x_train: Utterances
    y_train: Utterances
    x_validation: Utterances
    y_validation: Utterances
    x_test: Utterances
    y_test: Utterances
    phones: list[str]
    silence: int

    def head(self, train: int | None, validation: int | None, test: int | None):
        """Returns the first sentences of each part (for quick runs and tests)."""
        return dataclasses.replace(
            self,
            x_train=self.x_train[:train],
            y_train=self.y_train[:train],
            x_validation=self.x_validation[:validation],
            y_validation=self.y_validation[:validation],
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )


def ru_phones(path: str | os.PathLike[str] | None = None) -> PhoneData:
    """Loads the phone-labelled sentences: 447 + 55 + 56.

    Args:
        path: ``.npz`` file with ``features_delta`` (differences in time, modulo 256),
            ``labels``, ``offsets``, ``is_test``, ``phones``; by default
            ``data_path("ru_phones.npz")``.

    Raises:
        FileNotFoundError: the file is not there.
    """
    with np.load(path or data_path("ru_phones.npz")) as archive:
        codes = np.cumsum(archive["features_delta"], axis=0, dtype=np.uint8)
        labels, offsets = archive["labels"].astype(np.int64), archive["offsets"]
        test = archive["is_test"].astype(bool)
        phones = [str(phone) for phone in archive["phones"]]
    number = np.arange(len(test))
    validation = ~test & (number % 10 == 9)
    bounds = list(zip(offsets[:-1], offsets[1:], strict=True))

    def part(chosen: np.ndarray) -> tuple[Utterances, Utterances]:
        spans = [bounds[index] for index in np.flatnonzero(chosen)]
        # Decibels are a multiple of the codes: standardised, both are the same.
        frames = [codes[start:stop].astype(np.float32) for start, stop in spans]
        return frames, [labels[start:stop] for start, stop in spans]

    x, y = part(~test & ~validation)
    together = np.concatenate(x)
    mean, deviation = together.mean(axis=0), together.std(axis=0)

    def scaled(parts: tuple[Utterances, Utterances]) -> tuple[Utterances, Utterances]:
        return [(frames - mean) / deviation for frames in parts[0]], parts[1]

    x, y = scaled((x, y))
    x_validation, y_validation = scaled(part(validation))
    x_test, y_test = scaled(part(test))
    return PhoneData(
        *(x, y, x_validation, y_validation, x_test, y_test),
        phones=phones,
        silence=phones.index("pau"),
    )


def steps_of(frames: np.ndarray) -> np.ndarray:
    """Returns what a network is fed of a sentence, :data:`DELAY` steps of end included.

    Args:
        frames: ``(frames, bands)``.

    Returns:
        ``(steps + DELAY, STACK * bands)``; the last frame is repeated to fill them.
    """
    count = -(-len(frames) // STACK) + DELAY
    missing = STACK * count - len(frames)
    padded = np.pad(frames, ((0, missing), (0, 0)), mode="edge")
    return padded.reshape(count, -1)


def segments(
    data: PhoneData, seed: int, batch_size: int, steps: int
) -> keras.utils.PyDataset:
    """Returns pieces of the training sentences, cut at random places, in batches.

    Sentences are strung together; an epoch has as many steps as they have. That pieces
    begin at any frame gives three times as many different steps.

    Args:
        data: The training part is used.
        seed: Of the places.
        batch_size: Pieces a batch.
        steps: Length of a piece.
    """
    import keras

    frames, labels = np.concatenate(data.x_train), np.concatenate(data.y_train)
    first, last = STACK * DELAY, len(frames) - STACK * steps
    wanted = STACK * (np.arange(steps) - DELAY) + STACK // 2

    class Segments(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.random = np.random.default_rng(seed)

        def __len__(self):
            return max(1, len(frames) // (STACK * steps * batch_size))

        def __getitem__(self, index):
            starts = self.random.integers(first, last + 1, (batch_size, 1))
            pieces = frames[starts + np.arange(STACK * steps)]
            return pieces.reshape(batch_size, steps, -1), labels[starts + wanted]

    return Segments()


def keras_scores(model: Any, sentences: Utterances) -> Utterances:
    """Returns a Keras model's scores of whole sentences.

    Args:
        model: Takes ``(batch, steps, STACK * bands)``, gives a score for each phone.
        sentences: Each ``(frames, bands)``.

    Returns:
        Of each sentence ``(steps, phones)``.
    """
    fed = [steps_of(frames) for frames in sentences]
    batch = np.zeros((len(fed), max(map(len, fed)), fed[0].shape[1]), np.float32)
    for row, steps in zip(batch, fed, strict=True):
        row[: len(steps)] = steps
    scores = model.predict(batch, batch_size=16, verbose=0)
    return [row[DELAY : len(steps)] for row, steps in zip(scores, fed, strict=True)]


def errors(
    scores: Sequence[np.ndarray],
    labels: Utterances,
    silence: int,
    grammar: np.ndarray,
) -> dict[str, float]:
    """Returns how well sentences were recognised.

    Args:
        scores: Of each sentence ``(steps, phones)``, logits.
        labels: Of each sentence the true phone of each frame.
        silence: Number of the phone that does not count.
        grammar: Of :func:`grammar_of`.

    Returns:
        ``accuracy``, the share of frames with the right phone; and wrong, missing and
        added phones over true ones: ``phone_error_rate`` of the likeliest phone of each
        step by itself, ``decoded_error_rate`` of the likeliest sequence.
    """
    right = frames = phones = wrong = decoded = 0
    for steps, true in zip(scores, labels, strict=True):
        said = steps.argmax(axis=-1)
        right += int((np.repeat(said, STACK)[: len(true)] == true).sum())
        frames += len(true)
        reference = collapse(true, silence)
        phones += len(reference)
        wrong += edit_distance(collapse(said, silence), reference)
        likeliest = collapse(decode(steps, grammar), silence)
        decoded += edit_distance(likeliest, reference)
    return {
        "accuracy": right / frames,
        "phone_error_rate": wrong / phones,
        "decoded_error_rate": decoded / phones,
    }


def grammar_of(labels: Utterances, count: int) -> np.ndarray:
    """Returns the log-probability of each phone after each, from one step to the next.

    Args:
        labels: Of training sentences, the phone of each frame.
        count: How many phones there are.

    Returns:
        ``(before, after)``; what was never seen counts as a tenth of once.
    """
    seen = np.full((count, count), 0.1)
    for phones in labels:
        np.add.at(seen, (phones[:-STACK], phones[STACK:]), 1)
    return np.log(seen / seen.sum(axis=1, keepdims=True))


def decode(scores: np.ndarray, grammar: np.ndarray) -> np.ndarray:
    """Returns the likeliest sequence of phones (Viterbi).

    The one with the largest sum of log-probabilities, of phones given the sound and,
    times :data:`GRAMMAR`, of phones given the phone before.

    Args:
        scores: ``(steps, phones)``, logits.
        grammar: ``(before, after)``, log-probabilities.
    """
    likely = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    best, origins = likely[0], []
    for step in likely[1:]:
        ways = best[:, None] + GRAMMAR * grammar
        origins.append(ways.argmax(axis=0))
        best = ways.max(axis=0) + step
    path = [int(best.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])


def collapse(labels: np.ndarray, silence: int) -> np.ndarray:
    """Returns the phones that were said: one for each run, silence dropped.

    Example:
        >>> collapse(np.array([7, 1, 1, 7, 1, 2, 2]), silence=7).tolist()
        [1, 1, 2]
    """
    begins = np.diff(labels, prepend=-1) != 0
    runs = labels[begins]
    return runs[runs != silence]


def edit_distance(said: np.ndarray, reference: np.ndarray) -> int:
    """Returns the fewest changed, missing and added items (Levenshtein's distance).

    Example:
        >>> edit_distance(np.array([1, 2, 3]), np.array([2, 3, 4]))
        2
    """
    places = np.arange(len(reference) + 1)
    row = places
    for count, item in enumerate(said, start=1):
        changed = row[:-1] + (reference != item)
        best = np.concatenate([[count], np.minimum(row[1:] + 1, changed)])
        # An item may be missing any number of times: a running minimum.
        row = np.minimum.accumulate(best - places) + places
    return int(row[-1])
