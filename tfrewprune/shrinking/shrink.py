# SPDX-License-Identifier: Apache-2.0
"""The public function: the same model without what does nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from tfrewprune.channels.units import Units
from tfrewprune.shrinking.checking import difference, outputs_of, random_inputs
from tfrewprune.shrinking.reading import read
from tfrewprune.shrinking.rebuilding import reached, rebuilt
from tfrewprune.shrinking.result import (
    ShrinkResult,
    ShrinkRow,
    count_weights,
    layer_rows,
)
from tfrewprune.shrinking.selection import select
from tfrewprune.wrappers.cloning import plain_copy
from tfrewprune.wrappers.compilation import compile_arguments, compile_with
from tfrewprune.wrappers.graph import is_functional
from tfrewprune.wrappers.kernels import walk_layers

#: Largest difference of outputs over the largest output, by type of computation.
TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
TOLERANCE_FLOAT32 = 1e-4


def shrink(
    model: keras.Model,
    *,
    keep_shapes: bool = False,
    inputs: Sequence[np.ndarray] | np.ndarray | None = None,
    tolerance: float | None = None,
) -> ShrinkResult:
    """The same model, physically smaller: filters and channels that do nothing go.

    Unused path removal of Ma et al., "ResNet Can Be Pruned 60x" (arXiv 1905.00136), and
    exact. A filter without weights gives a constant, which goes into the biases behind
    it, through normalization, activation, pooling, residual sums and concatenations. A
    channel that nobody reads goes with all that made it. At a residual sum a channel
    goes when it is dead or unread in all branches. Where padding would see a constant,
    which no bias can hold then, one dead channel stays and carries those of the others.

    What is not understood stays with its reason: custom, recurrent and attention
    layers, layers called twice, subclassed models. Models inside are shrunk by
    themselves. The outputs of both models are compared on random inputs.

    Args:
        model: A built Keras model, at any stage of pruning. It is left as it is.
        keep_shapes: Set the weights of dead paths to zero and keep all shapes, for
            structures of neighbouring filters such as `Block(16, 1)`, which removing
            filters would tear apart.
        inputs: What to compare the outputs on; None for random numbers.
        tolerance: Largest difference of outputs over the largest output; by default
            1e-4, more where the model computes in half precision.

    Returns:
        A `ShrinkResult`; its `model` is plain, without objects of this package, and
        compiled like `model`. A layer of your own that its `get_config` does not make
        anew is part of both models. `print` it for what became of each layer.

    Raises:
        ValueError: Inputs that do not fit; a pruned layer that cannot be copied.
        RuntimeError: The smaller model's outputs differ by more than `tolerance`.

    Example:

    >>> result = shrink(compress(model, Recipe(rules, rate=8), x, y).model)
    >>> result.model.save("small.keras")
    """
    if not is_functional(model):
        kind = "not built" if isinstance(model, keras.Sequential) else "subclassed"
        return _as_it_is(model, f"{kind}: no graph tells what it computes")
    way_out = "Call strip(model) first if that layer itself is pruned."
    plain = plain_copy(model, "shrink", way_out, borrow=True)
    smaller, rows = _shrunk(plain, keep_shapes)
    given = random_inputs(plain) if inputs is None else _listed(inputs, plain)
    apart = difference(outputs_of(plain, given), outputs_of(smaller, given))
    if tolerance is None:
        tolerance = max(
            TOLERANCE.get(layer.compute_dtype, TOLERANCE_FLOAT32)
            for _, layer in walk_layers(plain)
        )
    if not apart <= tolerance:
        raise RuntimeError(
            f"shrink: the smaller model's outputs differ by {apart:.2g} of the largest "
            f"output, more than tolerance={tolerance:g}. The model given is unchanged."
        )
    if arguments := compile_arguments(model):
        compile_with(smaller, arguments)
    return ShrinkResult(smaller, rows, apart)


def _shrunk(
    model: keras.Model, keep_shapes: bool
) -> tuple[keras.Model, list[ShrinkRow]]:
    units = Units()
    passages, outputs = read(model, units, bypass=not keep_shapes)
    least = 0 if keep_shapes else 1
    selection = select(passages, outputs, units, least=least)
    left = reached(model, passages)
    models = {
        id(passage.layer): passage.layer
        for passage in passages
        if isinstance(passage.layer, keras.Model) and is_functional(passage.layer)
    }
    shrunk = {key: _shrunk(inner, keep_shapes) for key, inner in models.items()}
    inside = {key: inner for key, (inner, _) in shrunk.items()}
    smaller = rebuilt(model, left, selection, inside, keep_shapes)
    rows = []
    for row in layer_rows(passages, left, selection):
        inner = next((k for k, m in models.items() if m.name == row.layer), None)
        if inner is None:
            rows.append(row)
            continue
        for below in shrunk[inner][1]:
            path = f"{row.layer}/{below.layer}"
            rows.append(dataclasses.replace(below, layer=path))
    return smaller, rows


def _listed(inputs: Sequence[np.ndarray] | np.ndarray, model: keras.Model) -> list:
    given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    wanted = [tuple(tensor.shape) for tensor in model.inputs]
    shapes = [np.shape(array) for array in given]
    fits = len(shapes) == len(wanted) and all(
        len(shape) == len(want)
        and all(w in (None, s) for w, s in zip(want, shape, strict=True))
        for shape, want in zip(shapes, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"shrink: `inputs` must be arrays of shapes {wanted}. Received: {shapes}"
        )
    return given


def _as_it_is(model: keras.Model, reason: str) -> ShrinkResult:
    rows = [
        ShrinkRow(path, type(layer).__name__, 0, 0, count, count, reason)
        for path, layer in walk_layers(model)
        if (count := count_weights(layer))
        and not layer._flatten_layers(include_self=False, recursive=False)
    ]
    return ShrinkResult(model, rows, reason=reason)
