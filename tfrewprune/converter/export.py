# SPDX-License-Identifier: Apache-2.0
"""Exports Keras models and SavedModels as dense ``.tflite`` bytes.

The only file of the converter that imports TensorFlow or Keras.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tfrewprune.converter.errors import ConversionError


def to_tflite(model: Any) -> bytes:
    """Returns the dense ``.tflite`` bytes of a model.

    Args:
        model: A Keras 3 model on any backend, the path of a ``.keras`` (or ``.h5``)
            file, or the path of a SavedModel directory. `Prunable` wrappers are
            stripped, masks applied.

    Raises:
        ConversionError: If the model cannot be exported; TensorFlow's or Keras' own
            reason is in the message.
    """
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.is_dir():
            if not (path / "saved_model.pb").is_file():
                raise ConversionError(
                    f"expected a SavedModel directory, {str(path)!r} has no "
                    "saved_model.pb"
                )
            return _from_saved_model(str(path))
        model = _load(path)
    return _from_keras(model)


def _load(path: Path) -> Any:
    import keras

    import tfrewprune.wrappers  # noqa: F401 (registers the layers the file may name)

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the file provokes
        raise ConversionError(f"Keras cannot load {str(path)!r}: {error}") from error


def _from_keras(model: Any) -> bytes:
    import keras

    if not isinstance(model, keras.Model):
        raise ConversionError(
            "expected a Keras 3 model, received "
            f"{type(model).__module__}.{type(model).__qualname__}"
        )
    if not model.built:
        raise ConversionError(
            f"model {model.name!r} has no weights yet: build it, or call it once"
        )
    from tfrewprune.pipeline import strip

    model = strip(model)
    with tempfile.TemporaryDirectory(prefix="tfrewprune-") as folder:
        if keras.backend.backend() != "tensorflow":
            return _export_in_tensorflow(model, Path(folder))
        try:
            model.export(folder, format="tf_saved_model", verbose=False)
        except Exception as error:  # whatever the model's call raises when traced
            raise ConversionError(
                f"Keras cannot export model {model.name!r}: {error}"
            ) from error
        return _from_saved_model(folder)


def _export_in_tensorflow(model: Any, folder: Path) -> bytes:
    """Exports a model of another backend in a child process that uses TensorFlow."""
    source, target = folder / "model.keras", folder / "model.tflite"
    model.save(source)
    environment = dict(
        os.environ,
        KERAS_BACKEND="tensorflow",
        PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
    )
    child = subprocess.run(
        [sys.executable, "-m", "tfrewprune.converter.export", str(source), str(target)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if child.returncode or not target.is_file():
        log = child.stderr.decode("utf-8", "replace").strip()[-2000:]
        raise ConversionError(
            f"model {model.name!r} cannot be exported with Keras' TensorFlow backend "
            f"(custom layers must be registered and importable there):\n{log}"
        )
    return target.read_bytes()


def _from_saved_model(folder: str) -> bytes:
    import tensorflow as tf

    try:
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    except Exception as error:  # the converter raises many unrelated types
        raise ConversionError(
            f"TensorFlow cannot convert the model: {error}"
        ) from error


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(to_tflite(sys.argv[1]))
