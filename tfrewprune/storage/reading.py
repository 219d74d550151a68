# SPDX-License-Identifier: Apache-2.0
"""The weight matrices of a Keras model or of a `.tflite` file, dense or packed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tfrewprune.converter.conversion import read_content, unwrapped
from tfrewprune.converter.densify import WEIGHT_TYPES, read_weights
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.files import is_keras_file
from tfrewprune.converter.flatbuffer import Model, read_model
from tfrewprune.converter.layer import Layer, weight_buffers
from tfrewprune.converter.unpack import dense_shape, read_payload
from tfrewprune.inspection import describe_layers
from tfrewprune.payload import pack_matrix


class Matrix(NamedTuple):
    """One weight matrix.

    Attributes:
        name: Of its layer.
        mask: Boolean (outputs, columns): the weights that are not 0.
        taps: Kernel positions; a column is position * channels + channel.
        bits: Of a weight as the model stores it.
        packed_bytes: Of the payload that holds it, or would.
        shared: How many operators read it.
    """

    name: str
    mask: np.ndarray
    taps: int
    bits: int
    packed_bytes: int | None
    shared: int = 1


def matrices(model: Any) -> Iterator[Matrix]:
    """Every weight matrix of a model that can be read.

    Args:
        model: A Keras model or its file; a `.tflite` file, its bytes or its path.
    """
    is_path = isinstance(model, str | os.PathLike)
    if is_path and is_keras_file(model):
        from tfrewprune.wrappers.loading import load_model

        model = load_model(model)
    model = unwrapped(model)
    if hasattr(model, "count_params"):
        yield from _of_keras(model)
    else:
        yield from _of_tflite(read_content(model, may_export=False))


def _of_keras(model: Any) -> Iterator[Matrix]:
    from tfrewprune.structures.layout import matrix_from_kernel
    from tfrewprune.wrappers.targets import all_kernels

    for target in all_kernels(model):
        if target.spec is None or not target.shape.weights:
            continue
        weights = matrix_from_kernel(target.values())
        packed = len(pack_matrix(np.ascontiguousarray(weights)))
        taps = target.shape.positions
        yield Matrix(target.label, weights != 0, taps, 32, packed)


def _of_tflite(content: bytes) -> Iterator[Matrix]:
    model = read_model(content)
    layers = find_layers(model)
    readers = Counter(weight_buffers(model, layer) for layer in layers)
    for layer, record in zip(layers, describe_layers(model, layers), strict=True):
        found = _weights(model, layer)
        if found is None or not record.bytes_dense or record.shares is not None:
            continue
        weights, taps = found
        bits = round(8 * record.bytes_dense / record.weights)
        packed, shared = record.bytes_packed, readers[weight_buffers(model, layer)]
        yield Matrix(layer.name, weights != 0, taps, bits, packed, shared)


def _weights(model: Model, layer: Layer) -> tuple[np.ndarray, int] | None:
    """Weights (outputs, columns) and kernel positions; None if they are not told."""
    if layer.packed:
        if layer.reason is not None:
            return None
        matrix = read_payload(model, layer)
        shape = dense_shape(layer, matrix)
    else:
        if layer.source is None or layer.more_sources:
            return None
        tensor = model.subgraphs[layer.subgraph].tensors[layer.source.tensor]
        if tensor.type not in WEIGHT_TYPES:
            return None
        matrix = read_weights(model, tensor)
        shape = matrix.shape
    if "DEPTHWISE" in layer.op:
        matrix = np.moveaxis(matrix, -1, 0)
        shape = (matrix.shape[0], *matrix.shape[2:], 1)
    if len(shape) < 2:
        return None
    return matrix.reshape(shape[0], -1), int(np.prod(shape[1:-1], dtype=np.int64))
