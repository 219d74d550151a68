# SPDX-License-Identifier: Apache-2.0
"""Reads a Keras file for whatever wants the model that is in it."""

from __future__ import annotations

import os

import keras


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a `.keras` or `.h5` file, penalties and masks included, uncompiled.

    Args:
        path: The file.

    Raises:
        ValueError: Keras cannot load it, or it is a `.tflite` file.
        OSError: It is not there, or cannot be read.

    Example:

    >>> model = load_model("pruned.keras")  # doctest: +SKIP
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:  # Keras calls a missing file a bad format
            start = file.read(8)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no model at {name!r}") from error
    if start[4:] == b"TFL3":
        raise ValueError(
            f"expected a Keras file (.keras, .h5), received the .tflite file {name!r}; "
            "`tfrewprune inspect` shows what is in it"
        )
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the file provokes
        raise ValueError(f"Keras cannot load {name!r}: {error}") from error
