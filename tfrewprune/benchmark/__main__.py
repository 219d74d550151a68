# SPDX-License-Identifier: Apache-2.0
"""`python -m tfrewprune.benchmark`: layers and whole models beside LiteRT dense."""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from tfrewprune.benchmark.harness import DEFAULT_PLAN, Row, Sweep, run_sweeps
from tfrewprune.benchmark.layers import SHAPE_FILES
from tfrewprune.benchmark.machine import cpu_name, measure_machine
from tfrewprune.benchmark.table import print_table, row_table

MODELS = ("resnet50", "vgg16", "mobilenet_v2")


def main(words: list[str] | None = None) -> int:
    """Measures what the arguments ask for, or everything, and writes the results."""
    arguments = _parse(words)
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    console = Console()
    started = time.perf_counter()
    rows: list[Row] = []
    models: list[dict[str, Any]] = []
    with open(output / "benchmark.jsonl", "w") as file:
        _write(file, "environment", _environment())
        for row in run_sweeps(
            _sweeps(arguments),
            min_seconds=arguments.seconds,
            tune="once" if arguments.tune else None,
            skipped=lambda reason: console.print(f"skipped {reason}", markup=False),
        ):
            rows.append(row)
            _write(file, "layer", row.to_dict())
            console.print(_line(row), markup=False, highlight=False)
        for isa, threads in sorted({(row.isa, row.threads) for row in rows}):
            _write(file, "machine", measure_machine(isa, threads).to_dict())
        if arguments.models:
            from tfrewprune.benchmark.models import measure_model, model_table

            for name in arguments.models:
                console.print(f"building and pruning {name} ...", highlight=False)
                models.append(measure_model(name, threads=arguments.threads[0]))
                _write(file, "model", models[-1])
        if arguments.peers:
            from tfrewprune.benchmark.peers import measure_peers, peer_table

            chosen = {}
            if arguments.shapes:
                chosen = {
                    "layers": [x for s in _sweeps(arguments) for x in s.layers()],
                    "structures": arguments.structures,
                    "rates": arguments.rates,
                    "threads": arguments.threads[0],
                }
            peers = list(
                measure_peers(
                    arguments.peers,
                    **chosen,
                    skipped=lambda reason: console.print(
                        f"skipped {reason}", markup=False
                    ),
                )
            )
            for peer in peers:
                _write(file, "peer", peer)
            print_table(console, peer_table(peers))
    if rows:
        print_table(console, row_table(rows))
    if models:
        print_table(console, model_table(models))
    if rows:
        _plot(rows, output, console)
    console.print(
        f"{len(rows)} layers, {len(models)} models in "
        f"{time.perf_counter() - started:.0f} s; results in {output}/",
        highlight=False,
    )
    return 0


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tfrewprune.benchmark",
        description="Times packed layers and models beside LiteRT's dense XNNPACK. "
        "Without --shapes and --models it measures the whole plan and whole models.",
    )
    parser.add_argument("--output", default="bench-output", help="folder for results")
    parser.add_argument(
        "--shapes",
        nargs="+",
        metavar="LIST",
        help=f"lists of layers: {', '.join(SHAPE_FILES)}, or files",
    )
    parser.add_argument("--only", nargs="+", default=(), help="layers of the lists")
    parser.add_argument("--structures", nargs="+", default=("block16x1",))
    parser.add_argument("--rates", nargs="+", type=float, default=(4.0, 8.0, 16.0))
    parser.add_argument("--threads", nargs="+", type=int, default=(1,))
    parser.add_argument("--isa", nargs="+", default=(None,), help="avx512, avx2, ...")
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="timing of one row (default: 0.3)"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="layers with drivers measured before, as Interpreter(tune='once')",
    )
    parser.add_argument(
        "--models",
        nargs="*",
        choices=MODELS,
        help=f"whole models: {', '.join(MODELS)}",
    )
    parser.add_argument(
        "--peers",
        nargs="?",
        const=sys.executable,
        metavar="PYTHON",
        help="other engines, too: onnxruntime, deepsparse and MNN, where PYTHON "
        "(default: this interpreter) has them; on the layers of --shapes, or a few of "
        "the goals",
    )
    arguments = parser.parse_args(words)
    arguments.plan = arguments.models is None and not arguments.shapes
    if arguments.models is None:
        arguments.models = () if arguments.shapes else MODELS
    return arguments


def _sweeps(arguments: argparse.Namespace) -> tuple[Sweep, ...]:
    if arguments.plan:
        return DEFAULT_PLAN
    return tuple(
        Sweep(
            name,
            tuple(arguments.structures),
            tuple(arguments.rates),
            tuple(arguments.threads),
            tuple(arguments.isa),
            tuple(arguments.only),
        )
        for name in arguments.shapes or ()
    )


def _line(row: Row) -> str:
    return (
        f"{row.shapes:12s} {row.layer:20s} {row.structure:12s} {row.rate:3g}x "
        f"{row.threads}t {row.isa:8s} {row.dense_seconds * 1e3:8.4f} ms -> "
        f"{row.packed_seconds * 1e3:8.4f} ms  {row.ratio:6.2f}x"
    )


def _write(file: IO[str], kind: str, record: dict[str, Any]) -> None:
    file.write(json.dumps({"kind": kind, **record}) + "\n")
    file.flush()


def _environment() -> dict[str, Any]:
    versions = {}
    for package in ("tfrewprune", "ai-edge-litert", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": cpu_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions,
    }


def _plot(rows: list[Row], output: Path, console: Console) -> None:
    from tfrewprune.benchmark.plot import plot_speed_up

    try:
        plot_speed_up(rows, output / "speed_up.svg")
    except (ImportError, ValueError) as error:
        console.print(f"no plot: {error}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
