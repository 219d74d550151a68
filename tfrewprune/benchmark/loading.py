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
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tfrewprune.benchmark.model_arguments import model_parser, parse_models
from tfrewprune.converter import unpack
from tfrewprune.converter.flatbuffer import read_model


@dataclass(frozen=True)
class Cost:
    """What loading a model costs a fresh process.

    Attributes:
        load_seconds: From opening the file to the end of the first inference.
        resident_bytes: Growth of the resident memory by then, mapped file included.
        held_bytes: Of these the native library's tables and scratch; its weights stay
            in the file. 0 for a dense model.
    """

    load_seconds: float
    resident_bytes: int
    held_bytes: int = 0


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
    if not _knows_memory():
        return None
    pairs = [
        (_load_once(dense, threads, False), _load_once(packed, threads, True))
        for _ in range(repeats)
    ]
    return Loading(
        model=Path(packed).stem,
        threads=threads,
        dense=_median([pair[0] for pair in pairs]),
        packed=_median([pair[1] for pair in pairs]),
        load_ratio=float(
            np.median([one.load_seconds / other.load_seconds for one, other in pairs])
        ),
        dense_bytes=os.path.getsize(dense),
        packed_bytes=os.path.getsize(packed),
        activation_bytes=activation_bytes(Path(packed).read_bytes()),
    )


def load_cost(
    path: str | os.PathLike[str],
    threads: int = 1,
    *,
    packed: bool = False,
    repeats: int = 3,
) -> Cost | None:
    """Loads a model in fresh processes and takes the median of what that costs.

    Args:
        path: The model.
        threads: Threads of the interpreter.
        packed: Whether to load it with our delegate.
        repeats: Number of processes.

    Returns:
        The cost, or None where the system does not tell resident memory.

    Raises:
        RuntimeError: If the process fails.
    """
    if not _knows_memory():
        return None
    return _median([_load_once(path, threads, packed) for _ in range(repeats)])


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
            from tfrewprune.benchmark.models import packed_model

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
    Console(width=None if sys.stdout.isatty() else 160).print(loading_table(results))
    return 0


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = model_parser(
        "loading", "Load time and memory of packed models beside their dense form."
    )
    parser.add_argument("--repeats", type=int, default=7, help="processes of each form")
    parser.add_argument("--output", help="file that JSON lines are added to")
    return parse_models(parser, words, "load")


def _knows_memory() -> bool:
    return Path("/proc/self/status").exists()


def _load_once(path: str | os.PathLike[str], threads: int, packed: bool) -> Cost:
    command = [sys.executable, "-m", "tfrewprune.benchmark.load_once", os.fspath(path)]
    command += ["--threads", str(threads)] + (["--packed"] if packed else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"Loading {path} failed: {done.stderr.strip()[-500:]}")
    return Cost(**json.loads(done.stdout))


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        float(np.median([cost.load_seconds for cost in costs])),
        int(np.median([cost.resident_bytes for cost in costs])),
        int(np.median([cost.held_bytes for cost in costs])),
    )


if __name__ == "__main__":
    sys.exit(main())
