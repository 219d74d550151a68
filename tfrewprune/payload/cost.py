# SPDX-License-Identifier: Apache-2.0
"""Predicts how long a layer takes, dense and packed.

The only place that knows coefficients; they come from ``cost.json`` beside it, fitted
from benchmark data. All predictions are for one thread and meant for comparing ways
to run one layer with each other, not as absolute times.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
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

    @property
    def channels(self) -> int:
        """Input channels I."""
        return self.columns // self.taps


@dataclass(frozen=True)
class DenseCost:
    """Microseconds of a dense layer.

    Attributes:
        weight: Touching a weight once in a call.
        mac: A multiply-add, with more than one output position.
        channel: An input or output channel of one of several output positions.
        uncached_byte: A byte of weights beyond the cache.
    """

    weight: float
    mac: float
    channel: float
    uncached_byte: float

    def times(self, factors: DenseCost) -> DenseCost:
        """Returns each coefficient times its factor."""
        pairs = zip(astuple(self), astuple(factors), strict=True)
        return DenseCost(*(cost * factor for cost, factor in pairs))


# Dynamic-range layers against float ones: int8 products of four at once, and rounding
# of the activations. XNNPACK with VNNI, as measured on Zen 4.
_DYNAMIC_RANGE = DenseCost(weight=0.28, mac=0.22, channel=6.0, uncached_byte=1.6)


@dataclass(frozen=True)
class PackedCost:
    """Microseconds of a packed layer.

    Attributes:
        band: A band of R rows at one output position, by R.
        column: A column of such a band at one output position, by R.
        channel: An input channel at one output position, by R: narrow bands rearrange
            their input.
        scatter: A band whose rows are not neighbours, at one output position.
        uncached_byte: A byte of weights beyond the cache.
    """

    band: dict[int, float]
    column: dict[int, float]
    channel: dict[int, float]
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

    dense = call + O * K * (weight + mac * pixels) + channel * (I + O) * pixels
            + uncached_byte * uncached bytes
    packed = call + pixels * (band[R] * B + column[R] * N + channel[R] * I
                              + scatter * scattered bands)
             + uncached_byte * uncached bytes
    irregular = call + vectors of 16 pixels * (weight * kept + segment * segments
                + channel * (I + O)) + uncached_byte * uncached bytes

    Attributes:
        call: A call of either operator.
        cache_bytes: Weights up to this size stay in the cache from call to call.
        dense_cost: Coefficients of dense layers.
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

    def dense(self, shape: LayerShape, dynamic_range: bool = False) -> float:
        """Returns the predicted microseconds of the dense layer.

        Args:
            shape: Size of the layer.
            dynamic_range: Whether it has int8 weights, and LiteRT rounds activations to
                int8 as well.
        """
        weights = shape.rows * shape.columns
        cost = self.dense_cost
        if dynamic_range:
            cost = cost.times(_DYNAMIC_RANGE)
        weight_bytes = 1 if dynamic_range else 4
        uncached = max(0, weight_bytes * weights - self.cache_bytes)
        time = self.call + weights * cost.weight + cost.uncached_byte * uncached
        if shape.pixels == 1:
            return time
        moved = shape.channels + shape.rows
        return time + shape.pixels * (cost.mac * weights + cost.channel * moved)

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
        per_pixel += cost.channel[band_rows] * shape.channels
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
        moved = shape.channels + shape.rows
        per_vector = cost.weight * weights + cost.segment * segments
        return memory + vectors * (per_vector + cost.channel * moved)


@cache
def default_cost_model() -> CostModel:
    """Returns the cost model of ``cost.json``."""
    fields = json.loads(Path(__file__).with_name("cost.json").read_text())

    def packed_cost(name: str) -> PackedCost:
        given = dict(fields[name])
        for key in ("band", "column", "channel"):
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
