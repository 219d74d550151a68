# SPDX-License-Identifier: Apache-2.0
"""Draws what a model's weights need under every storage scheme."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfrewprune.storage.schemes import SCHEMES

if TYPE_CHECKING:
    from tfrewprune.storage.account import Account


def plot_sizes(
    account: Account, path: str | os.PathLike[str], bits: Sequence[float]
) -> None:
    """Draws a group of bars for each number of bits, over the dense size at 32.

    Args:
        account: The sizes.
        path: `.svg`, `.png` or `.pdf` file to write.
        bits: Of a weight.

    Raises:
        ImportError: If matplotlib is missing; it comes with `pip install
            tfrewprune[report]`.
    """
    from matplotlib.figure import Figure

    schemes = [s for s in ("payload", *SCHEMES) if account.total(s, 8) is not None]
    dense = account.total("dense", 32)
    figure = Figure(figsize=(1.6 + 1.7 * len(bits), 4.2), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(schemes)
    for number, scheme in enumerate(schemes):
        places = [group + number * width - 0.4 for group in range(len(bits))]
        sizes = [100 * account.total(scheme, each) / dense for each in bits]
        colour = "0.75" if scheme == "payload" else None
        label = "weights alone" if scheme == "payload" else scheme
        axis.bar(places, sizes, width, align="edge", label=label, color=colour)
    axis.set_yscale("log")
    axis.set_xticks(range(len(bits)), [f"{each:g} bits" for each in bits])
    axis.set_ylabel("% of the dense float32 weights")
    axis.set_title(f"{account.kept:,} of {account.weights:,} weights, indices counted")
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
