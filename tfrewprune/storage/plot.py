# SPDX-License-Identifier: Apache-2.0
"""Draws what a model's weights need under every storage scheme."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence


def plot_sizes(
    shares: Mapping[str, Sequence[float]],
    bits: Sequence[float],
    title: str,
    path: str | os.PathLike[str],
) -> None:
    """Draws a group of bars for each number of bits, one bar a scheme.

    Args:
        shares: By scheme its size at each number of bits, in percent of dense float32.
            `"payload"` is drawn as what no scheme can go below.
        bits: Of a weight.
        title: Of the picture.
        path: `.svg`, `.png` or `.pdf` file to write.

    Raises:
        ImportError: If matplotlib is missing; it comes with `pip install
            tfrewprune[report]`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 1.7 * len(bits), 4.2), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(shares)
    for number, (scheme, sizes) in enumerate(shares.items()):
        places = [group + number * width - 0.4 for group in range(len(bits))]
        colour = "0.75" if scheme == "payload" else None
        label = "weights alone" if scheme == "payload" else scheme
        axis.bar(places, sizes, width, align="edge", label=label, color=colour)
    axis.set_yscale("log")
    axis.set_xticks(range(len(bits)), [f"{each:g} bits" for each in bits])
    axis.set_ylabel("% of the dense float32 weights")
    axis.set_title(title)
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
