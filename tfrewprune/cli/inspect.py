# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune inspect`: what is in a model, layer by layer."""

import argparse
from typing import IO, Any

from tfrewprune.cli.arguments import add_json_argument, add_runtime_arguments

HELP = "show sparsity, structure, bytes and speed of each layer"
DESCRIPTION = """\
Lists every layer of a .tflite that has a weight matrix: its sparsity, the structure of
its zeros, its bytes dense and packed, its multiplications, and whether it is packed or
left dense and why. Times are predicted by the converter's cost model for one thread;
--measure runs each layer by itself, dense and packed in turn.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=".tflite file, dense or packed")
    parser.add_argument(
        "--measure", action="store_true", help="time each layer, dense and packed"
    )
    add_runtime_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from tfrewprune.cli.output import print_json, reserved_stdout
    from tfrewprune.inspection import inspect_model

    with reserved_stdout() as out:
        records = inspect_model(arguments.model)
        times = {}
        if arguments.measure:
            from tfrewprune.benchmark.profile import time_layers

            measured = time_layers(
                Path(arguments.model).read_bytes(),
                threads=arguments.threads,
                isa=arguments.isa,
            )
            times = {(time.subgraph, time.operator): time for time in measured}
        if arguments.json:
            layers = [
                record.to_json()
                | _figures(times.get((record.subgraph, record.operator)))
                for record in records
            ]
            print_json({"model": arguments.model, "layers": layers}, out)
        else:
            print_layers(arguments.model, records, times, out)


def print_layers(
    model: str, records: list, times: dict[tuple[int, int], Any], out: IO[str]
) -> None:
    """Prints the table of a model's layers.

    Args:
        model: Name for the title.
        records: `LayerRecord`s.
        times: (subgraph, operator) to `LayerTime`; empty when nothing was measured.
        out: Where to print.
    """
    from tfrewprune.cli import output

    console = output.console(out)
    if not records:
        console.print(f"{model} has no layer with a weight matrix.", markup=False)
        return
    kind = "measured" if times else "predicted"
    table = output.table(
        model,
        "layer",
        "op",
        "shape",
        ">zeros",
        "structure",
        ">dense",
        ">packed",
        ">MACs",
        f">{kind} ms dense",
        f">{kind} ms packed",
        "state",
    )
    for record in records:
        time = times.get((record.subgraph, record.operator))
        if times:
            dense = time and time.dense.median
            packed = time and time.packed.median
        else:
            dense = _seconds(record.predicted_dense_us)
            packed = _seconds(record.predicted_packed_us)
        if record.packed:
            state = "packed with its ADD" if record.adds else "packed"
        else:
            state = f"dense: {record.reason}" if record.reason else "would be packed"
        table.add_row(
            record.name,
            record.op,
            "x".join(map(str, record.shape)),
            "-" if record.sparsity is None else f"{record.sparsity:.1%}",
            record.structure or "-",
            _bytes(record.bytes_dense),
            _bytes(record.bytes_packed),
            "-" if record.macs is None else f"{record.macs:,}",
            "-" if dense is None else output.milliseconds(dense),
            "-" if packed is None else output.milliseconds(packed),
            state,
        )
    console.print(table)
    packed_count = sum(record.packed for record in records)
    would = sum(not record.packed and record.reason is None for record in records)
    console.print(
        f"{len(records)} layers: {packed_count} packed, {would} would be packed, "
        f"{len(records) - packed_count - would} stay dense.",
        highlight=False,
    )


def _figures(time: Any) -> dict[str, Any]:
    if time is None:
        return {}
    return {
        "measured_dense_us": time.dense.median * 1e6,
        "measured_packed_us": time.packed.median * 1e6,
        "measured_ratio": time.ratio.median,
    }


def _seconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds * 1e-6


def _bytes(count: int | None) -> str:
    from tfrewprune.cli.output import readable_bytes

    return "-" if count is None else readable_bytes(count)
