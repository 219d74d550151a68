# SPDX-License-Identifier: Apache-2.0
"""Decides which layers are packed and how; changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from tfrewprune.converter.densify import read_weights, stored_bytes, value_form
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model, tensor_shape
from tfrewprune.converter.layer import Layer
from tfrewprune.converter.options import ConvOptions, RecurrentOptions
from tfrewprune.converter.reasons import SkipReason
from tfrewprune.converter.sums import Sum, find_sums
from tfrewprune.payload.cost import LayerShape, cost_model
from tfrewprune.payload.irregular import IrregularPacking
from tfrewprune.payload.packer import Packing, pack_layer
from tfrewprune.payload.values import (
    FLOAT16,
    FLOAT32,
    INT8,
    PayloadError,
    ValueForm,
    integer_form,
)

# Packings by where their weights are.
Cache: TypeAlias = dict[tuple, Packing | IrregularPacking]


@dataclass(frozen=True)
class Settings:
    """How the plan decides.

    Attributes:
        minimum_gain: A layer is packed when its predicted dense time is at least this
            many times its predicted packed time, and its payload is no larger than its
            weights in the file. 0 packs whatever can be packed.
        band_rows: Rows of a band in every layer; None lets the packer choose.
        weights: `"keep"`: as the file has them, float32, float16 or int8; `"float16"`:
            float32 rounded to float16; `"int8"`: float32 as the integers that they are,
            times a scale, where they are.
        target: The kind of processor whose times count, see `payload.cost.targets`;
            None is this machine's.
    """

    minimum_gain: float = 1.0
    band_rows: int | None = None
    weights: str = "keep"
    target: str | None = None


@dataclass(frozen=True)
class Decision:
    """What happens to one layer.

    Attributes:
        layer: The layer.
        shape: Its weight matrix and output positions; None when it cannot be packed.
        kept: Weights other than 0; None when unknown.
        packing: The packed weights; None when it cannot be packed.
        skip: Why it stays dense; None when it is packed.
        reason: The same as a sentence that tells what was found.
        sum: The sum it takes over; None mostly.
        dense_us: Predicted microseconds of the layer as it was, on one thread; None
            when unknown.
        packed_us: The same of the packed one.
        measured_us: Both as measured here; None where nothing was.
    """

    layer: Layer
    shape: LayerShape | None = None
    kept: int | None = None
    packing: Packing | IrregularPacking | None = None
    skip: SkipReason | None = None
    reason: str | None = None
    sum: Sum | None = None
    dense_us: float | None = None
    packed_us: float | None = None
    measured_us: tuple[float, float] | None = None

    @property
    def packs(self) -> bool:
        return self.packing is not None and self.reason is None


def make_plan(model: Model, settings: Settings) -> list[Decision]:
    """Returns one decision for each operator with weights.

    Raises:
        ConversionError: If weights are damaged or hold NaN or Inf.
    """
    cache: Cache = {}
    return with_sums(
        model, [decide(model, layer, settings, cache) for layer in find_layers(model)]
    )


def with_sums(model: Model, decisions: list[Decision]) -> list[Decision]:
    """Returns decisions with the sums that packed layers take over."""
    sums = find_sums(model, [d.layer for d in decisions if d.packs])
    return [
        replace(d, sum=sums.get((d.layer.subgraph, d.layer.operator)))
        for d in decisions
    ]


def decide(
    model: Model, layer: Layer, settings: Settings, cache: Cache | None = None
) -> Decision:
    """Returns what happens to one layer.

    Args:
        model: The model.
        layer: One of its layers.
        settings: How to decide.
        cache: Packings found so far, to be passed on from layer to layer.

    Raises:
        ConversionError: If weights are damaged or hold NaN or Inf.
    """
    if layer.packed:
        return Decision(layer, reason=layer.reason or "already packed")
    if layer.reason is not None:
        return Decision(layer, skip=layer.skip, reason=layer.reason)
    return _decide(model, layer, settings, {} if cache is None else cache)


def layer_shape(
    model: Model, layer: Layer, weight_shape: tuple[int, ...] | None = None
) -> LayerShape:
    """Returns the size of a layer; unknown dimensions count as stored (mostly 1).

    Args:
        model: The model.
        layer: One of its layers.
        weight_shape: Shape of its weights; None takes it from ``layer``.

    Raises:
        ConversionError: If the file is damaged.
    """
    weight_shape = weight_shape or layer.weight_shape
    subgraph = model.subgraphs[layer.subgraph]
    output = int(subgraph.operators[layer.operator].outputs[0])
    elements = int(np.prod(tensor_shape(subgraph.tensors[output]), dtype=np.int64))
    rows, columns = weight_shape[0], int(np.prod(weight_shape[1:], dtype=np.int64))
    if isinstance(layer.options, RecurrentOptions):
        return LayerShape(rows, columns, _products_at_once(model, layer))
    taps, gap = 1, 0.0
    options = layer.options
    if isinstance(options, ConvOptions):
        taps = options.kernel_height * options.kernel_width
        size = tensor_shape(subgraph.tensors[output])
        if len(size) != 4:
            raise ConversionError(
                f"layer {layer.name!r}: its output must have 4 dimensions, received "
                f"shape {size}"
            )
        reach = (options.kernel_width - 1) * (options.dilation_width - 1)
        gap = reach / max(1, size[2])
    pixels = max(1, elements // rows)
    source = int(subgraph.operators[layer.operator].inputs[0])
    given = int(np.prod(tensor_shape(subgraph.tensors[source]), dtype=np.int64))
    # A tap of each output position at most is read.
    moved = min(given * taps // columns, pixels * taps)
    moved = moved if moved > pixels else 0
    return LayerShape(rows, columns, pixels, taps, moved, gap)


def _products_at_once(model: Model, layer: Layer) -> int:
    """Vectors that a matrix of a packed recurrent layer is multiplied with at once."""
    subgraph = model.subgraphs[layer.subgraph]
    inputs = subgraph.operators[layer.operator].inputs
    batch, steps, _ = tensor_shape(subgraph.tensors[int(inputs[0])])
    return max(1, batch * steps if layer.weight == int(inputs[1]) else batch)


def _decide(
    model: Model,
    layer: Layer,
    settings: Settings,
    cache: Cache,
) -> Decision:
    shape = layer_shape(model, layer)
    costs = cost_model(settings.target)
    tensor = model.subgraphs[layer.subgraph].tensors[layer.source.tensor]
    # Layers that share a constant share its payload, whatever tensor names it.
    private = None if tensor.sparsity is None else (layer.subgraph, layer.source.tensor)
    key = (tensor.buffer, tensor.type, shape.rows, shape.columns, private)
    if key not in cache:
        weights = read_weights(model, tensor).reshape(shape.rows, shape.columns)
        _refuse_non_finite(layer, weights)
        form = value_form(tensor)
        if settings.weights == "float16" and form.dtype == FLOAT32:
            form = ValueForm(FLOAT16)
            weights = _rounded(layer, weights)
        if layer.loop is not None and form.dtype == FLOAT32 and _are_halves(weights):
            # They came from float16: the loop of a foreign layer has them widened.
            form = ValueForm(FLOAT16)
        if settings.weights == "int8" and form.dtype == FLOAT32:
            form = integer_form(weights) or form
        try:
            packing = pack_layer(weights, shape, settings.band_rows, costs, form)
        except PayloadError as error:
            raise ConversionError(f"layer {layer.name!r}: {error}") from error
        cache[key] = packing
    packing = cache[key]
    kept = packing.kept
    dynamic_range = value_form(tensor).dtype == INT8 and not layer.source.decoders
    dense_us = costs.dense(shape, dynamic_range)
    packed_us = packing.predict(shape, costs)
    stored = stored_bytes(model, tensor)
    skip = reason = None
    # A recurrent layer is one operator with or without zeros: 20 operators a step cost
    # more than the products.
    if settings.minimum_gain <= 0 or layer.loop is not None:
        pass
    elif kept == shape.rows * shape.columns:
        skip, reason = SkipReason.NO_ZEROS, "no weight is 0"
    elif packed_us * settings.minimum_gain > dense_us:
        skip = SkipReason.DENSE_IS_FASTER
        reason = (
            f"dense is faster: predicted {dense_us:.3g} us dense, "
            f"{packed_us:.3g} us packed"
        )
    elif packing.payload_bytes > stored:
        skip = SkipReason.PAYLOAD_IS_LARGER
        reason = (
            f"{packing.payload_bytes:,} bytes packed, the file has {stored:,} for its "
            "weights"
        )
    return Decision(
        *(layer, shape, kept, packing, skip, reason),
        dense_us=dense_us,
        packed_us=packed_us,
    )


def _are_halves(weights: np.ndarray) -> bool:
    """Whether float16 holds these weights as they are."""
    with np.errstate(over="ignore"):
        halves = weights.astype(np.float16).astype(np.float32)
    return bool(np.array_equal(halves, weights))


def _rounded(layer: Layer, weights: np.ndarray) -> np.ndarray:
    """Weights rounded to float16."""
    largest = float(np.abs(weights).max())
    if largest > float(np.finfo(np.float16).max):
        raise ConversionError(
            f"layer {layer.name!r}: its largest weight, {largest:.3g}, is beyond "
            'float16; use weights="keep"'
        )
    return weights.astype(np.float16).astype(np.float32)


def _refuse_non_finite(layer: Layer, weights: np.ndarray) -> None:
    finite = np.isfinite(weights)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ConversionError(
            f"layer {layer.name!r}: {finite.size - np.count_nonzero(finite)} of "
            f"{finite.size} weights are NaN or Inf, the first at row {row}, column "
            f"{column} ({weights[row, column]}); expected finite weights"
        )
