# SPDX-License-Identifier: Apache-2.0
"""Loaders of the data sets and pretrained models the experiments use.

Files are looked for in the folder named by ``TFREWPRUNE_DATA``, else in
``data`` or ``shared/data`` beside or above the current folder or this
package. Pretrained models are looked for in the folder ``models`` beside the
data folder, or in the one named by ``TFREWPRUNE_MODELS``. Nothing is
downloaded. NumPy only.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

VALIDATION_IMAGES = 5000
"""Training images, the last ones, set apart to choose hyper-parameters."""


@dataclasses.dataclass(frozen=True)
class ImageData:
    """An image classification data set in memory, cut in three.

    Attributes:
        x_train: float32 images ``(n, height, width, channels)``.
        y_train: int64 class numbers ``(n,)``.
        x_validation: the last 5,000 images of the official training part.
        y_validation: their classes.
        x_test: the official test part; looked at once, at the end.
        y_test: its classes.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def head(self, train: int, validation: int, test: int) -> ImageData:
        """Returns the first images of each part (for quick runs and tests)."""
        return ImageData(
            self.x_train[:train],
            self.y_train[:train],
            self.x_validation[:validation],
            self.y_validation[:validation],
            self.x_test[:test],
            self.y_test[:test],
        )


def _candidate_folders() -> Iterator[Path]:
    named = os.environ.get("TFREWPRUNE_DATA")
    if named:
        yield Path(named)
        return
    package = Path(__file__).resolve().parent
    for start in (Path.cwd(), *Path.cwd().parents, *package.parents):
        yield start / "data"
        yield start / "shared" / "data"


def data_path(name: str) -> Path:
    """Returns the path of the data file ``name``.

    Raises:
        FileNotFoundError: no candidate folder holds it; the message lists the
            environment variable to set.

    Example:
        >>> np.load(data_path("mnist.npz"))["x_train"].shape  # doctest: +SKIP
        (60000, 28, 28)
    """
    for folder in _candidate_folders():
        if (folder / name).is_file():
            return folder / name
    named = os.environ.get("TFREWPRUNE_DATA")
    looked = f"in {named} (TFREWPRUNE_DATA)" if named else "in data/ and shared/data/"
    raise FileNotFoundError(
        f"Data file {name!r} not found {looked}. Set TFREWPRUNE_DATA to the folder"
        " that holds it."
    )


def model_path(name: str) -> Path:
    """Returns the path of the pretrained model ``name`` (a relative path).

    Raises:
        FileNotFoundError: it is in neither of the folders looked in.
    """
    named = os.environ.get("TFREWPRUNE_MODELS")
    folders = (
        [Path(named)]
        if named
        else [folder.parent / "models" for folder in _candidate_folders()]
    )
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(
        f"Pretrained model {name!r} not found. Set TFREWPRUNE_MODELS to the folder"
        " that holds it, or TFREWPRUNE_DATA to a data folder with a folder models"
        " beside it."
    )


def _split(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> ImageData:
    (x, y), (x_test, y_test) = train, test
    cut = len(x) - VALIDATION_IMAGES
    return ImageData(
        x_train=x[:cut],
        y_train=y[:cut].astype(np.int64),
        x_validation=x[cut:],
        y_validation=y[cut:].astype(np.int64),
        x_test=x_test,
        y_test=y_test.astype(np.int64),
    )


def mnist(path: str | os.PathLike[str] | None = None) -> ImageData:
    """Loads MNIST: 55,000 + 5,000 + 10,000 images 28 x 28 x 1 in 0 to 1.

    Args:
        path: ``.npz`` file with ``x_train``, ``y_train``, ``x_test``,
            ``y_test`` (uint8, the layout Keras uses too); by default
            ``data_path("mnist.npz")``.

    Raises:
        FileNotFoundError: the file is not there.
    """
    with np.load(path or data_path("mnist.npz")) as archive:
        x, y, x_test, y_test = (
            archive[key] for key in ("x_train", "y_train", "x_test", "y_test")
        )

    def scale(images: np.ndarray) -> np.ndarray:
        return images[..., None].astype(np.float32) / 255.0

    return _split((scale(x), y), (scale(x_test), y_test))


def cifar10(path: str | os.PathLike[str] | None = None) -> ImageData:
    """Loads CIFAR-10: 45,000 + 5,000 + 10,000 images 32 x 32 x 3, 0 to 255.

    The images are not scaled: the MLPerf Tiny models take pixel values.

    Args:
        path: ``.npz`` file with ``r_train``, ``y_train``, ``r_test``,
            ``y_test``, where ``r_*`` are second differences modulo 256 of the
            planes R - G, G, B - G, shape ``(n, 3, 32, 32)``, uint8; by default
            ``data_path("cifar10.npz")``.

    Raises:
        FileNotFoundError: the file is not there.
    """
    with np.load(path or data_path("cifar10.npz")) as archive:
        arrays = {key: archive[key] for key in ("r_train", "r_test")}
        labels = {key: archive[key] for key in ("y_train", "y_test")}

    def decode(differences: np.ndarray) -> np.ndarray:
        rows = np.cumsum(differences, axis=2, dtype=np.uint8)
        planes = np.cumsum(rows, axis=3, dtype=np.uint8)
        images = planes.transpose(0, 2, 3, 1).copy()
        images[..., 0] += images[..., 1]
        images[..., 2] += images[..., 1]
        return images.astype(np.float32)

    return _split(
        (decode(arrays["r_train"]), labels["y_train"]),
        (decode(arrays["r_test"]), labels["y_test"]),
    )


def photograph(path: str | os.PathLike[str] | None = None) -> np.ndarray:
    """Loads the portrait of Grace Hopper: uint8, (224, 224, 3).

    Args:
        path: By default ``data_path("grace_hopper_224.npz")``.

    Raises:
        FileNotFoundError: the file is not there.
    """
    with np.load(path or data_path("grace_hopper_224.npz")) as archive:
        return archive["image"]
