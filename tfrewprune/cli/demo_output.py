# SPDX-License-Identifier: Apache-2.0
"""What `tfrewprune demo` shows while it runs and when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from tfrewprune.cli import output

if TYPE_CHECKING:
    from tfrewprune.demo import DemoResult


class DemoDisplay:
    """Stages and epochs on standard error, the result on standard output.

    Args:
        out: Where the result goes.
    """

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._progress = output.console(sys.stderr)
        self._start = time.perf_counter()

    def stage(self, name: str) -> None:
        seconds = time.perf_counter() - self._start
        self._progress.print(f"[dim]{seconds:5.0f} s[/dim]  {name}", highlight=False)

    def epoch(
        self, phase: str, number: int, total: int, logs: Mapping[str, float]
    ) -> None:
        if number != total:
            return
        figures = [f"validation accuracy {logs['val_accuracy']:.2%}"]
        if "sparsity" in logs:
            figures.append(f"sparsity {logs['sparsity']:.1%}")
        seconds = time.perf_counter() - self._start
        self._progress.print(
            f"[dim]{seconds:5.0f} s[/dim]    {phase}: {', '.join(figures)}",
            highlight=False,
        )

    def show(self, result: DemoResult, folder: str) -> None:
        """Prints the one table and where the files are."""
        heads, rows = result.rows()
        table = output.table(
            "Handwritten digits, dense and pruned",
            "",
            *(f">{row[0]}" for row in rows),
            caption=f"{result.mac_rate:.1f}x fewer multiplications and "
            f"{result.weight_rate:.1f}x fewer weights; one digit of the "
            f"{result.test_examples} test digits is {1 / result.test_examples:.2%}",
        )
        for cells in zip(heads[1:], *(row[1:] for row in rows), strict=True):
            table.add_row(*cells)
        console = output.console(self._out)
        console.print(table)
        console.print(
            f"{folder}/report.html has the pictures; dense.tflite, packed.tflite and "
            f"demo.json are beside it. {result.seconds:.0f} s.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
