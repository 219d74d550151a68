# SPDX-License-Identifier: Apache-2.0
"""Benchmark rows as a table for people."""

from collections.abc import Iterable, Iterator

from rich.table import Table

from tfrewprune.benchmark.harness import Row


def row_table(rows: Iterable[Row]) -> Table:
    """Makes the table of measured layers, grouped by list of shapes."""
    table = Table(title="Layers: ours beside LiteRT's dense XNNPACK", show_lines=False)
    for name in ("shapes", "layer", "structure"):
        table.add_column(name)
    for name in (
        "rate",
        "threads",
        "isa",
        "dense ms",
        "ours ms",
        "ratio",
        "p10..p90",
        "GFLOP/s done",
        "dense-equiv.",
        "% of peak",
        "% of bandw.",
        "% of stores",
        "payload",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    previous = None
    for row in rows:
        if previous not in (None, row.shapes):
            table.add_section()
        previous = row.shapes
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> Iterator[str]:
    yield row.shapes
    yield row.layer
    yield row.structure
    yield f"{row.rate:g}x"
    yield str(row.threads)
    yield row.isa
    yield f"{row.dense_seconds * 1e3:.4f}"
    yield f"{row.packed_seconds * 1e3:.4f}"
    yield f"{row.ratio:.2f}x"
    yield f"{row.ratio_p10:.2f}..{row.ratio_p90:.2f}"
    yield f"{row.flops_done / 1e9:.0f}"
    yield f"{row.flops_dense / 1e9:.0f}"
    yield _percent(row.share_of_peak)
    yield _percent(row.share_of_bandwidth)
    yield _percent(row.share_of_stores)
    yield f"{row.payload_overhead:.3f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
