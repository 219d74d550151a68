# SPDX-License-Identifier: Apache-2.0
"""What subcommands print: rich tables for people, one JSON document for scripts."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfrewprune.text import keep_ends, line_width

_GAP = 2
_SHORTEST_NAME = 16


@contextlib.contextmanager
def reserved_stdout() -> Iterator[IO[str]]:
    """Keeps libraries' chatter out of standard output while the work is done.

    Yields:
        The real standard output; whatever prints meanwhile goes to standard error.
    """
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield out


def start_keras() -> None:
    """Imports Keras and its backend without their chatter."""
    from tfrewprune.converter.mlir import native_output_hidden

    with native_output_hidden():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow

            # Looking for a GPU is what it has most to say about.
            tensorflow.config.list_physical_devices()


def print_json(document: Any, file: IO[str]) -> None:
    """Writes one JSON document; figures that are not finite become null."""
    text = json.dumps(_finite(document), indent=2, allow_nan=False)
    print(text, file=file)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would leave with exit code 1; our `main` knows better.
        raise BrokenPipeError


def console(file: IO[str]) -> Console:
    """A console that colours for a terminal and obeys COLUMNS everywhere."""
    return _Console(file=file, width=line_width())


def table(title: str | None, *columns: str, caption: str | None = None) -> Table:
    """A table whose columns starting with `>` hold figures, aligned right."""
    made = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left")
    return made


class Column(NamedTuple):
    """A column that a narrow console may leave out.

    Attributes:
        head: As for `table`; it may have several lines.
        rank: Columns of high rank go first; those of rank 0 stay.
    """

    head: str
    rank: int = 0


def fitted_table(
    title: str | None,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int,
) -> Table:
    """A table that no line of which is wider than the console.

    Args:
        title: What the table is about.
        columns: The first holds names; they are shortened in front to what is left.
        rows: Cells of all columns.
        width: Of the console.
    """
    widths = [
        max(len(line) for cell in cells for line in cell.split("\n"))
        for cells in zip([c.head.lstrip(">") for c in columns], *rows, strict=True)
    ]
    shown = list(range(len(columns)))
    while True:
        others = sum(widths[i] + _GAP for i in shown[1:])
        least = max(shown[1:], key=lambda i: columns[i].rank)
        shortest = min(widths[0], _SHORTEST_NAME)
        if others + shortest <= width or not columns[least].rank:
            break
        shown.remove(least)
    made = table(title, *(columns[i].head for i in shown))
    for column in made.columns:
        column.no_wrap = True
    names = keep_ends((row[0] for row in rows), max(width - others, _SHORTEST_NAME))
    for row in rows:
        cells = (names[row[0]], *row[1:])
        made.add_row(*(Text(cells[i]) for i in shown))
    return made


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with four digits that count."""
    return f"{seconds * 1e3:.4g}"


def readable_bytes(count: float) -> str:
    """Bytes with a unit a person reads."""
    if count < 10_000:
        return f"{count:.0f} B"
    if count < 10_000_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1e6:.1f} MB"


def times(ratio: float, *, good: float = 1.0) -> Text:
    """`3.21x`, green from `good` on, red below one."""
    style = "bold green" if ratio >= good else "red" if ratio < 1 else ""
    return Text(f"{ratio:.2f}x", style=style)
