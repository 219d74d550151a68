# SPDX-License-Identifier: Apache-2.0
"""Argument types that several subcommands share."""

import argparse
import contextlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfrewprune.structures import Structure

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


def image_size(text: str) -> tuple[int, int]:
    """Height and width, such as `224x224`."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"must be <height>x<width>, such as 224x224, received {text!r}"
        )
    return int(found[1]), int(found[2])


def add_size_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --size."""
    parser.add_argument(
        "--size",
        type=image_size,
        metavar="HxW",
        help="height and width of an image whose size is open, such as 224x224",
    )


def structure(text: str) -> "Structure":
    """A structure such as `block16x1`, `unstructured`, `filter`."""
    from tfrewprune.structures import Block, Structure

    try:
        if block := re.fullmatch(r"block(\d+)x(\d+)", text):
            return Block(int(block[1]), int(block[2]))
        return Structure.get(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be block<rows>x<columns>, {', '.join(_names())}, received {text!r}"
        ) from None


def _names() -> list[str]:
    """Structures that are complete without arguments."""
    from tfrewprune.structures import Structure

    names = []
    for name in Structure.names():
        with contextlib.suppress(ValueError):
            Structure.get(name)
            names.append(name.lower())
    return names


def add_structure_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --structure."""
    parser.add_argument(
        "--structure",
        type=structure,
        default="block16x1",
        help="what would be removed together: block<rows>x<columns>, or a structure "
        "by its name, such as unstructured or filter (default: block16x1)",
    )


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


def add_target_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --target."""
    parser.add_argument(
        "--target",
        dest="processor",  # `convert` calls its output the target
        metavar="CPU",
        help="the kind of processor whose times count: x86-avx512-zen5, "
        "x86-avx512-zen4, x86-avx512-intel, x86-avx2, arm-big, arm-small, or portable "
        "for all phones (default: this machine)",
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --json."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of a table"
    )
