# SPDX-License-Identifier: Apache-2.0
"""Whether two models give the same outputs, on random inputs."""

from __future__ import annotations

import keras
import numpy as np

#: Inputs, and extents of axes that a model leaves open.
EXAMPLES, EXTENT = 4, 32


def random_inputs(model: keras.Model, seed: int = 0) -> list[np.ndarray]:
    """Inputs for a built model, of several scales; of integers zeros and ones."""
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        batch, *rest = tensor.shape
        shape = [batch or EXAMPLES, *(extent or EXTENT for extent in rest)]
        if keras.backend.is_float_dtype(tensor.dtype):
            scales = 4.0 ** np.arange(-1, shape[0] - 1).reshape(-1, *[1] * len(rest))
            array = rng.normal(0.2, 1.0, shape) * np.minimum(scales, 4)
        else:
            array = rng.integers(0, 2, shape)
        arrays.append(array.astype(tensor.dtype))
    return arrays


def difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Largest difference of two models' outputs, over the first's largest output."""
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape or (np.isfinite(a) != np.isfinite(b)).any():
            return float("inf")
        known = np.isfinite(a)
        largest = float(np.abs(a[known]).max(initial=0.0))
        apart = float(np.abs(a[known] - b[known]).max(initial=0.0))
        worst = max(worst, apart / largest if largest else apart)
    return worst


def outputs_of(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What a model makes of its inputs, as float64."""
    if isinstance(model, keras.Sequential):
        (given,) = inputs
    else:
        given = keras.tree.pack_sequence_as(model.input, inputs)
    return [
        keras.ops.convert_to_numpy(output).astype(np.float64)
        for output in keras.tree.flatten(model(given, training=False))
    ]
