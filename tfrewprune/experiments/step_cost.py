# SPDX-License-Identifier: Apache-2.0
"""What a training step costs under each method and structure, beside a dense step.

LeNet-5 and ResNet-8, batch 128, every layer with weights pruned, TensorFlow on the
threads it is given. Steps of all models of a structure are interleaved in one process,
and each is held against the dense step next to it; the figure is the median ratio.
What a method does between steps (refreshing a state, tightening masks) is timed apart
and spread over the steps of its interval. Goals: penalties <= 1.05, ADMM and proximal
steps <= 1.1.

Run ``python -m tfrewprune.experiments.step_cost`` on an idle machine; results go to
``results/step_cost.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrewprune.converter.files import write_atomically
from tfrewprune.experiments import lenet5, resnet8, rows, runs, training

METHODS = (
    "reweighted",
    "group-lasso",
    "reweighted-proximal",
    "admm",
    "primal-proximal",
)
NETWORKS = ("lenet5", "resnet8")
BATCH = 128
WARM_UP = 5


def network(name: str) -> Any:
    """Returns an untrained network by its name, one of :data:`NETWORKS`."""
    if name == "lenet5":
        return lenet5.lenet5()
    import keras

    return keras.models.clone_model(resnet8.pretrained())


def step_ratios(
    name: str, structure: str, methods: Sequence[str] = METHODS, steps: int = 60
) -> dict[str, float]:
    """Times steps under each method beside dense steps.

    Args:
        name: One of :data:`NETWORKS`.
        structure: A key of :func:`tfrewprune.experiments.rows.structures`.
        methods: Keys of :func:`tfrewprune.experiments.rows.methods`.
        steps: How many steps of each are timed.

    Returns:
        ``dense_ms``, the ratio of a ``mask`` alone and that of each method, which
        trains under a penalty and carries a mask that keeps all.
    """
    import keras

    import tfrewprune

    models: dict[str, Any] = {}
    for kind in ("dense", "mask", *methods):
        model = models[kind] = network(name)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=name == "lenet5")
        model.compile("adam", loss)
        # By name: a pattern leaves layers dense that would gain nothing.
        layers = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
        rule = tfrewprune.Rule(layers, structure=rows.structures()[structure], rate=8)
        if kind == "mask":
            recipe = tfrewprune.Recipe(rule, method="Magnitude")
            tfrewprune.hard_prune(model, recipe)
        elif kind != "dense":
            method = rows.methods()[kind]
            tfrewprune.attach(model, tfrewprune.Recipe(rule, method=method))
    random = np.random.default_rng(0)
    x = random.random((BATCH, *models["dense"].input_shape[1:]), np.float32)
    y = random.integers(0, 10, BATCH)
    seconds: dict[str, list[float]] = {kind: [] for kind in models}
    for step in range(steps + WARM_UP):
        for kind, model in models.items():
            start = time.perf_counter()
            model.train_on_batch(x, y)
            if step >= WARM_UP:
                seconds[kind].append(time.perf_counter() - start)
    dense = np.array(seconds.pop("dense"))
    return {
        "dense_ms": float(np.median(dense) * 1e3),
        **{kind: float(np.median(times / dense)) for kind, times in seconds.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the file yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--structures", nargs="+", default=list(rows.structures()))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    default = runs.RESULTS / "step_cost.json"
    parser.add_argument("--results", type=Path, default=default)
    options = parser.parse_args(arguments)
    training.limit_threads(options.threads)
    found = {}
    if options.results.exists():
        found = json.loads(options.results.read_text(encoding="utf-8"))["ratios"]
    for name in options.networks:
        for structure in options.structures:
            key = f"{name}, {structure}"
            if key not in found:
                found[key] = step_ratios(name, structure, steps=options.steps)
                text = json.dumps({"ratios": found, **runs.environment()}, indent=1)
                write_atomically(options.results, f"{text}\n".encode())
            figures = (f"{kind} {value:.3f}" for kind, value in found[key].items())
            print(f"{key}: {', '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
