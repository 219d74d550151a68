# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune plan`: what pruning a Keras model would gain."""

import argparse
from collections import Counter
from typing import IO, Any

from tfrewprune.cli.arguments import add_json_argument, add_structure_argument

HELP = "predict what pruning a Keras model would gain, before training"
DESCRIPTION = """\
Lists every layer of a Keras model that has a weight matrix: whether it can be pruned
and packed, its share of the predicted time, and how many times faster it would be at
2, 4 and 8 times fewer weights. On wide terminals also the finest structure that is
nearly as fast as the fastest (map_by_rule). Layers that compress() leaves dense carry
the reason. Predictions come from the converter's cost model, for one thread and a batch
of one.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=".keras file, trained or not")
    add_structure_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    show_plan(arguments.model, arguments.structure, as_json=arguments.json)


def show_plan(model: str, structure: Any, as_json: bool) -> None:
    """Prints the plan of a Keras file.

    Args:
        model: Its path.
        structure: What would be removed together; None for the default.
        as_json: Print a JSON document instead of a table.
    """
    from tfrewprune.cli.output import print_json, reserved_stdout, start_keras

    start_keras()
    from tfrewprune.planning import RATES, plan, total_gain

    with reserved_stdout() as out:
        rows = plan(model, structure)
        if as_json:
            document = {
                "model": model,
                "gains": {rate: total_gain(rows, rate) for rate in RATES},
                "layers": [row.to_dict() for row in rows],
            }
            print_json(document, out)
        else:
            _print_table(model, rows, out)


def _print_table(model: str, rows: list, out: IO[str]) -> None:
    from tfrewprune.cli import output
    from tfrewprune.cli.footnotes import Footnotes
    from tfrewprune.planning import RATES, total_gain

    console = output.console(out)
    columns = (
        output.Column("layer"),
        output.Column("kind", 2),
        output.Column("shape", 1),
        output.Column(">weights", 3),
        output.Column(">share of\ntime"),
        *(output.Column(f">gain\nat {rate}x") for rate in RATES),
        output.Column("finest", 4),
        output.Column("by default"),
    )
    notes = Footnotes()
    cells = [
        (
            row.layer,
            row.kind,
            "x".join(map(str, row.shape)),
            f"{row.weights:,}",
            "-" if row.share is None else f"{row.share:.1%}",
            *(f"{row.gains[rate]:.1f}x" if row.gains else "-" for rate in RATES),
            row.finest or "-",
            notes.mark("left dense", row.left_dense) if row.left_dense else "pruned",
        )
        for row in rows
        if row.shape
    ]
    if cells:
        console.print(output.fitted_table(model, columns, cells, console.width))
    others = Counter((row.kind, row.left_dense) for row in rows if not row.shape)
    if others:
        kinds = [
            notes.mark(f"{count} {kind}", reason)
            for (kind, reason), count in others.most_common()
        ]
        console.print(f"Also: {', '.join(kinds)}.", highlight=False)
    notes.print(console)
    gains = {rate: total_gain(rows, rate) for rate in RATES}
    if None in gains.values():
        console.print(
            "No layer's time can be predicted: build the model for inputs of a fixed "
            "size.",
            highlight=False,
        )
        return
    told = ", ".join(f"{gain:.1f}x at {rate}x" for rate, gain in gains.items())
    console.print(
        f"These layers together: {told} fewer weights (predicted, one thread). What "
        "LiteRT runs besides, depthwise convolutions and pooling for instance, stays "
        "as it is.",
        highlight=False,
    )
