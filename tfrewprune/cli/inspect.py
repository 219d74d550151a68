# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune inspect`: what is in a model, layer by layer."""

import argparse
from collections.abc import Sequence
from typing import IO, Any

from tfrewprune.cli.arguments import (
    add_json_argument,
    add_runtime_arguments,
    add_size_argument,
)
from tfrewprune.cli.plan import show_plan

HELP = "show sparsity, structure, bytes and speed of each layer"
DESCRIPTION = """\
Lists every layer of a .tflite that has a weight matrix: its sparsity, the structure of
its zeros, its bytes dense and packed, its multiplications, and whether it is packed or
left dense and why. Times are predicted by the converter's cost model for one thread;
--measure runs each layer by itself, dense and packed in turn. Of a packed file it says
which hosts run it, and of a .keras file it shows what `tfrewprune plan` shows.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help=".tflite file, dense or packed, or .keras file"
    )
    parser.add_argument(
        "--measure", action="store_true", help="time each layer, dense and packed"
    )
    add_size_argument(parser)
    add_runtime_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    from tfrewprune.converter.files import is_keras_file

    if is_keras_file(arguments.model):
        if arguments.size is not None:
            raise ValueError("--size needs a .tflite file: convert the model first")
        if arguments.measure:
            raise ValueError("--measure needs a .tflite file: convert the model first")
        show_plan(arguments.model, None, as_json=arguments.json)
        return
    from tfrewprune.cli.output import print_json, reserved_stdout
    from tfrewprune.converter.conversion import read_content
    from tfrewprune.converter.detect import find_layers
    from tfrewprune.converter.flatbuffer import read_model
    from tfrewprune.inspection import (
        at_size,
        check_sizes_known,
        describe_layers,
        hosts_of,
    )

    with reserved_stdout() as out:
        content = read_content(arguments.model, may_export=False)
        if arguments.measure and arguments.size is None:
            check_sizes_known(content)
        content, shapes = at_size(content, arguments.size)
        model = read_model(content)
        records = describe_layers(model, find_layers(model))
        hosts = hosts_of(model)
        times = {}
        if arguments.measure:
            from tfrewprune.benchmark.profile import time_layers

            measured = time_layers(
                content,
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
            document = {"model": arguments.model, "runs_in": hosts, "layers": layers}
            document["shapes"] = shapes and [list(shape) for shape in shapes]
            print_json(document, out)
        else:
            print_layers(arguments.model, records, times, out, shapes)
            _print_hosts(hosts, out)


def print_layers(
    model: str,
    records: list,
    times: dict[tuple[int, int], Any],
    out: IO[str],
    shapes: Sequence[Sequence[int]] | None = None,
) -> None:
    """Prints the table of a model's layers.

    Args:
        model: Name for the title.
        records: `LayerRecord`s.
        times: (subgraph, operator) to `LayerTime`; empty when nothing was measured.
        out: Where to print.
        shapes: Of inputs whose sizes are open, which times are for.
    """
    from tfrewprune.cli import output
    from tfrewprune.cli.footnotes import Footnotes
    from tfrewprune.converter.report import describe_shapes

    console = output.console(out)
    if not records:
        console.print(
            f"{model} has no layer with a weight matrix.", markup=False, soft_wrap=True
        )
        return
    columns = (
        output.Column("layer"),
        output.Column("op", 6),
        output.Column("shape", 2),
        output.Column(">zeros"),
        output.Column("structure", 4),
        output.Column(">dense\nbytes", 5),
        output.Column(">packed\nbytes", 1),
        output.Column(">MACs", 7),
        output.Column(">dense\nms"),
        output.Column(">packed\nms"),
        output.Column("state"),
    )
    notes = Footnotes()
    rows = [_cells(record, times, notes) for record in records]
    console.print(output.fitted_table(model, columns, rows, console.width))
    notes.print(console)
    packed_count = sum(record.packed for record in records)
    would = sum(not record.packed and record.reason is None for record in records)
    kind = "measured" if times else "predicted"
    if shapes:
        kind += f" for inputs of {describe_shapes(shapes)}"
    console.print(
        f"{len(records)} layers: {packed_count} packed, {would} would be packed, "
        f"{len(records) - packed_count - would} stay dense. Times are {kind}.",
        highlight=False,
    )


def _print_hosts(hosts: dict[str, str], out: IO[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from tfrewprune.cli import output

    grid = Table.grid(padding=(0, 1))
    for number, (host, how) in enumerate(hosts.items()):
        label = "" if number else "Runs in:"
        grid.add_row(label, Text(f"{host}{how and f': {how}'}", overflow="fold"))
    if hosts:
        output.console(out).print(grid)


def _cells(
    record: Any, times: dict[tuple[int, int], Any], notes: Any
) -> tuple[str, ...]:
    if times:
        time = times.get((record.subgraph, record.operator))
        dense = time and time.dense.median
        packed = time and time.packed.median
    else:
        dense = _seconds(record.predicted_dense_us)
        packed = _seconds(record.predicted_packed_us)
    if record.packed:
        state = "packed, +ADD" if record.adds else "packed"
    else:
        state = notes.mark("dense", record.reason) if record.reason else "would pack"
    return (
        record.name,
        record.op,
        "x".join(map(str, record.shape)),
        "-" if record.sparsity is None else f"{record.sparsity:.1%}",
        record.structure or "-",
        *(
            ("shared", "shared")
            if record.shares
            else (_bytes(record.bytes_dense), _bytes(record.bytes_packed))
        ),
        "-" if record.macs is None else f"{record.macs:,}",
        "-" if dense is None else f"{dense * 1e3:.3g}",
        "-" if packed is None else f"{packed * 1e3:.3g}",
        state,
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
