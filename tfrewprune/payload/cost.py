# SPDX-License-Identifier: Apache-2.0
"""Predicts how long a layer takes, dense and packed.

The only place that knows coefficients; they come from ``cost.json`` beside it, fitted
from benchmark data. All predictions are for one thread and meant for comparing ways
to run one layer with each other, not as absolute times.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Fully connected layers run from this batch on like convolutions.
VECTOR_BATCH = 4


@dataclass(frozen=True)
class LayerShape:
    """What the cost of a layer depends on besides its weights.

    Attributes:
        rows: Output channels O.
        columns: Columns K of the weight matrix.
        pixels: Output positions (batch x height x width; batch rows when fully
            connected).
        taps: Kernel height x kernel width; 1 when fully connected.
    """

    rows: int
    columns: int
    pixels: int
    taps: int = 1


@dataclass(frozen=True)
class DenseCost:
    """Microseconds of a dense layer.

    Attributes:
        weight: Touching a weight once in a call.
        mac: A multiply-add, with more than one output position.
        uncached_byte: A byte of weights beyond the cache.
    """

    weight: float
    mac: float
    uncached_byte: float


@dataclass(frozen=True)
class PackedCost:
    """Microseconds of a packed layer.

    Attributes:
        band: A band of R rows at one output position, by R.
        column: A column of such a band at one output position, by R.
        scatter: A band whose rows are not neighbours, at one output position.
        uncached_byte: A byte of weights beyond the cache.
    """

    band: dict[int, float]
    column: dict[int, float]
    scatter: float
    uncached_byte: float


@dataclass(frozen=True)
class IrregularCost:
    """Microseconds of a layer packed without bands, which runs 16 pixels at a time.

    Attributes:
        weight: A kept weight at 16 output positions.
        segment: A run of them in one row and one chunk of channels, likewise.
        channel: Rearranging an input or output channel, likewise.
        single_weight: A kept weight at one position of a fully connected layer.
        single_segment: A segment at one position of a fully connected layer.
        uncached_byte: A byte of weights beyond the cache.
    """

    weight: float
    segment: float
    channel: float
    single_weight: float
    single_segment: float
    uncached_byte: float


@dataclass(frozen=True)
class CostModel:
    """Predicts microseconds; linear, so that it can be fitted by least squares.

    dense = call + O * K * (weight + mac * pixels) + uncached_byte * uncached bytes
    packed = call + pixels * (band[R] * B + column[R] * N + scatter * scattered bands)
             + uncached_byte * uncached bytes
    irregular = call + vectors of 16 pixels * (weight * kept + segment * segments
                + channel * (I + O)) + uncached_byte * uncached bytes

    Attributes:
        call: A call of either operator.
        cache_bytes: Weights up to this size stay in the cache from call to call.
        dense: Coefficients of dense layers.
        many: Coefficients of packed layers with several output positions.
        single: The same with one: a matrix times a vector has kernels of its own.
        irregular_cost: Coefficients of layers packed without bands; None leaves that
            way out.
    """

    call: float
    cache_bytes: float
    dense_cost: DenseCost
    many: PackedCost
    single: PackedCost
    irregular_cost: IrregularCost | None = None

    def dense(self, shape: LayerShape) -> float:
        """Returns the predicted microseconds of the dense layer."""
        weights = shape.rows * shape.columns
        cost = self.dense_cost
        work = cost.weight + (cost.mac * shape.pixels if shape.pixels > 1 else 0)
        uncached = max(0, 4 * weights - self.cache_bytes)
        return self.call + weights * work + cost.uncached_byte * uncached

    def packed(
        self,
        shape: LayerShape,
        band_rows: int,
        bands: int,
        columns: int,
        scattered: int,
    ) -> float:
        """Returns the predicted microseconds of the packed layer.

        Args:
            shape: Size of the layer.
            band_rows: Rows of a band.
            bands: Number of bands.
            columns: Columns of all bands together.
            scattered: Bands whose rows are not neighbours.
        """
        cost = self.many if shape.pixels > 1 else self.single
        per_pixel = cost.band[band_rows] * bands + cost.column[band_rows] * columns
        per_pixel += cost.scatter * scattered
        uncached = max(0, columns * (band_rows * 4 + 2) - self.cache_bytes)
        return self.call + shape.pixels * per_pixel + cost.uncached_byte * uncached

    def irregular(self, shape: LayerShape, weights: int, segments: int) -> float:
        """Returns the predicted microseconds of a layer packed without bands.

        Args:
            shape: Size of the layer.
            weights: Kept weights.
            segments: Runs of them in one row and one chunk of channels.
        """
        cost = self.irregular_cost
        stored = weights * 6 + segments * 6
        memory = self.call + cost.uncached_byte * max(0, stored - self.cache_bytes)
        if shape.taps == 1 and shape.pixels < VECTOR_BATCH:
            return memory + shape.pixels * (
                cost.single_weight * weights + cost.single_segment * segments
            )
        vectors = -(-shape.pixels // 16)
        channels = shape.columns // shape.taps + shape.rows
        per_vector = cost.weight * weights + cost.segment * segments
        return memory + vectors * (per_vector + cost.channel * channels)


@cache
def default_cost_model() -> CostModel:
    """Returns the cost model of ``cost.json``."""
    fields = json.loads(Path(__file__).with_name("cost.json").read_text())

    def packed_cost(name: str) -> PackedCost:
        given = dict(fields[name])
        for key in ("band", "column"):
            given[key] = {int(rows): cost for rows, cost in given[key].items()}
        return PackedCost(**given)

    return CostModel(
        fields["call"],
        fields["cache_bytes"],
        DenseCost(**fields["dense"]),
        packed_cost("many"),
        packed_cost("single"),
        IrregularCost(**fields["irregular"]),
    )
