# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune unpack`: a packed model back to standard TFLite."""

import argparse

from tfrewprune.cli.arguments import add_json_argument

HELP = "turn a packed model back into a standard one"
DESCRIPTION = """\
Writes the dense model that IN was packed from: standard TFLite operators, the same
weights bit for bit and of the same type, pruned ones as zeros, except that weights
rounded by `--weights float16` stay rounded. It runs anywhere, without our library.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help="packed .tflite file")
    parser.add_argument("target", metavar="OUT", help=".tflite file to write")
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    import os

    from tfrewprune.cli.output import print_json, readable_bytes, reserved_stdout
    from tfrewprune.converter import unpack

    with reserved_stdout() as out:
        packed_bytes = os.path.getsize(arguments.source)
        content = unpack(arguments.source, arguments.target)
        if arguments.json:
            document = {
                "source": arguments.source,
                "target": arguments.target,
                "packed_bytes": packed_bytes,
                "dense_bytes": len(content),
            }
            print_json(document, out)
        else:
            print(
                f"{arguments.target}: {readable_bytes(len(content))}, "
                f"packed it was {readable_bytes(packed_bytes)}",
                file=out,
            )
