# SPDX-License-Identifier: Apache-2.0
"""Times of a Keras model's layers by rate, measured where the model shall run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import keras
from rich.progress import track

from tfrewprune.benchmark.profile import time_layers
from tfrewprune.converter.export import to_tflite
from tfrewprune.methods import Magnitude
from tfrewprune.pipeline.prune import hard_prune
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.wrappers.cloning import strip
from tfrewprune.wrappers.copying import layer_like
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.targets import Target

RATES = (2, 4, 8, 16, 32)


def measure_layers(
    model: keras.Model,
    recipe: Recipe,
    rates: Sequence[float] = RATES,
    *,
    seconds: float = 0.2,
    verbose: bool = True,
) -> dict[str, dict[float, float]]:
    """Times each layer dense and pruned on this machine, for `Recipe(layer_ms=...)`.

    Each layer is exported by itself, cut by magnitude in the structure of its rule, and
    timed in LiteRT with the delegate and without, in turn, on one thread and for a
    batch of one. As `convert` does, the better of both counts.

    Args:
        model: A built model of fixed input size; it is left as it is.
        recipe: Says which layers by which structures; its rates do not count.
        rates: Dense / kept weights to time, above 1.
        seconds: Time for a layer at one size and rate, beside a second for its export.
        verbose: Whether to show a progress bar.

    Returns:
        Milliseconds by layer path and rate, 1 for dense. Layers that the recipe leaves
        dense are timed dense, those that are called several times once for each size,
        and their times added up. Left out, so that the cost model's times count for
        them, are layers without a packed operator, recurrent and attention layers, and
        layers whose input is of an open or unknown size.

    Raises:
        ValueError: Impossible rates; no layer that can be timed.
        ConversionError: A layer cannot be exported.

    Example:

    >>> recipe = trp.Recipe(constraints={"latency_ms": 3.0})
    >>> times = trp.measure_layers(model, recipe)
    >>> result = trp.compress(model, recipe.replace(layer_ms=times), x, y)
    """
    if not rates or not all(rate > 1 for rate in rates):
        raise ValueError(
            f"measure_layers: expected rates above 1. Received: rates={rates!r}"
        )
    targets = [target for target in resolve(model, recipe) if _is_alone(target)]
    if not targets:
        raise ValueError(
            "measure_layers: the model has no layer that can be timed by itself: one "
            "with a packed operator and inputs of known size."
        )
    jobs = [
        (target, rate)
        for target in targets
        for rate in (sorted(rates) if target.reason is None else (1,))
    ]
    found: dict[str, dict[float, float]] = {target.label: {} for target in targets}
    for target, rate in track(jobs, "measuring layers", disable=not verbose):
        dense, best = _measured(target, rate, seconds)
        times = found[target.label]
        times[1] = min(times.get(1, dense), dense)
        if rate > 1:
            times[rate] = best
    return found


def _is_alone(target: Target) -> bool:
    """Whether a layer computes its outputs from input tensors of known size."""
    spec, layer = target.spec, target.layer
    if spec is None or not spec.packed or target.around is not None:
        return False
    if getattr(layer, "groups", 1) != 1 or spec.attribute != "kernel":
        return False
    return all(
        None not in (call.shapes or {}).get("input_shape", (None, None))[1:]
        for call in target.calls
    )


def _measured(target: Target, rate: float, seconds: float) -> tuple[float, float]:
    """Milliseconds of all calls of a layer at a rate: dense, and at their best."""
    calls: Counter[tuple[int, ...]] = Counter()
    for call in target.calls:
        calls[(call.batch, *call.shapes["input_shape"][1:])] += call.times
    dense = best = 0.0
    for shape, times in calls.items():
        found = _measured_call(target, shape, rate, seconds)
        dense, best = dense + times * found[0], best + times * min(found)
    return dense, best


def _measured_call(
    target: Target, shape: tuple[int, ...], rate: float, seconds: float
) -> tuple[float, float]:
    """Milliseconds of one call for an input of a shape: dense and packed."""
    layer = target.layer
    inputs = keras.Input(batch_shape=shape)
    copy = layer_like(layer, {**layer.get_config(), "dtype": "float32"})
    single = keras.Model(inputs, copy(inputs))
    copy.set_weights([keras.ops.convert_to_numpy(w.value) for w in layer.weights])
    if rate > 1:
        rule = Rule(copy.name, structure=target.structure, rate=rate)
        hard_prune(single, Recipe(rule, method=Magnitude(), skip_last=False))
    (time,) = time_layers(to_tflite(strip(single)), min_seconds=seconds)
    return 1e3 * time.dense.median, 1e3 * time.packed.median
