# SPDX-License-Identifier: Apache-2.0
"""Real handwritten digits that come inside scikit-learn."""

from dataclasses import dataclass

import numpy as np

IMAGE_SIZE = 16
CLASSES = 10


@dataclass(frozen=True)
class Part:
    """Images `[n, 16, 16, 1]` float32 in [0, 1] and labels `[n]` int64."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Digits:
    """The data set in three parts of the same class balance.

    The test part decides nothing: it is looked at once, by the finished models.
    """

    train: Part
    validation: Part
    test: Part


def load_digits(seed: int = 0) -> Digits:
    """Loads the 1797 digits of the UCI test set, 8x8, drawn out to 16x16.

    Args:
        seed: Seed of the split: 60 % train, 20 % validation, 20 % test.

    Raises:
        ModuleNotFoundError: If scikit-learn is missing; `pip install
            tfrewprune[report]` brings it.
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    images = _enlarge(digits.images.astype(np.float32) / 16)[..., np.newaxis]
    labels = digits.target.astype(np.int64)
    images, test_images, labels, test_labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=seed
    )
    images, validation_images, labels, validation_labels = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=seed
    )
    return Digits(
        Part(images, labels),
        Part(validation_images, validation_labels),
        Part(test_images, test_labels),
    )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Bilinear interpolation to twice the size, pixel centres aligned."""
    size = images.shape[1]
    positions = (np.arange(IMAGE_SIZE) + 0.5) * size / IMAGE_SIZE - 0.5
    low = np.clip(np.floor(positions).astype(int), 0, size - 1)
    high = np.clip(low + 1, 0, size - 1)
    weight = np.clip(positions - low, 0, 1).astype(np.float32)
    rows = images[:, low] * (1 - weight)[:, None] + images[:, high] * weight[:, None]
    return rows[:, :, low] * (1 - weight) + rows[:, :, high] * weight
