# SPDX-License-Identifier: Apache-2.0
"""A self-contained HTML page about one compressed model."""

from tfrewprune.report.content import Bar, Curve, Figure, Layer, Report
from tfrewprune.report.page import render_report, write_report

__all__ = [
    "Bar",
    "Curve",
    "Figure",
    "Layer",
    "Report",
    "render_report",
    "write_report",
]
