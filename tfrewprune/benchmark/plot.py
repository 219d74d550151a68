# SPDX-License-Identifier: Apache-2.0
"""Draws the speed-up over the pruning rate, with the ideal line."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable

from tfrewprune.benchmark.harness import Row


def plot_speed_up(rows: Iterable[Row], path: str | os.PathLike[str]) -> None:
    """Draws one line a layer: times faster than dense, over the pruning rate.

    Only Block(16, 1) rows on one thread of the lists that were measured at several
    rates are drawn. The thick grey line is speed-up = rate.

    Args:
        rows: Measured layers.
        path: `.svg`, `.png` or `.pdf` file to write.

    Raises:
        ImportError: If matplotlib is missing; it comes with `pip install
            tfrewprune[report]`.
        ValueError: If no layer was measured at two rates.
    """
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, dict[float, Row]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in rows:
        if row.structure == "block16x1" and row.threads == 1:
            panels[_family(row)][row.layer].setdefault(row.rate, row)
    panels = {
        family: {name: points for name, points in layers.items() if len(points) > 1}
        for family, layers in panels.items()
    }
    panels = {family: layers for family, layers in panels.items() if layers}
    if not panels:
        raise ValueError("No layer was measured at two rates on one thread.")
    columns = min(len(panels), 2)
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(6.2 * columns, 4.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (family, layers) in zip(axes, panels.items(), strict=False):
        rates = sorted({rate for points in layers.values() for rate in points})
        axis.plot(rates, rates, color="0.75", linewidth=5, label="ideal", zorder=0)
        for name, points in layers.items():
            xs = sorted(points)
            ys = [points[x].ratio for x in xs]
            low = [points[x].ratio - points[x].ratio_p10 for x in xs]
            high = [points[x].ratio_p90 - points[x].ratio for x in xs]
            axis.errorbar(
                xs, ys, [low, high], marker="o", markersize=4, capsize=2, label=name
            )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_xticks(rates, [f"{rate:g}x" for rate in rates])
        axis.set_yticks(rates, [f"{rate:g}x" for rate in rates])
        axis.minorticks_off()
        axis.set_title(family)
        axis.set_xlabel("weights / surviving weights")
        axis.set_ylabel("times faster than dense")
        axis.grid(color="0.92")
        axis.legend(fontsize=7, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Speed-up over LiteRT's dense XNNPACK, Block(16, 1), one thread")
    figure.savefig(path, dpi=150)


def _family(row: Row) -> str:
    name = row.layer
    for prefix, family in (
        ("conv3x3s2", "3x3, stride 2"),
        ("conv3x3d2", "3x3, dilation 2"),
        ("conv3x3", "3x3"),
        ("conv1x1", "1x1"),
        ("fc", "fully connected, batch 1"),
    ):
        if row.shapes == "goals" and name.startswith(prefix):
            return family
    return row.shapes
