# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune bench`: a packed model beside its dense original."""

import argparse
import os
import tempfile
from typing import IO

from tfrewprune.cli.arguments import (
    add_json_argument,
    add_runtime_arguments,
    add_size_argument,
    positive_integer,
    positive_number,
)

HELP = "time a packed model beside its dense original"
DESCRIPTION = """\
Runs a packed model and its dense original in LiteRT, in turn in one process, after
checking that their outputs agree. The original is the file that was packed: give it
with --against, else it is made from MODEL by `unpack`, with weights of the same type.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="packed .tflite file")
    parser.add_argument(
        "--against", metavar="DENSE", help="the dense .tflite file that was packed"
    )
    add_runtime_arguments(parser)
    parser.add_argument(
        "--tune",
        action="store_true",
        help="measure drivers first, as Interpreter(tune='once') does, and show what "
        "each packed layer gains by it",
    )
    parser.add_argument(
        "--seconds",
        type=positive_number,
        default=2.0,
        help="how long to measure, both models together (default: 2)",
    )
    parser.add_argument(
        "--tolerance",
        type=positive_number,
        default=1e-3,
        help="largest difference of outputs over the largest output (default: 0.001)",
    )
    parser.add_argument(
        "--frames",
        type=positive_integer,
        default=1,
        metavar="N",
        help="steps of a sequence whose length is open (default: 1)",
    )
    add_size_argument(parser)
    parser.add_argument(
        "--frame-ms",
        type=positive_number,
        metavar="MS",
        help="how long a step of the sequence takes in real time: prints how "
        "many times faster than that the models are",
    )
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    from tfrewprune.benchmark.compare import compare_models
    from tfrewprune.cli.output import print_json, reserved_stdout
    from tfrewprune.converter.report import describe_shapes

    with reserved_stdout() as out, tempfile.TemporaryDirectory() as folder:
        dense = arguments.against or _unpacked(arguments.model, folder)
        result = compare_models(
            arguments.model,
            dense,
            threads=arguments.threads,
            isa=arguments.isa,
            tune="once" if arguments.tune else None,
            tolerance=arguments.tolerance,
            min_seconds=arguments.seconds,
            frames=arguments.frames,
            size=arguments.size,
        )
        if arguments.frame_ms is not None and result.frames is None:
            raise ValueError(
                "--frame-ms needs a model whose first input is [batch, time, ...]: its "
                "time open, or a packed recurrent layer or states behind it; this one "
                f"takes {describe_shapes(result.shapes)}"
            )
        gains = []
        if arguments.tune:
            from tfrewprune.benchmark.tuning import tuning_gains

            gains = tuning_gains(
                arguments.model,
                threads=arguments.threads,
                isa=arguments.isa,
                frames=arguments.frames,
                size=arguments.size,
            )
        if arguments.json:
            document = {
                "model": arguments.model,
                "against": arguments.against,
                **result.to_dict(),
            }
            if arguments.tune:
                document["tuning"] = [gain.to_dict() for gain in gains]
            if arguments.frame_ms is not None:
                document["real_time_factor"] = {
                    "dense": _real_time(result, arguments.frame_ms, result.dense),
                    "packed": _real_time(result, arguments.frame_ms, result.packed),
                }
            print_json(document, out)
        else:
            _print_table(arguments, result, out)
            if arguments.tune:
                _print_gains(gains, out)


def _real_time(result, frame_ms: float, timing) -> float:
    """How many times faster than its frames come a model goes through them."""
    return result.frames * frame_ms / 1e3 / timing.median


def _unpacked(model: str, folder: str) -> str:
    from tfrewprune.converter.conversion import read_content, unpack

    content = read_content(model, may_export=False)
    dense = unpack(content)
    if dense == content:
        raise ValueError(f"no packed layer in {model}: convert it first")
    path = os.path.join(folder, "dense.tflite")
    with open(path, "wb") as file:
        file.write(dense)
    return path


def _print_table(arguments: argparse.Namespace, result, out: IO[str]) -> None:
    from rich.text import Text

    from tfrewprune.cli import output
    from tfrewprune.converter.report import describe_shapes, size_change

    against = arguments.against or "itself unpacked"
    plural = "" if result.threads == 1 else "s"
    console = output.console(out)
    console.print(
        f"{arguments.model} against {against}: {result.threads} thread{plural}, "
        f"{result.claimed_nodes} packed layers on {result.isa}, inputs of "
        f"{describe_shapes(result.shapes)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    table = output.table(
        None,
        "model",
        ">median ms",
        ">p10 .. p90 ms",
        ">file",
        ">load ms",
        ">memory",
    )
    rows = (
        ("dense", result.dense, result.dense_bytes, result.dense_cost),
        ("packed", result.packed, result.packed_bytes, result.packed_cost),
    )
    for name, timing, size, cost in rows:
        table.add_row(
            name,
            output.milliseconds(timing.median),
            f"{timing.p10 * 1e3:.4g} .. {timing.p90 * 1e3:.4g}",
            output.readable_bytes(size),
            output.milliseconds(cost.load_seconds) if cost else "-",
            output.readable_bytes(cost.resident_bytes) if cost else "-",
        )
    # Never "0.90x faster".
    ratio, change = result.ratio, "faster"
    median, low, high = ratio.median, ratio.p10, ratio.p90
    if median < 1:
        median, low, high, change = 1 / median, 1 / high, 1 / low, "slower"
    size = size_change(result.dense_bytes, result.packed_bytes)
    console.print(table)
    console.print(
        Text(f"{median:.2f}x {change}", "bold green" if change == "faster" else "red"),
        f"({low:.2f} .. {high:.2f} in {result.rounds} alternating rounds), {size}; "
        f"outputs agree to {result.error:.1e} of the largest.",
        highlight=False,
        soft_wrap=True,
    )
    if arguments.frame_ms is not None:
        dense = _real_time(result, arguments.frame_ms, result.dense)
        packed = _real_time(result, arguments.frame_ms, result.packed)
        console.print(
            f"{packed:,.0f}x faster than real time ({dense:,.0f}x dense): "
            f"{result.frames} frames of {arguments.frame_ms:g} ms.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        "ms: processor time on one thread, wall time on more. load ms and memory: a "
        "fresh process, from opening the file to the end of its first inference.",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def _print_gains(gains: list, out: IO[str]) -> None:
    from tfrewprune.cli import output

    console = output.console(out)
    columns = (
        output.Column("layer"),
        output.Column("predicted\ndriver"),
        output.Column(">us"),
        output.Column("tuned\ndriver"),
        output.Column(">us"),
        output.Column(">gain"),
    )
    rows = [
        (
            gain.name,
            gain.predicted,
            f"{gain.predicted_seconds * 1e6:.1f}",
            gain.tuned,
            f"{gain.tuned_seconds * 1e6:.1f}",
            f"{gain.gain:.2f}x" if gain.tuned != gain.predicted else "",
        )
        for gain in gains
    ]
    console.print(output.fitted_table("drivers", columns, rows, console.width))
    before = sum(gain.predicted_seconds for gain in gains)
    after = sum(gain.tuned_seconds for gain in gains)
    changed = sum(gain.tuned != gain.predicted for gain in gains)
    console.print(
        f"Measuring took another driver for {changed} of {len(gains)} packed layers: "
        f"{before * 1e3:.3g} ms before, {after * 1e3:.3g} ms after, inside the model.",
        highlight=False,
        soft_wrap=True,
    )
