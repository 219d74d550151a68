# SPDX-License-Identifier: Apache-2.0
"""Single weights considered harmful? Structures at equal accuracy on LeNet-5.

"Non-Structured DNN Weight Pruning: Is It Beneficial in Any Platform?" (Ma et al., arXiv
1907.02124) says that what an index costs in bytes, and its irregularity in time, takes
the advantage of single weights away. Here every structure is pruned to some rates by
the same method (gradual, Fisher), as the short rows of
:mod:`tfrewprune.experiments.lenet5` are; the highest rate whose validation accuracy is
still 99.0 % stands for its structure. Of each: bytes of the weights under every
storage scheme of :func:`tfrewprune.accounting` at 8 and at 4 bits a weight, bytes of
the file and milliseconds in LiteRT, packed and dense with the zeros stored. Filters and
columns are a smaller plain network before anything is packed.

The test set is read only by the stage ``measure``. Run ``python -m
tfrewprune.experiments.harmful``; ``--quick`` for a trial of some minutes.
"""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from tfrewprune.converter.files import write_atomically
from tfrewprune.experiments import datasets
from tfrewprune.experiments.lenet5 import LeNet5
from tfrewprune.experiments.rows import Row
from tfrewprune.experiments.runs import RunLog
from tfrewprune.experiments.tables import Summary, summarize

ACCURACY = 0.99
RATES = {
    "single-weights": (150, 220),
    "pattern-and-connectivity": (40, 70),
    "block-16x1": (58, 85),
    "block-4x1": (75, 115),
    "filters-and-columns": (40, 75),
}
ROWS = tuple(
    Row(structure, "gradual-fisher", rate)
    for structure, rates in RATES.items()
    for rate in rates
)
BITS = (8, 4)


class Harmful(LeNet5):
    """The experiment; see the module."""

    name = "harmful"
    title = "Single weights considered harmful? LeNet-5 on MNIST"
    rows = ROWS
    methods = ("dense", *(row.name for row in rows))

    def deployed(
        self, method: str, seed: int, model, data: datasets.ImageData
    ) -> dict[str, Any]:
        import tfrewprune
        from tfrewprune.storage.account import COLUMNS

        found = super().deployed(method, seed, model, data)
        account = tfrewprune.accounting(model)
        return {
            **found,
            "weights_kept": account.kept,
            "storage": {
                str(bits): {name: account.at(bits).total(name) for name in COLUMNS}
                for bits in BITS
            },
        }

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        return []

    def show(self) -> None:
        super().show()
        chosen = at_equal_accuracy(self.log)
        if not chosen:
            return
        Console(width=150).print(build(chosen))
        path = self.log.path.with_suffix(".json")
        document = json.loads(path.read_text(encoding="utf-8"))
        document["at_equal_accuracy"] = chosen
        write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


def at_equal_accuracy(log: RunLog, accuracy: float = ACCURACY) -> list[dict[str, Any]]:
    """Returns the row that stands for each structure, with what it is worth.

    Args:
        log: Records of finished runs.
        accuracy: Least mean validation accuracy over the seeds.

    Returns:
        One dictionary a structure that has such a row: ``structure``, the means of
        :func:`tables.summarize`, and ``storage`` of its first seed: bytes by bits and
        scheme.
    """
    summary, chosen = summarize(log), []
    for structure in RATES:
        good = [
            row
            for row in ROWS
            if row.structure == structure
            and summary.get(row.name, {}).get("validation_accuracy", 0) >= accuracy
        ]
        if not good:
            continue
        name = max(good, key=lambda row: row.rate).name
        record = log.find(method=name, stage="measure") or {}
        storage = record.get("storage", {})
        chosen.append({"structure": structure, **summary[name], "storage": storage})
    return chosen


def build(chosen: list[dict[str, Any]]) -> Table:
    """Returns the table of :func:`at_equal_accuracy`."""
    table = Table(title=f"Highest rate with {ACCURACY:.1%} of validation images right")
    table.add_column("structure", no_wrap=True)
    for column in (
        "rate",
        "test %",
        *(f"best of {bits} bits, bytes" for bits in BITS),
        "file bytes",
        "ms dense",
        "ms ours",
    ):
        table.add_column(column, justify="right")
    for row in chosen:
        if "test_accuracy" not in row:
            continue
        table.add_row(
            row["structure"],
            f"{row['rate']:.1f}x",
            f"{100 * row['test_accuracy']:.2f}",
            *(_smallest(row["storage"][str(bits)]) for bits in BITS),
            f"{row['packed_bytes']:,.0f}",
            f"{row['dense_ms']:.4f}",
            f"{row['packed_ms']:.4f}",
        )
    return table


def _smallest(sizes: dict[str, int | None]) -> str:
    """The best scheme that tells where the weights are, such as `3,100 (block)`."""
    schemes = {k: v for k, v in sizes.items() if v and k not in ("payload", "packed")}
    scheme = min(schemes, key=schemes.get)
    return f"{schemes[scheme]:,} ({scheme})"


if __name__ == "__main__":
    Harmful.main()
