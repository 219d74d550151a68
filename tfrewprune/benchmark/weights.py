# SPDX-License-Identifier: Apache-2.0
"""Random weights pruned to a rate with the structures a benchmark row can name."""

import re

import numpy as np

from tfrewprune.benchmark.layers import Layer
from tfrewprune.structures import (
    Block,
    Channel,
    Column,
    Filter,
    KernelShape,
    Structure,
    Unstructured,
    kernel_from_matrix,
    matrix_from_kernel,
)

_BLOCK = re.compile(r"block(\d+)x(\d+)")
_PATTERN = re.compile(r"pattern(\d+)")
_PLAIN = {
    "unstructured": Unstructured,
    "filter": Filter,
    "channel": Channel,
    "column": Column,
}
_PATTERN_TAPS = 4
_PATTERN_LIBRARY = 8


def pruned_weights(
    layer: Layer, structure: str, rate: float, seed: int = 0
) -> np.ndarray:
    """Draws normal weights and prunes them by magnitude.

    Args:
        layer: The layer's geometry.
        structure: `block16x1` (any block), `unstructured`, `filter`, `channel`,
            `column`, or `pattern16`: in every kernel 4 of the 9 taps survive, the same
            ones for 16 filters, and whole kernels go (connectivity) until the rate is
            met. `pattern1` chooses the taps for every kernel by itself.
        rate: Weights / surviving weights, at least 1.
        seed: Seed of the weights.

    Returns:
        GEMM matrix `[outputs, columns]`, float32, scaled so that outputs are near 1.

    Raises:
        ValueError: If the structure is unknown or cannot reach the rate.
    """
    if not rate >= 1:
        raise ValueError(f"A pruning rate must be at least 1. Received: {rate}")
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((layer.outputs, layer.columns), np.float32)
    if pattern := _PATTERN.fullmatch(structure):
        weights = _prune_to_patterns(layer, weights, int(pattern[1]), rate, generator)
    else:
        positions = max(1, layer.kernel[0] * layer.kernel[1])
        shape = KernelShape(positions, layer.inputs, layer.outputs)
        cut = _structure(structure)
        keep = max(shape.weights / rate, int(cut.group_sizes(shape).max()))
        pruned = cut.project(kernel_from_matrix(weights, positions), keep)
        weights = matrix_from_kernel(pruned)
    scale = np.sqrt(max(1.0, layer.columns / rate))
    return np.ascontiguousarray(weights / np.float32(scale), np.float32)


def _structure(name: str) -> Structure:
    if block := _BLOCK.fullmatch(name):
        return Block(int(block[1]), int(block[2]))
    if name in _PLAIN:
        return _PLAIN[name]()
    raise ValueError(
        "Invalid structure. Expected `block<rows>x<columns>`, `pattern<filters>` or "
        f"one of {sorted(_PLAIN)}. Received: {name!r}"
    )


def _prune_to_patterns(
    layer: Layer,
    weights: np.ndarray,
    filters: int,
    rate: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """4-of-9 patterns and connectivity, shared by `filters` neighbouring filters."""
    taps = layer.kernel[0] * layer.kernel[1]
    keep_kernels = taps / (_PATTERN_TAPS * rate)
    if taps != 9 or keep_kernels > 1:
        raise ValueError(
            f"4-of-9 patterns need a 3x3 kernel and a rate of at least 2.25. Received: "
            f"layer {layer.name} of kernel {layer.kernel} and rate {rate}"
        )
    # Patterns of the papers always hold the centre tap.
    others = np.delete(np.arange(9), 4)
    library = np.zeros((_PATTERN_LIBRARY, 9), np.float32)
    for row in library:
        row[generator.choice(others, _PATTERN_TAPS - 1, replace=False)] = 1
        row[4] = 1
    bands = -(-layer.outputs // filters)
    padded = np.zeros((bands * filters, 9, layer.inputs), np.float32)
    padded[: layer.outputs] = weights.reshape(layer.outputs, 9, layer.inputs)
    energy = np.square(padded).reshape(bands, filters, 9, layer.inputs).sum(axis=1)
    scores = np.einsum("bti,pt->bpi", energy, library)
    mask = library[scores.argmax(axis=1)].transpose(0, 2, 1)  # bands, taps, inputs
    strength = scores.max(axis=1)
    kept = max(1, round(strength.size * keep_kernels))
    threshold = np.partition(strength.ravel(), -kept)[-kept]
    mask = mask * (strength >= threshold)[:, None, :]
    pruned = padded * np.repeat(mask, filters, axis=0)
    return pruned[: layer.outputs].reshape(weights.shape)
