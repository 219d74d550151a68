# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune convert`: pack the pruned layers of a model."""

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterator

from tfrewprune.cli.arguments import (
    add_json_argument,
    add_target_argument,
    positive_integer,
    positive_number,
)

HELP = "pack the pruned layers of a model into a .tflite"
DESCRIPTION = """\
Reads a .tflite, a .keras file or a SavedModel folder, packs every layer whose zeros
make it faster, checks that the packed model computes the same as the dense one, and
writes OUT. Layers that stay dense are listed with the reason. OUT runs in
tfrewprune.Interpreter, and in LiteRT's Interpreter with our delegate.
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
        "--batch-size",
        type=positive_integer,
        metavar="N",
        help="fix the batch of a Keras model; recurrent layers need that",
    )
    parser.add_argument(
        "--require-packed",
        type=positive_integer,
        default=0,
        metavar="N",
        help="fail, and write nothing, when fewer than N layers are packed",
    )
    parser.add_argument(
        "--pack-all",
        action="store_true",
        help="pack every layer that can be packed, even where dense is faster",
    )
    parser.add_argument(
        "--weights",
        choices=("keep", "float16", "int8"),
        default="keep",
        help="type of packed weights: as in the file, all rounded to float16, or int8 "
        "where they are a scale times integers",
    )
    add_target_argument(parser)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="decide by timing every layer here, dense and packed in turn",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="do not run both models to compare their outputs",
    )
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    from tfrewprune.cli.inspect import print_layers
    from tfrewprune.cli.output import (
        console,
        print_json,
        readable_bytes,
        reserved_stdout,
    )
    from tfrewprune.converter import convert
    from tfrewprune.converter.report import size_change
    from tfrewprune.inspection import inspect_model

    options = {}
    if arguments.tolerance is not None:
        options["tolerance"] = arguments.tolerance
    with reserved_stdout() as out, _warnings_in_one_line():
        packed = convert(
            arguments.source,
            arguments.target,
            batch_size=arguments.batch_size,
            minimum_gain=0 if arguments.pack_all else 1,
            weights=arguments.weights,
            target=arguments.processor,
            measure=arguments.measure,
            verify=not arguments.no_verify,
            require_packed=arguments.require_packed,
            **options,
        )
        report = packed.report
        records = inspect_model(packed)
        if arguments.json:
            document = {
                "source": arguments.source,
                "target": arguments.target,
                "dense_bytes": report.bytes_before,
                "packed_bytes": report.bytes_after,
                "verified": not arguments.no_verify,
                "difference": report.difference,
                "measured": arguments.measure,
                "shapes": report.to_dict()["shapes"],
                "decisions": [layer.to_dict() for layer in report.layers],
                "layers": [record.to_json() for record in records],
            }
            print_json(document, out)
            return
        print_layers(arguments.target, records, {}, out, report.shapes)
        console(out).print(
            f"{readable_bytes(report.bytes_before)} dense, "
            f"{readable_bytes(report.bytes_after)} packed: "
            f"{size_change(report.bytes_before, report.bytes_after)}.",
            highlight=False,
        )
        if arguments.measure:
            console(out).print(report.measured, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Prints warnings for a reader of the command line, who has no source line."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        print(f"tfrewprune convert: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
