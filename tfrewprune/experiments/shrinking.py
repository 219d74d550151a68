# SPDX-License-Identifier: Apache-2.0
"""LeNet-5 without its dead units: what is left of it trains several times faster.

At hundreds of times fewer weights most filters and neurons have no input or no output
left. A unit without input gives a constant, which goes into the biases behind it; one
without output is dropped. Exact for valid convolutions with ReLU and max-pooling, as
LeNet-5 has them.
"""

from __future__ import annotations

import numpy as np

POSITIONS = (25, 25, 16, 1)
"""Kernel positions that one input unit of each layer has; fc1 reads 4 x 4 of each."""

Weights = list[np.ndarray]  # kernel, bias, kernel, bias, ... as of ``get_weights``


def without_dead_paths(weights: Weights) -> Weights:
    """Sets weights that cannot matter to zero; the network computes the same.

    Args:
        weights: Kernels and biases of a LeNet-5 of any width.
    """
    weights = [np.array(array, np.float32) for array in weights]
    kernels, biases = _kernels(weights), weights[1::2]
    before = -1
    while before != (before := sum(map(np.count_nonzero, kernels))):
        for layer in range(len(kernels) - 1):
            kernel, following = kernels[layer], kernels[layer + 1]
            silent = ~kernel.any(axis=(0, 1))
            constant = np.maximum(biases[layer], 0) * silent
            biases[layer + 1] += np.einsum("pio,i->o", following, constant)
            biases[layer][silent] = 0
            following[:, silent] = 0
            kernel[:, :, ~following.any(axis=(0, 2))] = 0
    return weights


def shrink(weights: Weights) -> Weights:
    """Returns the weights of the smaller LeNet-5 that has no dead unit.

    A layer keeps one unit even if all are dead, since Keras has no empty layer.

    Args:
        weights: Kernels and biases of a LeNet-5 of any width.
    """
    weights = without_dead_paths(weights)
    inputs, small = np.arange(1), []
    for layer, kernel in enumerate(_kernels(weights)):
        alive = kernel.any(axis=(0, 1)) if layer < 3 else np.ones(kernel.shape[2], bool)
        units = np.flatnonzero(alive) if alive.any() else np.arange(1)
        window = weights[2 * layer].shape[:-2]
        kernel = kernel[:, inputs][:, :, units]
        rows = (*window, len(inputs)) if window else (kernel.shape[0] * len(inputs),)
        small += [kernel.reshape(*rows, len(units)), weights[2 * layer + 1][units]]
        inputs = units
    return small


def _kernels(weights: Weights) -> list[np.ndarray]:
    """Views of the kernels as (positions, input units, outputs)."""
    return [
        kernel.reshape(positions, -1, kernel.shape[-1])
        for kernel, positions in zip(weights[::2], POSITIONS, strict=True)
    ]
