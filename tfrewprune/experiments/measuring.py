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
    from tfrewprune.converter.export import to_tflite

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
    source = interpreter.get_input_details()[0]
    target = interpreter.get_output_details()[0]
    size = right = 0
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
        A JSON-able dictionary: ``litert_accuracy`` of the packed model,
        ``dense_bytes``, ``packed_bytes``, ``packed_layers`` (0 where the
        converter found none worth packing: the figures are then those of the
        dense model), and a list ``latency`` with one
        :class:`tfrewprune.benchmark.compare.Comparison` for each thread count.

    Raises:
        tfrewprune.ConversionError: the model cannot be converted.
    """
    import tfrewprune
    from tfrewprune.benchmark.compare import compare_models

    tfrewprune.convert(dense, output=packed, inputs=[images[:1]])
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
        "dense_bytes": dense.stat().st_size,
        "packed_bytes": packed.stat().st_size,
        "packed_layers": timings[0]["claimed_nodes"],
        "latency": timings,
    }
