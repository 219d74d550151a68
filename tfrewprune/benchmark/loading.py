# SPDX-License-Identifier: Apache-2.0
"""What it costs to load a model: time to the first inference, and memory.

    python -m tfrewprune.benchmark.loading packed.tflite
    python -m tfrewprune.benchmark.loading --models resnet50 vgg16 mobilenet_v2

Every figure comes from fresh processes, packed and dense ones in turn. The dense side
is the packed model unpacked, so that any packed file can be measured.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tfrewprune.benchmark.load_cost import (
    Cost,
    knows_memory,
    load_once,
    median_cost,
)
from tfrewprune.benchmark.model_arguments import model_parser, parse_models
from tfrewprune.benchmark.table import print_table
from tfrewprune.converter import unpack
from tfrewprune.converter.flatbuffer import read_model


@dataclass(frozen=True)
class Loading:
    """A packed model beside its dense form.

    Attributes:
        model: Name for the table.
        threads: Threads of both.
        dense: Median cost of the dense model.
        packed: Median cost of the packed one.
        load_ratio: How many times sooner the packed model has its first result: median
            over pairs of processes that ran one after the other.
        dense_bytes: File size.
        packed_bytes: File size.
        activation_bytes: See `activation_bytes`.
    """

    model: str
    threads: int
    dense: Cost
    packed: Cost
    load_ratio: float
    dense_bytes: int
    packed_bytes: int
    activation_bytes: int

    @property
    def held_share(self) -> float:
        """Our tables and scratch over file plus activations."""
        return self.packed.held_bytes / (self.packed_bytes + self.activation_bytes)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "held_share": self.held_share}


def measure_loading(
    packed: str | os.PathLike[str],
    dense: str | os.PathLike[str],
    *,
    threads: int = 1,
    repeats: int = 7,
) -> Loading | None:
    """Loads a packed model and its dense form in fresh processes, in turn.

    Args:
        packed: Path of the packed model.
        dense: Path of the dense one.
        threads: Threads of both.
        repeats: Processes of each.

    Returns:
        The figures, or None where the system does not tell resident memory.

    Raises:
        RuntimeError: If a process fails.

    Example:
        >>> loading = measure_loading("packed.tflite", "dense.tflite")
        >>> loading.load_ratio  # doctest: +SKIP
        6.3
    """
    if not knows_memory():
        return None
    pairs = [
        (load_once(dense, threads, False), load_once(packed, threads, True))
        for _ in range(repeats)
    ]
    return Loading(
        model=Path(packed).stem,
        threads=threads,
        dense=median_cost([pair[0] for pair in pairs]),
        packed=median_cost([pair[1] for pair in pairs]),
        load_ratio=float(
            np.median([one.load_seconds / other.load_seconds for one, other in pairs])
        ),
        dense_bytes=os.path.getsize(dense),
        packed_bytes=os.path.getsize(packed),
        activation_bytes=activation_bytes(Path(packed).read_bytes()),
    )


def activation_bytes(model: bytes) -> int:
    """The most memory that tensors alive at the same time take.

    A tensor lives from the operator that computes it to the last that reads it; no
    runtime can do with less unless it merges operators. Unknown dimensions count as 1.

    Args:
        model: A `.tflite` model; its first subgraph counts.
    """
    read = read_model(model)
    subgraph = read.subgraphs[0]
    size, first, last = {}, {}, {}
    for index in map(int, subgraph.inputs):
        first[index] = 0
    for place, operator in enumerate(subgraph.operators):
        for index in map(int, operator.outputs):
            first.setdefault(index, place)
            last[index] = place
        for index in map(int, operator.inputs):
            last[index] = place
    for index in map(int, subgraph.outputs):
        last[index] = len(subgraph.operators) - 1
    for index in first:
        tensor = subgraph.tensors[index]
        # Every tensor type of floats; others weigh next to nothing here.
        shape = tensor.shape if tensor.shape is not None else ()
        size[index] = 4 * int(np.prod([max(1, int(d)) for d in shape]))
    return max(
        sum(size[i] for i in first if first[i] <= place <= last.get(i, -1))
        for place in range(len(subgraph.operators))
    )


def loading_table(results: Iterable[Loading]) -> Table:
    """Makes the table of load times and memory, dense -> packed."""
    table = Table(title="Fresh processes: load to first inference, resident memory")
    for head in (
        "model",
        "load ms",
        "sooner",
        "file MB",
        "resident MB",
        "activations MB",
        "ours MB",
        "ours / (file + activations)",
    ):
        table.add_column(head, justify="left" if head == "model" else "right")
    for result in results:
        dense, packed = result.dense, result.packed
        table.add_row(
            result.model,
            f"{dense.load_seconds * 1e3:.1f} -> {packed.load_seconds * 1e3:.1f}",
            f"{result.load_ratio:.2f}x",
            f"{result.dense_bytes / 1e6:.1f} -> {result.packed_bytes / 1e6:.1f}",
            f"{dense.resident_bytes / 1e6:.1f} -> {packed.resident_bytes / 1e6:.1f}",
            f"{result.activation_bytes / 1e6:.1f}",
            f"{packed.held_bytes / 1e6:.2f}",
            f"{100 * result.held_share:.1f} %",
        )
    return table


def main(words: list[str] | None = None) -> int:
    """Measures the models of the command line; JSON lines and a table."""
    arguments = _parse(words)
    results: list[Loading] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(path) for path in arguments.packed]
        if arguments.models:
            from tfrewprune.benchmark.applications import packed_model

            for name in arguments.models:
                paths.append(Path(folder) / f"{name}.tflite")
                paths[-1].write_bytes(packed_model(name))
        for path in paths:
            dense = Path(folder) / "dense.tflite"
            dense.write_bytes(unpack(path.read_bytes()))
            result = measure_loading(
                path, dense, threads=arguments.threads, repeats=arguments.repeats
            )
            if result is None:
                print("This system does not tell resident memory.", file=sys.stderr)
                return 1
            results.append(result)
            if arguments.output:
                with open(arguments.output, "a") as file:
                    file.write(json.dumps({"kind": "loading", **result.to_dict()}))
                    file.write("\n")
    print_table(Console(), loading_table(results))
    return 0


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = model_parser(
        "loading", "Load time and memory of packed models beside their dense form."
    )
    parser.add_argument("--repeats", type=int, default=7, help="processes of each form")
    parser.add_argument("--output", help="file that JSON lines are added to")
    return parse_models(parser, words, "load")


if __name__ == "__main__":
    sys.exit(main())
