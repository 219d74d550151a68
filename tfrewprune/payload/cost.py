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
class CostModel:
    """Coefficients of the prediction, in microseconds.

    packed = call + pixels * (band[R] * bands + column[R] * N + scatter * scattered)
             + weight_byte * bytes
    dense = call + mac * O * K * pixels + weight_byte * 4 * O * K

    Attributes:
        call: A call of either operator.
        mac: One multiply-add of a dense layer.
        weight_byte: Streaming a byte of weights, once per call.
        band: One output pixel of a band of R rows, by R.
        column: One column of such a band at one pixel, by R.
        scatter: One output pixel of a band whose rows are not neighbours.
    """

    call: float
    mac: float
    weight_byte: float
    band: dict[int, float]
    column: dict[int, float]
    scatter: float

    def dense(self, shape: LayerShape) -> float:
        """Returns the predicted microseconds of the dense layer."""
        weights = shape.rows * shape.columns
        return self.call + weights * (self.mac * shape.pixels + self.weight_byte * 4)

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
        per_pixel = self.band[band_rows] * bands + self.column[band_rows] * columns
        per_pixel += self.scatter * scattered
        stored = columns * (band_rows * 4 + 2)
        return self.call + shape.pixels * per_pixel + self.weight_byte * stored


@cache
def default_cost_model() -> CostModel:
    """Returns the cost model of ``cost.json``."""
    fields = json.loads(Path(__file__).with_name("cost.json").read_text())
    by_rows = {
        name: {int(rows): value for rows, value in fields[name].items()}
        for name in ("band", "column")
    }
    scalars = {name: fields[name] for name in ("call", "mac", "weight_byte", "scatter")}
    return CostModel(**scalars, **by_rows)
