# SPDX-License-Identifier: Apache-2.0
"""Every driver on every layer, and which one prediction and tuning take.

    python -m tfrewprune.benchmark.drivers --shapes resnet50 mobilenet_v2 goals

Says how much a layer loses by the choice that the cost model of the native library
makes, and by the one that `tune="once"` makes, against the best driver there is. All
drivers of a layer run in turn, their results compared first.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tfrewprune.benchmark.compare import run_once
from tfrewprune.benchmark.harness import LAYER_TOLERANCE
from tfrewprune.benchmark.layers import (
    SHAPE_FILES,
    Layer,
    build_model,
    load_layers,
)
from tfrewprune.benchmark.machine import cpu_name
from tfrewprune.benchmark.measure import check_results, clock_for, interleave
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.benchmark.table import print_table
from tfrewprune.benchmark.tuning import driver_label
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.runtime import Interpreter
from tfrewprune.runtime.library import driver_names


@dataclass(frozen=True)
class DriverRow:
    """One layer by all drivers.

    Attributes:
        shapes: List the layer is from.
        layer: Its name.
        structure: What was removed.
        rate: Weights / surviving weights.
        threads: Threads.
        seconds: Driver to the median time of a run, those that can do the layer.
        predicted: The driver that predictions choose.
        tuned: The driver that measuring at the first `allocate_tensors` chooses.
        predicted_loss: Time of the predicted driver over that of the best, minus 1:
            ratios within a round, their median.
        tuned_loss: The same of the tuned one.
    """

    shapes: str
    layer: str
    structure: str
    rate: float
    threads: int
    seconds: dict[str, float]
    predicted: str
    tuned: str
    predicted_loss: float
    tuned_loss: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_drivers(
    layer: Layer,
    structure: str = "block16x1",
    rate: float = 8,
    threads: int = 1,
    isa: str | None = None,
    *,
    min_seconds: float = 0.3,
    where: str = "",
) -> DriverRow:
    """Prunes a layer, packs it and times all drivers that can do it.

    Args:
        layer: The geometry.
        structure: See `pruned_weights`.
        rate: Weights / surviving weights.
        threads: Threads.
        isa: Kernels, or None for the best.
        min_seconds: Time spent on timing, all drivers together.
        where: Name of the list, for the row.

    Raises:
        ValueError: If the structure does not fit or the CPU lacks `isa`.
        WrongResultError: If two drivers compute different things.
    """
    weights = pruned_weights(layer, structure, rate)
    generator = np.random.default_rng(1)
    bias = generator.standard_normal(layer.outputs).astype(np.float32)
    packed, _ = pack_every_layer(build_model(layer, weights, bias))
    inputs = [generator.standard_normal(layer.input_shape).astype(np.float32)]

    def chosen(**options: Any) -> tuple[Interpreter, str, list[np.ndarray]]:
        interpreter = Interpreter(
            model_content=packed,
            num_threads=threads,
            isa=isa,
            log_level="error",
            **options,
        )
        outputs = run_once(interpreter, inputs)
        (run,) = interpreter.trace()[0].layers
        return interpreter, driver_label(run, threads), outputs

    _, predicted, expected = chosen(driver="auto")
    tuned_interpreter, tuned, outputs = chosen(driver="auto", tune="once")
    check_results(expected, outputs, tolerance=LAYER_TOLERANCE)
    runners = {}
    for name in driver_names():
        if name == "reference":
            continue
        interpreter, taken, outputs = chosen(driver=name)
        if taken == name:
            check_results(expected, outputs, tolerance=LAYER_TOLERANCE)
            runners[name] = interpreter.invoke
    # One that is no driver with all threads, but what else tuning may find.
    runners.setdefault(tuned, tuned_interpreter.invoke)
    measurement = interleave(runners, min_seconds=min_seconds, clock=clock_for(threads))
    seconds = {name: measurement.timing(name).median for name in runners}

    def loss(name: str) -> float:
        return max(measurement.ratio(name, other).median for other in runners) - 1

    return DriverRow(
        *(where, layer.name, structure, rate, threads, seconds, predicted, tuned),
        predicted_loss=loss(predicted),
        tuned_loss=loss(tuned),
    )


def driver_table(rows: Iterable[DriverRow]) -> Table:
    """Makes the table; times in microseconds, losses in percent."""
    rows = list(rows)
    names = [n for n in driver_names() if any(n in row.seconds for row in rows)]
    table = Table(title="All drivers, us")
    for head in ("layer", "zeros"):
        table.add_column(head)
    for head in (*names, "predicted", "loses", "tuned", "loses"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.layer,
            f"{row.structure} {row.rate:g}x {row.threads}t",
            *(f"{1e6 * row.seconds[n]:.1f}" if n in row.seconds else "" for n in names),
            *(row.predicted, f"{100 * row.predicted_loss:.1f} %"),
            *(row.tuned, f"{100 * row.tuned_loss:.1f} %"),
        )
    return table


def summary(rows: Iterable[DriverRow]) -> str:
    """Says how many layers lose more than 3 %."""
    rows = list(rows)
    parts = []
    for name in ("predicted", "tuned"):
        losses = [getattr(row, f"{name}_loss") for row in rows]
        over = sum(loss > 0.03 for loss in losses)
        parts.append(
            f"{name}: {over} of {len(rows)} layers lose more than 3 %, "
            f"the worst {100 * max(losses):.1f} %, on average "
            f"{100 * float(np.mean(losses)):.2f} %"
        )
    return "; ".join(parts)


def _rows(arguments: argparse.Namespace) -> Iterator[DriverRow]:
    for name in arguments.shapes:
        for layer in load_layers(name)[arguments.part :: arguments.parts]:
            for structure in arguments.structures:
                for rate in arguments.rates:
                    yield measure_drivers(
                        layer,
                        structure,
                        rate,
                        arguments.threads,
                        arguments.isa,
                        min_seconds=arguments.seconds,
                        where=name,
                    )


def main(words: list[str] | None = None) -> int:
    """Measures, prints the table and appends the rows to a file if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m tfrewprune.benchmark.drivers",
        description=__doc__.partition("\n")[0],
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=("resnet50", "mobilenet_v2", "goals"),
        metavar="LIST",
        help=f"lists of layers: {', '.join(SHAPE_FILES)}, or files",
    )
    parser.add_argument("--structures", nargs="+", default=("block16x1",))
    parser.add_argument("--rates", nargs="+", type=float, default=(8.0,))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", help="avx512, avx2, ...")
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="timing of one layer (default: 0.3)"
    )
    parser.add_argument(
        "--part", type=int, default=0, help="only every PARTS-th layer, from this on"
    )
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--output", help="file to append the rows to, as JSON lines")
    arguments = parser.parse_args(words)
    rows = []
    for row in _rows(arguments):
        rows.append(row)
        if arguments.output:
            with open(arguments.output, "a") as file:
                file.write(json.dumps({"cpu": cpu_name(), **row.to_dict()}) + "\n")
    console = Console()
    print_table(console, driver_table(rows))
    console.print(summary(rows), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
