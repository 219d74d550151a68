# SPDX-License-Identifier: Apache-2.0
"""Benchmark rows as a table for people, and tables no wider than the console."""

from collections.abc import Iterable, Iterator

from rich.console import Console
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


# Headings of columns that a narrow console does without, the least telling first. The
# JSON lines beside every table have all figures.
_DISPENSABLE = (
    "ours / (file + activations)",
    *("% of stores", "% of bandw.", "dense-equiv.", "payload", "GFLOP/s done"),
    *("packing s", "LiteRT ms", "packed layers ms", "ratio / MACs"),
    *("memory", "file", "ratio's limit", "% of peak", "isa", "p10..p90", "shapes"),
    *(
        "activations MB",
        "ours MB",
        "GFLOP/s",
        "output",
        "ms each",
        "resident MB",
        "load ms",
    ),
    *("threads", "ours vs best other", "structure"),
)
_UNLIMITED = Console(width=10_000)


def print_table(console: Console, table: Table) -> None:
    """Prints a table, without its less telling columns where it would not fit.

    Args:
        console: Where to; its width is the terminal's, what COLUMNS says, or 80.
        table: The table; it loses what does not fit.
    """
    for heading in _DISPENSABLE:
        if _UNLIMITED.measure(table).maximum <= console.width:
            break
        table.columns = [c for c in table.columns if c.header != heading]
    console.print(table)
