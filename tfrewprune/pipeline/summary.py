# SPDX-License-Identifier: Apache-2.0
"""What was kept of each layer of a Keras model, what was left dense and why."""

from __future__ import annotations

import math

import keras
import numpy as np

from tfrewprune.rows import LayerRow
from tfrewprune.structures import Unstructured
from tfrewprune.wrappers.targets import Target, all_kernels


def sparsity_summary(
    model: keras.Model, targets: list[Target] | None = None
) -> list[LayerRow]:
    """Figures of every layer with weights.

    Args:
        model: Any Keras model, before, during or after pruning. After `strip` it shows
            the zeros that are there.
        targets: What a recipe made of the model, to carry its reasons.

    Returns:
        A list of `LayerRow`s in the order of the model.
    """
    targets = all_kernels(model) if targets is None else targets
    return [layer_row(target) for target in targets]


def layer_row(target: Target, note: str | None = None) -> LayerRow:
    """Figures of one target."""
    kind = type(target.layer).__name__
    if target.spec is None:
        return LayerRow(target.path, kind, None, (), reason=target.reason)
    kernel, shape = target.values(), target.shape
    structure = target.structure if target.reason is None else None
    kept = int(np.count_nonzero(kernel))
    groups = groups_kept = 0
    if structure is not None:
        groups = structure.group_count(shape)
        survivors = structure.surviving_groups(kernel)
        mask = target.mask
        if mask is not None and mask.groups is not None:
            if mask.structure == structure:
                kept = structure.kept(survivors, shape)
            elif mask.structure == Unstructured():  # of several structures' zeros
                kept = int(mask.groups.sum())
        groups_kept = int(survivors.sum())
    return LayerRow(
        layer=target.label,
        kind=kind,
        structure=structure,
        shape=target.extent,
        weights=shape.weights,
        kept=kept,
        groups=groups,
        groups_kept=groups_kept,
        reason=target.reason,
        note=note,
    )


def model_rate(model: keras.Model, rows: list[LayerRow]) -> float:
    """Dense / kept weights over all weights of the model, whatever holds them.

    Biases, normalizations, embeddings and recurrent matrices count too: they are in the
    file and in memory like the others.
    """
    weights = sum(math.prod(variable.shape) for variable in model.weights)
    removed = sum(row.weights - row.kept for row in rows if row.reason is None)
    return weights / (weights - removed) if weights > removed else float("inf")
