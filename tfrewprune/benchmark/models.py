# SPDX-License-Identifier: Apache-2.0
"""Whole models, pruned and timed beside LiteRT dense."""

import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from tfrewprune.benchmark.applications import pruned_model
from tfrewprune.benchmark.compare import compare_models
from tfrewprune.benchmark.profile import time_layers
from tfrewprune.benchmark.timeline import trace_model
from tfrewprune.converter import convert
from tfrewprune.inspection import inspect_model, mac_rate


def measure_model(
    name: str,
    *,
    rate: float = 8,
    threads: int = 1,
    isa: str | None = None,
    min_seconds: float = 4.0,
) -> dict[str, Any]:
    """Prunes a model with random weights, converts it and times it.

    Every convolution but the first, and every pointwise one in MobileNetV2, loses
    Block(16, 1) blocks by magnitude. Speed does not depend on what the weights mean,
    so they are not trained.

    Args:
        name: One of `applications.MODELS`.
        rate: Weights / surviving weights of each pruned layer.
        threads: Threads of both sides.
        isa: Kernels; None is the best of this CPU.
        min_seconds: How long to time the pair.

    Returns:
        JSON-able figures: times, ratio, how many times fewer multiplications, how many
        seconds packing took, every layer timed by itself, and the steps of the running
        packed model. `ratio_limit` is the ratio if packed layers gained exactly as much
        as their multiplications fell, LiteRT's other operators being what they are.

    Raises:
        ValueError: If the name is unknown.
        WrongResultError: If the packed model computes something else.
    """
    dense = pruned_model(name, rate)
    started = time.perf_counter()
    packed = convert(dense, verify=False)
    packing_seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        dense_path = _write(folder, "dense.tflite", dense)
        packed_path = _write(folder, "packed.tflite", packed)
        comparison = compare_models(
            packed_path,
            dense_path,
            threads=threads,
            isa=isa,
            min_seconds=min_seconds,
        )
    layers = list(time_layers(packed, threads=threads, isa=isa, min_seconds=0.1))
    steps = trace_model(packed, threads=threads, isa=isa)
    in_packed = sum(step.seconds for step in steps if step.packed)
    in_litert = sum(step.seconds for step in steps if not step.packed)
    records = inspect_model(packed)
    of_macs = mac_rate(records)
    packed_rate = mac_rate(record for record in records if record.packed)
    dense_seconds = comparison.dense.median
    limit = in_litert + (dense_seconds - in_litert) / packed_rate
    return {
        "model": name,
        "rate": rate,
        "mac_rate": of_macs,
        "speed_up_over_mac_rate": comparison.ratio.median / of_macs,
        "packing_seconds": packing_seconds,
        "ratio_limit": dense_seconds / limit,
        "packed_layers_seconds": in_packed,
        "litert_seconds": in_litert,
        **comparison.to_dict(),
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "packed": layer.packed_in_model,
                "dense_seconds": layer.dense.median,
                "packed_seconds": layer.packed.median,
                "ratio": layer.ratio.median,
            }
            for layer in layers
        ],
        "steps": [step.to_dict() for step in steps],
    }


def model_table(results: Iterable[Mapping[str, Any]]) -> Table:
    """Makes the table of whole models."""
    table = Table(title="Whole models, 224x224, one image")
    table.add_column("model")
    for head in (
        "threads",
        "fewer MACs",
        "dense ms",
        "ours ms",
        "ratio",
        "ratio / MACs",
        "ratio's limit",
        "packed layers ms",
        "LiteRT ms",
        "file",
        "memory",
        "load ms",
        "packing s",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for result in results:
        dense_cost, packed_cost = result["dense_cost"], result["packed_cost"]
        dense_bytes, packed_bytes = result["dense_bytes"], result["packed_bytes"]
        memory = load = "-"
        if dense_cost and packed_cost:
            memory = " -> ".join(
                f"{cost['resident_bytes'] / 1e6:.0f}"
                for cost in (dense_cost, packed_cost)
            )
            load = " -> ".join(
                f"{cost['load_seconds'] * 1e3:.0f}"
                for cost in (dense_cost, packed_cost)
            )
        table.add_row(
            result["model"],
            str(result["threads"]),
            f"{result['mac_rate']:.2f}x",
            f"{result['dense']['median'] * 1e3:.2f}",
            f"{result['packed']['median'] * 1e3:.2f}",
            f"{result['ratio']['median']:.2f}x",
            f"{result['speed_up_over_mac_rate']:.2f}",
            f"{result['ratio_limit']:.2f}x",
            f"{result['packed_layers_seconds'] * 1e3:.2f}",
            f"{result['litert_seconds'] * 1e3:.2f}",
            f"{dense_bytes / 1e6:.0f} -> {packed_bytes / 1e6:.0f} MB",
            f"{memory} MB",
            load,
            f"{result['packing_seconds']:.1f}",
        )
    return table


def _write(folder: str, name: str, content: bytes) -> Path:
    path = Path(folder) / name
    path.write_bytes(content)
    return path
