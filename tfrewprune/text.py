# SPDX-License-Identifier: Apache-2.0
"""Text that fits into a line, and tables of it."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence

MINIMUM_WIDTH = 40
# An end of fewer characters tells nothing.
_SHORTEST_PART = 4


def line_width() -> int:
    """Characters of a line: COLUMNS, else the terminal's width, else 80.

    What is not written to a terminal has 80 too, so that a log reads like a screen.
    """
    return max(MINIMUM_WIDTH, shutil.get_terminal_size((80, 24)).columns)


def aligned(
    table: Sequence[Sequence[str]],
    left: int = 1,
    *,
    width: int | None = None,
    least: int = 12,
) -> list[str]:
    """The lines of a table, one a row, with columns two spaces apart.

    Args:
        table: Rows of cells, the head among them. The first column has names of layers,
            which are shortened to the room that the others leave.
        left: How many columns begin at their left; the others are numbers.
        width: Characters of a line; None for `line_width()`.
        least: Characters that names may take whatever the room.

    Example:
        >>> aligned([("layer", "kept"), ("conv", "1,024")])
        ['layer   kept', 'conv   1,024']
    """
    sizes = [max(map(len, column)) for column in zip(*table, strict=True)]
    room = (width or line_width()) - sum(sizes[1:]) - 2 * len(sizes[1:])
    sizes[0] = min(sizes[0], max(least, room))
    names = keep_ends((row[0] for row in table), sizes[0])
    return [
        "  ".join(
            cell.ljust(size) if index < left else cell.rjust(size)
            for index, (cell, size) in enumerate(
                zip((names[name], *cells), sizes, strict=True)
            )
        )
        for name, *cells in table
    ]


def keep_ends(names: Iterable[str], width: int) -> dict[str, str]:
    """Shortens the names of layers in front, where they are alike.

    Names that would then read alike show the part in which they differ as well.

    Args:
        names: Such as the paths of layers.
        width: Characters a name may take, at least 4.

    Returns:
        Name to shortened name.

    Example:
        >>> keep_ends(["net/stage1/block3/conv2"], 14)
        {'net/stage1/block3/conv2': '…/block3/conv2'}
        >>> list(keep_ends(["net/1/block/MatMul", "net/2/block/MatMul"], 12).values())
        ['…et/1…MatMul', '…et/2…MatMul']
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        cut = name if len(name) <= width else "…" + name[len(name) - width + 1 :]
        alike[cut].append(name)
    shortened = {}
    for cut, group in alike.items():
        shortened |= {group[0]: cut} if len(group) == 1 else _told_apart(group, width)
    return shortened


def _told_apart(names: list[str], width: int) -> dict[str, str]:
    """Shortens names with a common end: `…stage1…/conv2`."""
    end = os.path.commonprefix([name[::-1] for name in names])[::-1]
    stems = [name.removesuffix(end) for name in names]
    room = width - 2
    length = width // 3
    while length < room and len({stem[-length:] for stem in stems}) < len(stems):
        length += 1
    if room - length < _SHORTEST_PART:
        length = room
    tail = end[len(end) - (room - length) :]
    return {
        name: f"…{stem[-length:]}…{tail}"
        for name, stem in zip(names, stems, strict=True)
    }
