# SPDX-License-Identifier: Apache-2.0
"""What a pruned model is worth once deployed: accuracy, bytes and time in LiteRT."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 100


def export(model, path: Path) -> None:
    """Writes a Keras model as a standard, dense ``.tflite``."""
    from tfrewprune.convert.export import to_tflite

    path.write_bytes(to_tflite(model))


def litert_accuracy(
    model: str | os.PathLike[str], images: np.ndarray, labels: np.ndarray
) -> float:
    """Returns the fraction of ``images`` a ``.tflite`` classifies right.

    The model runs in LiteRT with the tfrewprune delegate, in batches of 100.

    Args:
        model: Path of the ``.tflite``, packed or dense.
        images: float32, ``(n, ...)`` as the model's input without the batch.
        labels: Class numbers ``(n,)``.
    """
    import tfrewprune

    interpreter = tfrewprune.Interpreter(model_path=os.fspath(model), num_threads=1)
    return _accuracy(interpreter, images, labels)


def dense_litert_accuracy(
    model: str | os.PathLike[str], images: np.ndarray, labels: np.ndarray
) -> float:
    """As :func:`litert_accuracy`, of a standard model without our delegate."""
    from ai_edge_litert.interpreter import Interpreter

    return _accuracy(
        Interpreter(model_path=os.fspath(model), num_threads=1), images, labels
    )


def _accuracy(interpreter, images: np.ndarray, labels: np.ndarray) -> float:
    source = interpreter.get_input_details()[0]
    target = interpreter.get_output_details()[0]
    size = 0
    right = 0
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        if len(batch) != size:
            size = len(batch)
            interpreter.resize_tensor_input(source["index"], batch.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        scores = interpreter.get_tensor(target["index"])
        right += int((scores.argmax(-1) == labels[start : start + BATCH]).sum())
    return right / len(images)


def deployment(
    dense: Path,
    packed: Path,
    images: np.ndarray,
    labels: np.ndarray,
    threads: Sequence[int] = (1,),
    min_seconds: float = 2.0,
) -> dict[str, Any]:
    """Packs a pruned dense ``.tflite`` and measures it beside the original.

    Args:
        dense: The pruned model as a standard ``.tflite``: the zeros are stored.
        packed: Where the converted model is written.
        images: Test images, the first of them is the input of the timings too.
        labels: Their classes.
        threads: Thread counts to time.
        min_seconds: Length of each timing.

    Returns:
        A JSON-able dictionary: ``litert_accuracy``, ``dense_bytes``,
        ``packed_bytes``, ``packed_layers``, and for each thread count
        ``latency``: milliseconds dense (XNNPACK) and packed, and the ratio.
        Without a layer worth packing ``packed_layers`` is 0, ``reason`` says
        why, and the figures are those of the dense model.
    """
    import tfrewprune
    from tfrewprune.benchmark import compare_models

    content = dense.read_bytes()
    try:
        tfrewprune.convert(content, output=packed)
    except tfrewprune.ConversionError as error:
        return {
            "litert_accuracy": dense_litert_accuracy(dense, images, labels),
            "dense_bytes": len(content),
            "packed_bytes": len(content),
            "packed_layers": 0,
            "reason": str(error),
            "latency": [],
        }
    timings = []
    for count in threads:
        result = compare_models(
            packed,
            dense,
            threads=count,
            min_seconds=min_seconds,
            inputs=[images[:1]],
            with_cost=False,
        )
        timings.append(result.to_dict())
    return {
        "litert_accuracy": litert_accuracy(packed, images, labels),
        "dense_bytes": len(content),
        "packed_bytes": packed.stat().st_size,
        "packed_layers": timings[0]["claimed_nodes"] if timings else None,
        "latency": timings,
    }
