# SPDX-License-Identifier: Apache-2.0
"""Where the time of a packed model goes, layer by layer, inside the running model.

    python -m tfrewprune.benchmark.timeline packed.tflite
    python -m tfrewprune.benchmark.timeline --models resnet50

Unlike `profile`, which times layers by themselves, this sees cold caches and what lies
between the packed layers: LiteRT's own operators.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tfrewprune.benchmark.compare import random_inputs, run_once
from tfrewprune.benchmark.model_arguments import model_parser, parse_models
from tfrewprune.benchmark.table import print_table
from tfrewprune.converter.detect import operator_name
from tfrewprune.converter.flatbuffer import read_model
from tfrewprune.inspection import inspect_model
from tfrewprune.runtime import Interpreter


@dataclass(frozen=True)
class Step:
    """A packed layer, or what LiteRT does between two of them.

    Attributes:
        packed: Which of the two.
        operators: Names of the operators; several where LiteRT runs them together.
        shape: Shape of the last one's output.
        weights: Shape of a packed layer's weights, `[O, kh, kw, I]` or `[O, K]`.
        seconds: Median over the runs.
        flops: Floating-point operations with surviving weights; 0 for LiteRT's steps.
    """

    packed: bool
    operators: tuple[str, ...]
    shape: tuple[int, ...]
    weights: tuple[int, ...]
    seconds: float
    flops: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _short(name: str) -> str:
    """Operator name without what all of ours share."""
    return name.split(" (")[0].removeprefix("Tfrewprune")


def trace_model(
    model: bytes, *, threads: int = 1, isa: str | None = None, runs: int = 50
) -> list[Step]:
    """Runs a packed model and tells how long each of its steps takes.

    Args:
        model: A packed `.tflite` model with one subgraph.
        threads: Threads of LiteRT and of packed layers.
        isa: Kernels; None is the best of this CPU.
        runs: Timed runs; three more warm up.

    Returns:
        The steps in the order in which they run. Their seconds add up to about the
        time of the whole model.

    Raises:
        ValueError: If the model has more than one subgraph.

    Example:
        >>> steps = trace_model(Path("packed.tflite").read_bytes())
        >>> sum(step.seconds for step in steps if not step.packed)  # doctest: +SKIP
        0.0031
    """
    read = read_model(model)
    if len(read.subgraphs) != 1:
        raise ValueError(
            "Only models with one subgraph can be traced. "
            f"Received: {len(read.subgraphs)} subgraphs."
        )
    operators = read.subgraphs[0].operators
    tensors = read.subgraphs[0].tensors
    interpreter = Interpreter(model_content=model, num_threads=threads, isa=isa)
    run_once(interpreter, random_inputs(interpreter))
    interpreter.trace(3)
    traces = interpreter.trace(runs)
    order = [layer.operator for layer in traces[0].layers]
    # Between the layers: what the run did before, between and after them.
    edges = np.array(
        [
            [
                0.0,
                *(time for layer in trace.layers for time in (layer.begin, layer.end)),
                trace.seconds,
            ]
            for trace in traces
        ]
    )
    seconds = np.median(np.diff(edges, axis=1), axis=0)
    records = {record.operator: record for record in inspect_model(model)}
    packed = set(order)
    steps = []
    for place, took in enumerate(seconds):
        before = order[place // 2 - 1] if place >= 2 else -1
        if place % 2:
            indices: Sequence[int] = [order[place // 2]]
        else:
            after = order[place // 2] if place // 2 < len(order) else len(operators)
            indices = [i for i in range(before + 1, after) if i not in packed]
            if not indices:
                continue  # two packed layers in a row: LiteRT's loop, a microsecond
        outputs = operators[indices[-1]].outputs
        record = records[indices[0]] if place % 2 else None
        steps.append(
            Step(
                packed=bool(place % 2),
                operators=tuple(operator_name(read, operators[i]) for i in indices),
                shape=tuple(int(d) for d in tensors[int(outputs[0])].shape),
                weights=record.shape if record else (),
                seconds=float(took),
                flops=2 * record.macs * record.kept / record.weights if record else 0,
            )
        )
    return steps


def step_table(steps: Iterable[Step], title: str = "") -> Table:
    """Makes the table of steps; steps that look alike share a row."""
    rows: dict[tuple, list[Step]] = {}
    total = 0.0
    for step in steps:
        key = (step.packed, step.operators, step.weights, step.shape)
        rows.setdefault(key, []).append(step)
        total += step.seconds
    table = Table(title=f"{title} {total * 1e3:.2f} ms, largest share first".strip())
    table.add_column("runs in")
    table.add_column("operators", overflow="fold", max_width=28)
    for head in ("weights", "output", "times", "ms each", "ms all", "share", "GFLOP/s"):
        table.add_column(head, justify="right")
    by_time = sorted(rows.items(), key=lambda row: -sum(s.seconds for s in row[1]))
    for (packed, operators, weights, shape), alike in by_time:
        took = sum(step.seconds for step in alike)
        flops = sum(step.flops for step in alike)
        table.add_row(
            "tfrewprune" if packed else "LiteRT",
            ", ".join(map(_short, operators)),
            "x".join(map(str, weights)),
            "x".join(map(str, shape)),
            str(len(alike)),
            f"{took / len(alike) * 1e3:.3f}",
            f"{took * 1e3:.2f}",
            f"{100 * took / total:.1f} %",
            f"{flops / took / 1e9:.0f}" if flops else "",
        )
    return table


def main(words: list[str] | None = None) -> int:
    """Prints the tables of the models on the command line."""
    parser = model_parser("timeline", "Where the time of a packed model goes.")
    parser.add_argument("--isa", help="avx512, avx2, ...")
    arguments = parse_models(parser, words, "run")
    contents = [(path, Path(path).read_bytes()) for path in arguments.packed]
    if arguments.models:
        from tfrewprune.benchmark.applications import packed_model

        contents += [(name, packed_model(name)) for name in arguments.models]
    console = Console()
    for name, content in contents:
        steps = trace_model(content, threads=arguments.threads, isa=arguments.isa)
        print_table(console, step_table(steps, name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
