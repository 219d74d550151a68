# SPDX-License-Identifier: Apache-2.0
"""Argument types that several subcommands share."""

import argparse

ISAS = ("auto", "avx512", "avx2", "neon", "portable", "reference")


def positive_integer(text: str) -> int:
    """An integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, received {text!r}")
    return value


def positive_number(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number > 0, received {text!r}")
    return value


def add_runtime_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --threads and --isa."""
    parser.add_argument(
        "--threads",
        type=positive_integer,
        default=1,
        help="threads of the dense and of the packed model (default: 1)",
    )
    parser.add_argument(
        "--isa",
        choices=ISAS,
        help="kernels of the packed layers (default: the best of this CPU)",
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --json."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of a table"
    )
