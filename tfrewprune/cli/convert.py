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


def run(arguments: argparse.Namespace) -> None:
    import os

    from tfrewprune.cli.inspect import print_layers
    from tfrewprune.cli.output import (
        console,
        print_json,
        readable_bytes,
        reserved_stdout,
    )
    from tfrewprune.converter import convert, unpack
    from tfrewprune.inspection import inspect_model

    options = {}
    if arguments.tolerance is not None:
        options["tolerance"] = arguments.tolerance
    with reserved_stdout() as out:
        packed = convert(
            arguments.source,
            arguments.target,
            minimum_gain=0 if arguments.pack_all else 1,
            verify=not arguments.no_verify,
            **options,
        )
        if os.path.isfile(arguments.source) and arguments.source.endswith(".tflite"):
            dense_bytes = os.path.getsize(arguments.source)
        else:
            dense_bytes = len(unpack(packed))
        records = inspect_model(packed)
        if arguments.json:
            document = {
                "source": arguments.source,
                "target": arguments.target,
                "dense_bytes": dense_bytes,
                "packed_bytes": len(packed),
                "verified": not arguments.no_verify,
                "layers": [record.to_json() for record in records],
            }
            print_json(document, out)
            return
        print_layers(arguments.target, records, {}, out)
        console(out).print(
            f"{readable_bytes(dense_bytes)} dense, {readable_bytes(len(packed))} "
            f"packed: {dense_bytes / len(packed):.2f}x smaller.",
            highlight=False,
        )
