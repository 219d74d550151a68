# SPDX-License-Identifier: Apache-2.0
"""Puts a report's words and pictures into one HTML file."""

import os
from importlib import resources
from pathlib import Path

from tfrewprune.converter.files import write_atomically
from tfrewprune.report.content import Layer, Report


def render_report(report: Report) -> str:
    """Renders a report as HTML that needs no other file and no network.

    Args:
        report: The content.

    Returns:
        The page.

    Raises:
        ModuleNotFoundError: If Jinja2 or matplotlib is missing; `pip install
            tfrewprune[report]` brings them.
    """
    from jinja2 import Environment, StrictUndefined

    from tfrewprune.report import pictures

    template = resources.files("tfrewprune.report").joinpath("template.html.j2")
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    drawn = {
        width: _pictures(report, width) for width in (pictures.WIDE, pictures.NARROW)
    }
    return environment.from_string(template.read_text("utf-8")).render(
        report=report,
        pictures=drawn[pictures.WIDE],
        narrow=drawn[pictures.NARROW],
        pruned=_pruned(report),
    )


def _pruned(report: Report) -> list[Layer]:
    return [layer for layer in report.layers if layer.survivors is not None]


def _pictures(report: Report, width: float) -> dict[str, str]:
    """Name to data URI; what was not measured has no picture."""
    from tfrewprune.report import pictures

    timed = [layer for layer in report.layers if layer.speed_up is not None]
    drawn = {
        "latency": pictures.latency_bars(report.latency, width),
        "layers": pictures.layer_bars(report.layers, width),
    }
    for number, layer in enumerate(_pruned(report)):
        drawn[f"survivors {number}"] = pictures.survivors(layer, width)
    if timed:
        drawn["speed"] = pictures.layer_speed(timed, width)
    if report.accuracy:
        drawn["accuracy"] = pictures.accuracy_curves(
            report.accuracy, report.phases, width
        )
    if report.sparsity is not None:
        drawn["sparsity"] = pictures.sparsity_curve(
            report.sparsity, report.phases, width
        )
    return drawn


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Renders a report into a file, which appears whole or not at all."""
    write_atomically(Path(path), render_report(report).encode("utf-8"))
