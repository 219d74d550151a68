# SPDX-License-Identifier: Apache-2.0
"""Does packing ever lose? Random layers of real networks beside LiteRT dense.

    python -m tfrewprune.benchmark.sweep sweep.jsonl --cases 2000 --seconds 50
    python -m tfrewprune.benchmark.sweep sweep.jsonl --summary

Each case is checked against the dense layer first. A run goes on where the file ends
and stops after `--seconds`, so that a sweep can be made of many short runs on a machine
that is idle for them.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter
from rich.console import Console
from rich.table import Table

from tfrewprune.benchmark.compare import time_pair
from tfrewprune.benchmark.geometries import KINDS, Case, case
from tfrewprune.benchmark.layers import build_model
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.benchmark.table import print_table
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.converter import convert
from tfrewprune.runtime import Interpreter

TOLERANCE = 2e-5
"""Largest difference of outputs over the largest output."""
LEAST_RATIO = 0.95
"""A packed layer below this times dense is one that the converter should have left."""


def measure_case(item: Case, seconds: float = 0.03) -> dict[str, Any]:
    """Checks and times one case, packed whether or not the converter would.

    Args:
        item: The case.
        seconds: How long to time the pair.

    Returns:
        A record for JSON: the case, `packed` (what `convert` decides), `reason` if it
        leaves the layer dense, `predicted` and measured `ratio` of dense to packed
        time, and the `error` of the output.

    Raises:
        WrongResultError: If the packed layer computes something else.
    """
    layer = item.layer
    record = {
        "index": item.index,
        "kind": item.kind,
        "input": layer.input_shape,
        "outputs": layer.outputs,
        "kernel": layer.kernel,
        "stride": layer.stride,
        "dilation": layer.dilation,
        "same": layer.same,
        "structure": item.structure,
        "rate": item.rate,
    }
    weights = pruned_weights(layer, item.structure, item.rate, seed=item.index)
    generator = np.random.default_rng(item.index)
    bias = generator.standard_normal(layer.outputs).astype(np.float32)
    dense = build_model(layer, weights, bias)
    (report,) = convert(dense, verify=False).report.layers
    record |= {"packed": report.packed, "reason": report.skip and report.skip.name}
    forced = pack_every_layer(dense)[0]
    (packed_report,) = forced.report.layers
    record["predicted"] = packed_report.predicted_dense_ms / packed_report.predicted_ms
    measurement, record["error"] = time_pair(
        LiteRtInterpreter(model_content=dense, num_threads=1),
        Interpreter(model_content=forced, num_threads=1),
        [generator.standard_normal(layer.input_shape).astype(np.float32)],
        tolerance=TOLERANCE,
        min_seconds=seconds,
        min_rounds=9,
        block_seconds=0.001,
        warm_up_seconds=0.001,
    )
    record["dense_us"] = 1e6 * measurement.timing("dense").median
    record["ratio"] = measurement.ratio("dense", "packed").median
    return record


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file; a line that was cut off is none."""
    records = []
    for line in path.read_text("utf-8").split("\n") if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def summarize(records: Iterable[dict[str, Any]]) -> list[Table]:
    """Tables of a sweep: ratios by kind and by structure, losses, what stays dense."""
    records = list(records)
    packed = [record for record in records if record["packed"]]
    tables = []
    for key in ("kind", "structure"):
        groups = defaultdict(list)
        for record in records:
            groups[record[key]].append(record)
        table = Table(title=f"dense / packed time by {key}")
        for head in (key, "cases", "packed", "worst", "5 %", "median", "95 %", "lost"):
            table.add_column(head, justify="left" if head == key else "right")
        for name, group in [*groups.items(), ("all", records)]:
            ratios = [record["ratio"] for record in group if record["packed"]]
            quantiles = (
                np.percentile(ratios, (0, 5, 50, 95)) if ratios else [np.nan] * 4
            )
            table.add_row(
                name,
                str(len(group)),
                str(len(ratios)),
                *(f"{value:.2f}" for value in quantiles),
                str(sum(ratio < LEAST_RATIO for ratio in ratios)),
            )
        tables.append(table)
    worst = Table(title="worst packed cases")
    for head in ("case", "layer", "structure", "rate", "predicted", "measured"):
        worst.add_column(head)
    for record in sorted(packed, key=lambda record: record["ratio"])[:15]:
        worst.add_row(
            str(record["index"]),
            describe(record),
            record["structure"],
            f"{record['rate']:g}",
            f"{record['predicted']:.2f}",
            f"{record['ratio']:.2f}",
        )
    tables.append(worst)
    dense = Table(title="left dense")
    for head in ("reason", "cases", "faster packed by 5 % or more"):
        dense.add_column(head)
    reasons = Counter(record["reason"] for record in records if not record["packed"])
    for reason, count in reasons.most_common():
        faster = sum(
            record["reason"] == reason and record["ratio"] > 1.05 for record in records
        )
        dense.add_row(reason, str(count), str(faster))
    tables.append(dense)
    return tables


def describe(record: dict[str, Any]) -> str:
    """The geometry of a record in one line."""
    *shape, inputs = record["input"]
    if record["kernel"] == [0, 0]:
        return f"{record['kind']}: fc {inputs}->{record['outputs']} batch {shape[0]}"
    text = (
        f"{record['kind']}: {shape[0]}x{shape[1]}x{shape[2]} "
        f"{inputs}->{record['outputs']} k{record['kernel'][0]}x{record['kernel'][1]}"
    )
    for name, plain in (("stride", 1), ("dilation", 1), ("same", True)):
        if record[name] != plain:
            text += f" {name[0]}{record[name]}" if name != "same" else " valid"
    return text


def main(words: list[str] | None = None) -> int:
    """Goes on with a sweep, or sums it up."""
    parser = argparse.ArgumentParser(
        prog="python -m tfrewprune.benchmark.sweep",
        description="Random layers of real networks, packed beside dense. Kinds: "
        + ", ".join(KINDS),
    )
    parser.add_argument("file", type=Path, help="records, one JSON object a line")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=50, help="of this run")
    parser.add_argument("--only", type=int, nargs="+", help="cases by number, again")
    parser.add_argument("--summary", action="store_true", help="sum up and end")
    arguments = parser.parse_args(words)
    console = Console()
    records = read_records(arguments.file)
    if not arguments.summary:
        done = {record["index"] for record in records}
        wanted = arguments.only or [i for i in range(arguments.cases) if i not in done]
        end = time.monotonic() + arguments.seconds
        with open(arguments.file, "a", encoding="utf-8") as file:
            file.write("\n")  # the last line may have been cut off
            for index in wanted:
                if time.monotonic() > end:
                    break
                record = measure_case(case(index))
                file.write(json.dumps(record) + "\n")
                file.flush()
        records = read_records(arguments.file)
        console.print(
            f"{len({r['index'] for r in records})} of {arguments.cases} cases"
        )
    if arguments.summary:
        latest = {record["index"]: record for record in records}
        for table in summarize(latest.values()):
            print_table(console, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
