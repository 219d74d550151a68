# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune recipes`: published settings by name."""

import argparse
import sys
from typing import IO, TYPE_CHECKING

from tfrewprune.cli.arguments import add_json_argument

if TYPE_CHECKING:
    from tfrewprune.recipes import NamedRecipe

HELP = "list published pruning recipes, or print one as JSON"
DESCRIPTION = """\
Without NAME: a table of the recipes. With NAME: the recipe as JSON on standard output,
which Recipe.from_json() reads, and on standard error where its constants come from.
With --json the JSON alone; without NAME, of all recipes and their constants' origins.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="one of the recipes")
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    from tfrewprune import recipes
    from tfrewprune.cli.output import print_json

    if arguments.name is not None:
        named = recipes.describe(arguments.name)
        sys.stdout.write(named.recipe.to_json())
        if not arguments.json:
            _print_origins(named, sys.stderr)
        return
    all_named = {name: recipes.describe(name) for name in recipes.names()}
    if arguments.json:
        documents = [
            {
                "name": name,
                "title": named.title,
                "arxiv": named.arxiv,
                "origins": named.origins,
                "later": named.later,
                "recipe": named.recipe.get_config(),
            }
            for name, named in all_named.items()
        ]
        print_json({"recipes": documents}, sys.stdout)
    else:
        _print_table(all_named, sys.stdout)


def _print_table(all_named: "dict[str, NamedRecipe]", out: IO[str]) -> None:
    from tfrewprune.cli import output

    console = output.console(out)
    columns = (
        output.Column("recipe"),
        output.Column("structure"),
        output.Column("method", 1),
        output.Column(">rate", 2),
        output.Column("arXiv"),
    )
    cells = [
        (
            name,
            " + ".join(
                dict.fromkeys(str(s.rules[0].structure) for s in named.recipe.steps)
            ),
            type(named.recipe.method).__name__,
            "open" if named.rate is None else f"{named.rate:g}x",
            named.arxiv or "our own",
        )
        for name, named in all_named.items()
    ]
    console.print(output.fitted_table(None, columns, cells, console.width))


def _print_origins(named: "NamedRecipe", out: IO[str]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from tfrewprune.cli import output

    console = output.console(out)
    console.print(Text(f"{named.title} ({named.source})"))
    for constant, origin in named.origins.items():
        note = Text.assemble((constant, "bold"), f": {origin}")
        console.print(Padding(note, (0, 0, 0, 2)))
    if named.later is not None:
        note = Text.assemble(("left out", "bold"), f": {named.later}.")
        console.print(Padding(note, (0, 0, 0, 2)))
