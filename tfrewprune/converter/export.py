# SPDX-License-Identifier: Apache-2.0
"""Exports Keras models and SavedModels as dense ``.tflite`` bytes.

This file and ``tracing`` are the only ones of the converter that import
TensorFlow or Keras, inside their functions.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model, read_model, text, write_model
from tfrewprune.converter.mlir import native_output_hidden, shorten
from tfrewprune.converter.open_lengths import check_open_lengths
from tfrewprune.converter.recurrent import composites

_INSTEAD = "convert it to TFLite yourself and give the .tflite file"


def to_tflite(
    model: Any,
    batch_size: int | None = None,
    verify: bool = True,
    inputs: Sequence[Any] | None = None,
    streaming: bool = False,
) -> bytes:
    """Returns the dense ``.tflite`` bytes of a model, as it computes in inference.

    Whatever dtype it trained in, the file computes in float32. The model is left as it
    is: its masks, penalties, compilation and dtypes.

    Args:
        model: A Keras 3 model on any backend, the path of a ``.keras`` (or ``.h5``)
            file, or the path of a SavedModel directory.
        batch_size: Fixes the first dimension of every input. None keeps what the
            model's `Input` says, and leaves it open where that says nothing.
        verify: Whether to run a Keras model and its file where a length is open, see
            `open_lengths`.
        inputs: Runs of the caller, whose sizes are among those tried there.
        streaming: Whether recurrent layers that stay loops are refused: the states of
            a loop cannot go in and out.

    Raises:
        ConversionError: If the model cannot be exported; TensorFlow's or Keras' own
            reason is in the message.
        OSError: If its file cannot be read.

    Warns:
        UserWarning: If weights that a mask removed are not zero.
    """
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.is_dir():
            return _from_directory(path, batch_size)
        model = _load(path)
    content = _from_keras(model, batch_size, streaming)
    if verify:
        check_open_lengths(model, content, inputs)
    return content


def _from_directory(path: Path, batch_size: int | None) -> bytes:
    if not (path / "saved_model.pb").is_file():
        raise ConversionError(
            f"expected a SavedModel directory, {str(path)!r} has no saved_model.pb"
        )
    if batch_size is not None:
        raise ConversionError(
            "batch_size applies to Keras models; the inputs of a SavedModel have the "
            f"shapes it was saved with, received batch_size={batch_size}"
        )
    return _from_saved_model(path)


def _load(path: Path) -> Any:
    from tfrewprune.wrappers.loading import load_model

    try:
        return load_model(path)
    except ValueError as error:
        raise ConversionError(shorten(error)) from error


def _from_keras(model: Any, batch_size: int | None, streaming: bool) -> bytes:
    import keras

    from tfrewprune.caller import warn_caller
    from tfrewprune.wrappers.attachment import revived_weights

    if not isinstance(model, keras.Model):
        raise ConversionError(
            "expected a Keras 3 model, received "
            f"{type(model).__module__}.{type(model).__qualname__}; {_INSTEAD}"
        )
    if not model.built:
        raise ConversionError(
            f"model {model.name!r} has no weights yet: build it, or call it once"
        )
    if streaming and (loops := composites.left_to_keras(model)):
        raise ConversionError(
            "a streaming model must have its recurrent layers packed, but "
            + "; ".join(loops)
        )
    if message := revived_weights(model):
        warn_caller(f"{message} convert packs what is there.")
    if keras.backend.backend() != "tensorflow":
        return _in_tensorflow(model, batch_size)
    return _in_its_batch(model, batch_size)


def _in_its_batch(model: Any, batch_size: int | None) -> bytes:
    """Exports with the batch asked for, else with the model's own."""
    import keras

    from tfrewprune.converter.tracing import built_batch, declared_batch
    from tfrewprune.shrinking.arranging import arranged

    # Of the model as it is: a copy with filters in another order declares everything.
    batch = declared_batch(model) if batch_size is None else batch_size
    built = built_batch(model) if isinstance(model, keras.Sequential) else None
    model = arranged(model)
    if batch is not None or built is None:
        return _with_batch(model, batch)
    try:
        return _with_batch(model, None)
    except ConversionError:  # what converts with that batch only is converted with it
        return _with_batch(model, built)


def _with_batch(model: Any, batch: int | None) -> bytes:
    from tfrewprune.converter.tracing import save_for_inference

    with tempfile.TemporaryDirectory(prefix="tfrewprune-") as folder:
        try:
            names = save_for_inference(model, Path(folder), batch)
        except ConversionError:
            raise
        except Exception as error:  # whatever the model's call raises when traced
            raise ConversionError(
                f"Keras cannot export model {model.name!r}: {shorten(error)}"
                + _advice(error, batch, _open_sizes(model))
            ) from error
        try:
            return _from_saved_model(Path(folder), batch, names)
        except ConversionError as error:
            loops = composites.left_to_keras(model) if batch is None else ()
            if not loops:
                raise
            raise ConversionError(
                f"{error}. Not packed but a loop: {'; '.join(loops)}"
            ) from error


def _in_tensorflow(model: Any, batch_size: int | None) -> bytes:
    """Exports a model of another backend in a child process that uses TensorFlow."""
    environment = dict(
        os.environ,
        KERAS_BACKEND="tensorflow",
        PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
    )
    with tempfile.TemporaryDirectory(prefix="tfrewprune-") as folder:
        source, target = Path(folder) / "model.keras", Path(folder) / "model.tflite"
        try:
            model.save(source)
        except Exception as error:  # Keras raises whatever the model's config provokes
            raise ConversionError(
                f"Keras cannot save model {model.name!r}: {shorten(error)}; {_INSTEAD}"
            ) from error
        command = [sys.executable, "-m", "tfrewprune.converter.export"]
        command += [str(source), str(target)]
        if batch_size is not None:
            command.append(f"--batch-size={batch_size}")
        child = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if child.returncode == 0 and target.is_file():
            return target.read_bytes()
    log = child.stderr.decode("utf-8", "replace").strip().splitlines()
    raise ConversionError(
        f"model {model.name!r} cannot be exported with Keras' TensorFlow backend "
        "(custom layers must be registered and importable there): "
        + (log[-1] if log else f"exit status {child.returncode}")
    )


def _from_saved_model(
    folder: Path, batch: int | None = 1, names: Sequence[str] = ()
) -> bytes:
    import tensorflow as tf

    try:
        with native_output_hidden():
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
            converter.allow_custom_ops = True
            content = converter.convert()
    except Exception as error:  # the converter raises many unrelated types
        raise ConversionError(
            f"TensorFlow cannot convert the model: {shorten(error)}"
            + _advice(error, batch)
        ) from error
    model = read_model(content)
    _replace_composites(model, batch)
    _reorder(model, names)
    return write_model(model)


def _replace_composites(model: Model, batch: int | None) -> None:
    """Writes loops for composites; other custom operators are refused."""
    codes = [text(code.customCode) for code in model.tree.operatorCodes]
    missing = sorted(set(filter(None, codes)) - {composites.NAME})
    if missing:
        # What the converter says by itself where custom operators are not allowed.
        error = f"TFLite has no operator for {', '.join(missing)}"
        raise ConversionError(
            f"TensorFlow cannot convert the model: {error}"
            + _advice(ConversionError(" ".join(missing)), batch)
        )
    if composites.NAME in codes:
        composites.write_loops(model)


def _open_sizes(model: Any) -> bool:
    """Whether a dimension beside the batch is open."""
    import keras

    from tfrewprune.converter.tracing import input_structure

    flat = keras.tree.flatten(input_structure(model))
    return any(None in tensor.shape[1:] for tensor in flat)


def _advice(error: Exception, batch: int | None, open_sizes: bool = False) -> str:
    # Loops over lists of tensors, as in recurrent layers, need fixed shapes.
    if batch is None and "TensorList" in str(error):
        return f"; fix the batch (batch_size=1, --batch-size 1), or {_INSTEAD}"
    if open_sizes:  # which some layers compute with when they are traced
        return f"; fix the sizes in the Input of the model, or {_INSTEAD}"
    return f"; {_INSTEAD}"


def _reorder(model: Model, names: Sequence[str]) -> None:
    """Puts inputs into the order of names, outputs into that which Keras has.

    The converter has an order of its own. Signatures number the outputs of a list, and
    name those of a dict by its keys, which Keras sorts.
    """
    for signature in model.tree.signatureDefs or ():
        subgraph = model.subgraphs[signature.subgraphIndex]
        inputs = {text(entry.name): entry.tensorIndex for entry in signature.inputs}
        outputs = {text(entry.name): entry.tensorIndex for entry in signature.outputs}
        numbered = sorted(outputs, key=_number)
        subgraph.inputs = _reordered(subgraph.inputs, inputs, names)
        subgraph.outputs = _reordered(subgraph.outputs, outputs, numbered)


def _reordered(
    tensors: np.ndarray, places: dict[str, int], names: Sequence[str]
) -> np.ndarray:
    """The tensors in the order of names; as they are where the names are others."""
    ordered = [places[name] for name in names if name in places]
    if sorted(ordered) != sorted(int(tensor) for tensor in tensors):
        return tensors
    return np.array(ordered, np.int32)


def _number(output: str) -> tuple[int, str]:
    found = re.fullmatch(r"output_(\d+)", output)
    return int(found[1]) if found else 0, output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("target", type=Path)
    parser.add_argument("--batch-size", type=int)
    words = parser.parse_args()
    warnings.simplefilter("ignore")  # the parent has warned
    try:
        # The parent has the model, and runs both.
        words.target.write_bytes(
            to_tflite(words.source, words.batch_size, verify=False)
        )
    except ConversionError as failure:
        sys.exit(" ".join(str(failure).split()))
