# SPDX-License-Identifier: Apache-2.0
"""Predicts how long a layer takes, dense and packed.

The only place that knows coefficients; they come from ``cost.json`` beside it, one set
for each kind of processor, fitted from benchmark data or derived where nobody measured.
All predictions are for one thread and meant for comparing ways to run one layer with
each other, not as absolute times.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from tfrewprune.payload.cost_targets import PORTABLE, this_target

# Fully connected layers run from this batch on like convolutions.
VECTOR_BATCH = 4
# A column of a band takes at least as long as R = 16 rows do at so many positions: a
# chain of FMAs waits for each of them, and the place of its input has to be found.
FEW_PIXELS = 7
# Rearranging the input of patches, 4 x 4 positions and more, goes through many short
# pieces of 16 channels each: so many times as long.
PATCH, PATCHES = 16, 3


@dataclass(frozen=True)
class LayerShape:
    """What the cost of a layer depends on besides its weights.

    Attributes:
        rows: Output channels O.
        columns: Columns K of the weight matrix.
        pixels: Output positions (batch x height x width; batch rows when fully
            connected).
        taps: Kernel height x kernel width; 1 when fully connected.
        input_pixels: Input positions where they are more than the output's (strides);
            0 if they are not.
        gap: Zeros that dilation adds to a row of the image, over its output positions.
    """

    rows: int
    columns: int
    pixels: int
    taps: int = 1
    input_pixels: int = 0
    gap: float = 0

    @property
    def channels(self) -> int:
        """Input channels I."""
        return self.columns // self.taps

    @property
    def moved(self) -> int:
        """Values to rearrange for a packed layer; more where they lie badly."""
        if self.input_pixels < PATCH * self.pixels:
            return self.channels * max(self.pixels, self.input_pixels)
        return PATCHES * max(16, self.channels) * self.input_pixels


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
        scatter: A band that is not R neighbouring rows, at one output position.
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
    packed = 2 call + pixels * (band[R] * B + band[4] / 4 * rows without band
                                + column[R] * N + scatter * scattered bands)
             + channel[R] * values to rearrange + uncached_byte * uncached bytes
    irregular = 2 call + vectors of 16 pixels * (weight * kept + segment * segments
                  + channel * O) + channel * values to rearrange / 16
                + uncached_byte * uncached bytes

    With one output position a packed call is one `call`; with several a column takes at
    least what `FEW_PIXELS` of them take.

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
            scattered: Bands that are not `band_rows` neighbouring rows.
        """
        cost = self.many if shape.pixels > 1 else self.single
        bare_rows = max(0, shape.rows - bands * band_rows)
        per_pixel = cost.band[band_rows] * bands + cost.band[4] / 4 * bare_rows
        per_pixel += cost.scatter * scattered
        column = shape.pixels * cost.column[band_rows]
        if shape.pixels > 1:
            column = max(column, FEW_PIXELS * cost.column[16])
        uncached = max(0, columns * (band_rows * 4 + 2) - self.cache_bytes)
        return (
            self._packed_call(shape)
            + shape.pixels * per_pixel
            + column * columns
            + cost.channel[band_rows] * shape.moved
            + cost.uncached_byte * uncached
        )

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
        memory += self._packed_call(shape) - self.call
        vectors = -(-round(shape.pixels * (1 + shape.gap)) // 16)
        per_vector = cost.weight * weights + cost.segment * segments
        per_vector += cost.channel * shape.rows
        return memory + vectors * per_vector + cost.channel * shape.moved / 16

    def _packed_call(self, shape: LayerShape) -> float:
        """A call that goes through tables of positions takes twice as long."""
        return self.call * (2 if shape.pixels > 1 else 1)


@dataclass(frozen=True)
class WorstCost:
    """A choice that has to hold on several processors.

    A packed layer counts as slow, beside the dense one, as it is on the processor where
    packing gains least. Times are those of the first one.

    Attributes:
        models: Their cost models.
    """

    models: tuple[CostModel, ...]

    @property
    def irregular_cost(self) -> IrregularCost | None:
        """None leaves layers without bands out, see `CostModel`."""
        return self.models[0].irregular_cost

    def dense(self, shape: LayerShape, dynamic_range: bool = False) -> float:
        """As `CostModel.dense`."""
        return self.models[0].dense(shape, dynamic_range)

    def packed(
        self,
        shape: LayerShape,
        band_rows: int,
        bands: int,
        columns: int,
        scattered: int,
    ) -> float:
        """As `CostModel.packed`."""
        counts = (band_rows, bands, columns, scattered)
        return self._worst(shape, lambda model: model.packed(shape, *counts))

    def irregular(self, shape: LayerShape, weights: int, segments: int) -> float:
        """As `CostModel.irregular`."""
        return self._worst(
            shape, lambda model: model.irregular(shape, weights, segments)
        )

    def _worst(self, shape: LayerShape, packed: Callable[[CostModel], float]) -> float:
        return self.dense(shape) * max(
            packed(model) / model.dense(shape) for model in self.models
        )


AnyCost: TypeAlias = CostModel | WorstCost


def targets() -> tuple[str, ...]:
    """Returns the targets that `cost_model` knows."""
    return (*_entries(), PORTABLE)


def cost_model(target: str | None = None) -> AnyCost:
    """Returns the cost model of a kind of processor.

    Args:
        target: One of `targets()`; None is this machine, or what the environment
            variable `TFREWPRUNE_TARGET` names.

    Raises:
        ValueError: If there is no such target.

    Example:
        >>> shape = LayerShape(64, 9 * 64, 28 * 28, taps=9)
        >>> cost_model("arm-small").dense(shape) > cost_model("arm-big").dense(shape)
        True
    """
    return _cost_model(target or this_target())


def default_cost_model() -> AnyCost:
    """Returns the cost model of this machine."""
    return cost_model()


@cache
def _entries() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("cost.json").read_text())


@cache
def _cost_model(target: str) -> AnyCost:
    entries = _entries()
    if target == PORTABLE:
        phones = [name for name in entries if name.startswith("arm-")]
        return WorstCost(tuple(_read(entries[name]) for name in phones))
    if target not in entries:
        raise ValueError(
            f"Invalid target. Expected one of {', '.join(targets())}. "
            f"Received: {target!r}"
        )
    return _read(entries[target])


def _read(fields: dict[str, Any]) -> CostModel:
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
