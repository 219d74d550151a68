# SPDX-License-Identifier: Apache-2.0
"""The pictures of a report, as data URIs that a page can hold by itself."""

import base64
import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfrewprune.report.content import Bar, Curve, Layer

INK = "#1c2733"
FAINT = "#8a97a5"
GRID = "#e6eaee"
DENSE = "#b4bfca"
OURS = "#0b7a75"
ACCENT = "#e07a2f"
REMOVED = "#eef1f4"
# Inches. A page scales its pictures, so a phone gets one of its own, with large text.
WIDE, NARROW = 7.6, 3.6

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "svg.fonttype": "path",
    # Equal input gives an equal file.
    "svg.hashsalt": "tfrewprune",
}


def latency_bars(bars: Sequence[Bar], width: float = WIDE) -> str:
    """Horizontal bars of time with their spread; returns a data URI."""
    figure, axis = _figure(width, 0.52 * len(bars) + 0.75)
    positions = np.arange(len(bars))[::-1]
    longest = max(bar.high for bar in bars) * 1e3
    for position, bar in zip(positions, bars, strict=True):
        milliseconds = bar.seconds * 1e3
        axis.barh(
            position, milliseconds, height=0.62, color=OURS if bar.ours else DENSE
        )
        axis.hlines(position, bar.low * 1e3, bar.high * 1e3, color=INK, linewidth=1.2)
        axis.text(
            max(milliseconds, bar.high * 1e3) + 0.012 * longest,
            position,
            f"{milliseconds:.3g} ms",
            va="center",
            fontweight="bold" if bar.ours else "normal",
        )
    axis.set_yticks(positions, [bar.label for bar in bars])
    # Room for the text behind the longest bar, about 0.9 inches.
    axis.set_xlim(0, longest * (1 + 1.2 / width))
    axis.set_xlabel("milliseconds for one inference")
    _bare(axis, grid="x")
    return _svg(figure)


def layer_bars(layers: Sequence[Layer], width: float = WIDE) -> str:
    """For each layer how much survived, as a share of its weights; a data URI."""
    figure, axis = _figure(width, 0.42 * len(layers) + 0.8)
    positions = np.arange(len(layers))[::-1]
    for position, layer in zip(positions, layers, strict=True):
        share = 100 * layer.kept / layer.weights
        axis.barh(position, 100, height=0.62, color=REMOVED)
        axis.barh(
            position, share, height=0.62, color=OURS if layer.structure else DENSE
        )
        text = f"{share:.3g} % kept, {layer.rate:.3g}x" if layer.structure else "dense"
        inside = share > 60
        axis.text(
            share - 1.2 if inside else share + 1.2,
            position,
            text,
            va="center",
            ha="right" if inside else "left",
            color="white" if inside and layer.structure else INK,
        )
    axis.set_yticks(positions, [layer.name for layer in layers])
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of the layer's weights")
    _bare(axis, grid=None)
    return _svg(figure)


def layer_speed(layers: Sequence[Layer], width: float = WIDE) -> str:
    """For each measured layer its speed-up beside its pruning rate; a data URI."""
    figure, axis = _figure(width, 0.62 * len(layers) + 0.95)
    positions = np.arange(len(layers))[::-1]
    for position, layer in zip(positions, layers, strict=True):
        axis.barh(position + 0.19, layer.rate, height=0.34, color=DENSE)
        axis.barh(position - 0.19, layer.speed_up, height=0.34, color=OURS)
        for offset, value in ((0.19, layer.rate), (-0.19, layer.speed_up)):
            axis.text(value, position + offset, f" {value:.3g}x", va="center", size=9)
    longest = max(max(layer.rate, layer.speed_up) for layer in layers)
    axis.set_xlim(0, longest * (1 + 1 / width))
    axis.set_yticks(positions, [layer.name for layer in layers])
    between = "      " if width == WIDE else "\n"
    axis.set_xlabel(
        f"grey: weights removed (rate){between}green: times faster than dense"
    )
    _bare(axis, grid="x")
    return _svg(figure)


def survivors(layer: Layer, width: float = WIDE) -> str:
    """Which groups of a layer survived; a data URI of a small PNG.

    One dot a group: rows are bands of outputs, columns are (kernel position, input
    channel). Wide matrices are folded so that the picture stays readable.
    """
    picture = fold(np.asarray(layer.survivors, bool), 288 if width == WIDE else 120)
    colours = np.array([_rgb(REMOVED), _rgb(OURS), (255, 255, 255)], np.uint8)
    from matplotlib import image

    buffer = io.BytesIO()
    image.imsave(buffer, colours[picture], format="png")
    return _data_uri("image/png", buffer.getvalue())


def fold(mask: np.ndarray, width: int) -> np.ndarray:
    """Folds a boolean matrix that is too wide into strips below each other.

    Args:
        mask: `[bands, columns]`.
        width: Columns of a strip at most.

    Returns:
        uint8 matrix: 0 removed, 1 survived, 2 outside the matrix.
    """
    bands, columns = mask.shape
    strips = -(-columns // width)
    strip_width = -(-columns // strips)
    padded = np.full((bands, strips * strip_width), 2, np.uint8)
    padded[:, :columns] = mask
    parts = np.split(padded, strips, axis=1)
    gap = np.full((1, strip_width), 2, np.uint8)
    lines = [parts[0]]
    for part in parts[1:]:
        lines += [gap, part]
    return np.concatenate(lines)


def accuracy_curves(
    curves: Sequence[Curve],
    phases: Sequence[tuple[str, int, int]],
    width: float = WIDE,
) -> str:
    """Accuracy over epochs, phases shaded; a data URI."""
    figure, axis = _figure(width, 3.3)
    _shade(axis, phases, width)
    for curve, colour in zip(curves, (FAINT, OURS, ACCENT), strict=False):
        epochs = np.arange(len(curve.values)) + curve.start + 1
        axis.plot(
            epochs,
            100 * np.asarray(curve.values),
            color=colour,
            linestyle="--" if curve.dashed else "-",
            linewidth=2,
            label=curve.label,
        )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    lowest = min(np.sort(curve.values)[len(curve.values) // 6] for curve in curves)
    axis.set_ylim(max(0, 100 * lowest - 4), 100.6)
    axis.set_xlabel("epoch")
    axis.set_ylabel("accuracy, %")
    axis.legend(frameon=False, loc="lower right")
    _bare(axis, grid="y")
    return _svg(figure)


def sparsity_curve(
    curve: Curve, phases: Sequence[tuple[str, int, int]], width: float = WIDE
) -> str:
    """Share of empty groups over epochs; a data URI."""
    figure, axis = _figure(width, 2.6)
    _shade(axis, phases, width)
    epochs = np.arange(len(curve.values)) + curve.start + 1
    axis.plot(epochs, 100 * np.asarray(curve.values), color=OURS, linewidth=2)
    axis.set_ylim(0, 102)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch")
    axis.set_ylabel("weights in empty groups, %")
    _bare(axis, grid="y")
    return _svg(figure)


def _shade(axis, phases: Sequence[tuple[str, int, int]], width: float) -> None:
    epochs = phases[-1][2] - phases[0][1] if phases else 0
    for number, (name, first, last) in enumerate(phases):
        if number % 2:
            axis.axvspan(first + 0.5, last + 0.5, color="#f5f7f9", zorder=0)
        axis.text(
            (first + last + 1) / 2,
            1.02,
            # Twelve characters take an inch of the figure, its margins included.
            textwrap.fill(name, max(8, int(12 * width * (last - first) / epochs))),
            transform=axis.get_xaxis_transform(),
            ha="center",
            color=FAINT,
            size=9,
        )
    if phases:
        axis.set_xlim(phases[0][1] + 0.5, phases[-1][2] + 0.5)


def _figure(width: float, height: float):
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axis = figure.subplots()
    return figure, axis


def _bare(axis, grid: str | None) -> None:
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0)
    if grid:
        axis.grid(axis=grid, color=GRID)
    axis.set_axisbelow(True)


def _svg(figure: Figure) -> str:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
