# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune convert`: pack the pruned layers of a model."""

import argparse

from tfrewprune.cli.arguments import add_json_argument, positive_number

HELP = "pack the pruned layers of a model into a .tflite"
DESCRIPTION = """\
Reads a .tflite, a .keras file or a SavedModel folder, packs every layer whose zeros
make it faster, checks that the packed model computes the same as the dense one, and
writes OUT. Layers that stay dense are listed with the reason.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="IN", help=".tflite or .keras file, or SavedModel folder"
    )
    parser.add_argument("target", metavar="OUT", help=".tflite file to write")
    parser.add_argument(
        "--tolerance",
        type=positive_number,
        help="largest difference of outputs over the largest output",
    )
    parser.add_argument(
        "--pack-all",
        action="store_true",
        help="pack every layer that can be packed, even where dense is faster",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="do not run both models to compare their outputs",
    )
    add_json_argument(parser)
