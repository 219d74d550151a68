# SPDX-License-Identifier: Apache-2.0
"""What pruning a layer would gain, told before there are any zeros."""

from __future__ import annotations

from collections.abc import Mapping

from tfrewprune.payload.cost import AnyCost, LayerShape, default_cost_model
from tfrewprune.payload.format import BAND_ROWS
from tfrewprune.payload.irregular import chunk_channels_for


def predicted_gain(
    shape: LayerShape,
    rate: float,
    rows: int = 16,
    cost_model: AnyCost | None = None,
) -> float:
    """Predicts how many times faster than dense a layer runs once it is pruned.

    The zeros are those of `Block(rows, 1)` spread evenly: every run of `rows` rows
    keeps its own 1/rate of the columns. Of all ways to pack them the fastest counts,
    as in `pack_layer`.

    Args:
        shape: Size of the layer.
        rate: Dense weights / kept weights, at least 1.
        rows: Neighbouring rows that keep the same columns, see
            `Structure.rows_alike`.
        cost_model: Predicts times; None is that of this machine.

    Returns:
        Dense time / packed time on one thread; below 1 the layer had better stay dense.

    Raises:
        ValueError: If `rate` or `rows` is below 1.

    Example:
        >>> predicted_gain(LayerShape(128, 9 * 128, 28 * 28, taps=9), rate=8) > 6
        True
    """
    if not rate >= 1 or rows < 1:
        raise ValueError(
            f"`rate` and `rows` must be at least 1. Received: rate={rate}, rows={rows}"
        )
    model = cost_model or default_cost_model()
    times = [_banded(shape, rate, rows, height, model) for height in BAND_ROWS]
    if model.irregular_cost is not None:
        chunks = -(-shape.channels // chunk_channels_for(shape))
        kept = round(shape.rows * shape.columns / rate)
        times.append(model.irregular(shape, kept, shape.rows * chunks))
    return model.dense(shape) / min(times)


def joint_gain(
    runs: Mapping[LayerShape, int],
    rate: float,
    rows: int = 16,
    cost_model: AnyCost | None = None,
) -> float:
    """As `predicted_gain`, of all that one weight matrix is run for.

    The converter decides each call by itself: where packing pays for some sizes, the
    others stay dense.

    Args:
        runs: How often it is run, by size.
        rate: As in `predicted_gain`.
        rows: As in `predicted_gain`.
        cost_model: As in `predicted_gain`.

    Returns:
        Dense time / packed time; 1 for what is never run.
    """
    model = cost_model or default_cost_model()
    gains = {size: predicted_gain(size, rate, rows, model) for size in runs}
    least = 1.0 if max(gains.values(), default=1.0) > 1 else 0.0
    dense = {size: times * model.dense(size) for size, times in runs.items()}
    after = sum(time / max(least, gains[size]) for size, time in dense.items())
    return sum(dense.values()) / after if after else 1.0


def _banded(
    shape: LayerShape, rate: float, rows: int, height: int, model: AnyCost
) -> float:
    """Predicted microseconds in bands of `height` rows."""
    columns = 0.0
    for first in range(0, shape.rows, height):
        last = min(first + height, shape.rows) - 1
        blocks = last // rows - first // rows + 1
        # A band stores a column that any of its blocks keeps.
        columns += shape.columns * (1 - (1 - 1 / rate) ** blocks)
    bands = -(-shape.rows // height)
    return model.packed(shape, height, bands, round(columns), scattered=0)
