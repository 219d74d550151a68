# SPDX-License-Identifier: Apache-2.0
"""The public function: prune a trained model with a few unlabelled inputs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from tfrewprune.calibration.inputs import (
    CalibrationInputs,
    calibration_inputs,
    check_outputs,
)
from tfrewprune.converter.files import is_keras_file
from tfrewprune.oneshot.pruning import output_difference, prune_network
from tfrewprune.oneshot.result import OneShotResult
from tfrewprune.oneshot.source import Source
from tfrewprune.recipe import Recipe


def prune_one_shot(
    model: Any,
    data: Any,
    rate: float | None = None,
    recipe: Recipe | None = None,
    constraints: dict[str, float | str] | None = None,
    *,
    batch_norm: bool = False,
    in_place: bool = False,
    verbose: int | bool | Callable[[str], None] = 0,
) -> OneShotResult:
    """Prunes a trained model without training it and without labels.

    First like filters come side by side (`arrange`), which changes the order of filters
    and nothing that the model computes; `Recipe(arrange=False)` leaves them where they
    are. Then, layer by layer, in the order of execution: group OBS chooses what goes,
    least squares refits what is left and the bias, so that the layer's outputs come as
    near as they can to those of the dense model, given what the layers before it put
    out by now. How much each layer loses follows from the losses it has at every rate.
    Layers left dense are refitted too, but for those that a rule skips.

    Args:
        model: A built Keras model or a `.keras` file; or a `.tflite` file, its bytes or
            path, with float32 or float16 weights.
        data: 100 to 1,000 inputs without labels, prepared as the model expects them: an
            array, a list of arrays, a dict (with the keys that `fit` or the file's
            signature takes, or else the names of the inputs), a `.npy` or `.npz` file,
            or a data set of which the first 1,000 are taken. A range that is probably
            not that of training is warned of: unscaled integers (such as 0 to 255) for
            a float input, or a batch normalization that sees another spread.
        rate: Dense / kept weights over all pruned layers.
        recipe: In place of a rate, or with it, of one step: structures, rates,
            constraints and layers. What says how to train (method, strengths, epochs,
            `start_rate`) and `layer_ms` do not count here.
        constraints: Limits of the whole model, several at once, in place of the
            recipe's and with a rate or without: as `Recipe.constraints`.
        batch_norm: Have batch normalizations follow their pruned inputs in the end.
            The refit leaves little for them to do; see `hard_prune` for a cut without.
        in_place: Change a Keras model itself; it may then be subclassed with inputs
            that it states. Otherwise the source is never changed.
        verbose: 1 prints a line of progress a layer; a function gets those lines.

    Returns:
        An `OneShotResult`; its `model` is a Keras model or `.tflite` bytes, and
        `convert(result)` packs it.

    Raises:
        ValueError: Neither a rate, nor rules with one, nor constraints; data that do
            not fit the model; nothing that can be pruned (small layers, weights of
            integers), with the reason of each layer; NaN activations; a layer that
            cannot be copied, without `in_place`.
        Infeasible: A `ValueError`: constraints that cannot be met, and by how much.
        OSError: A file cannot be read.

    Example:
        >>> result = trp.prune_one_shot("model.tflite", images, rate=2)
        >>> trp.convert(result, "packed.tflite")  # doctest: +SKIP
    """
    started = time.perf_counter()
    recipe = _recipe(rate, recipe, constraints)
    source, arrays = _source(model, data, recipe, in_place)
    tell = verbose if callable(verbose) else (print if verbose else None)
    dense = source.network.outputs(arrays)
    check_outputs(dense)
    if constraints is None:
        constraints = recipe.constraints
    limits, fixed = source.limits(constraints, recipe.budget)
    tables = prune_network(
        source.network,
        source.jobs,
        arrays,
        recipe.rate,
        recipe.budget,
        limits,
        fixed,
        tell,
    )
    if batch_norm:
        source.adapt_normalizations(arrays)
    rows = source.rows()
    return OneShotResult(
        source.result(),
        rows,
        {job.site.path: job.loss for job in source.jobs},
        output_difference(dense, source.network.outputs(arrays)),
        source.rate(rows),
        tables,
        recipe,
        time.perf_counter() - started,
    )


def _recipe(
    rate: float | None, recipe: Recipe | None, constraints: dict | None
) -> Recipe:
    if recipe is None:
        recipe = Recipe()
    if not isinstance(recipe, Recipe):
        raise ValueError(
            "prune_one_shot: `recipe` must be a tfrewprune.Recipe. Received: "
            f"{type(recipe).__name__}"
        )
    if recipe.then is not None:
        raise ValueError(
            "prune_one_shot: expected a recipe of one step. Call it for each of "
            f"`recipe.steps` in turn. Received: {len(recipe.steps)} steps"
        )
    for name in ("shrink", "purify"):
        if value := getattr(recipe, name):
            raise ValueError(
                f"prune_one_shot: expected a recipe without `{name}`. Call "
                f"tfrewprune.{name} on the Keras model that comes out. "
                f"Received: {name}={value}"
            )
    if recipe.quantization is not None:
        raise ValueError(
            "prune_one_shot: weights get to levels by training. Leave the recipe's "
            "`quantization` out (None), and call quantize() on the result's model. "
            f"Received: quantization={recipe.quantization}"
        )
    if recipe.threshold is not None:
        raise ValueError(
            "prune_one_shot: a `threshold` is for weights that a penalty has emptied. "
            f"Give a rate or constraints. Received: threshold={recipe.threshold}"
        )
    if rate is not None:
        recipe = recipe.replace(rate=rate)
    pruning = [rule for rule in recipe.rules if not rule.skip]
    limited = constraints is not None or recipe.constraints is not None
    if not limited and any(recipe.rate_of(rule) is None for rule in pruning):
        raise ValueError(
            "prune_one_shot: expected a rate, a recipe with one, or constraints, such "
            "as prune_one_shot(model, data, rate=2). Received: none"
        )
    return recipe


def _source(
    model: Any, data: Any, recipe: Recipe, in_place: bool
) -> tuple[Source, CalibrationInputs]:
    is_path = isinstance(model, str | os.PathLike)
    keras_file = is_path and is_keras_file(model)
    if not keras_file and not hasattr(model, "layers"):
        from tfrewprune.oneshot.tflite_model import TFLiteSource, read_source, specs_of

        content = read_source(model)
        arrays = calibration_inputs(data, specs_of(content))
        source = TFLiteSource(content, recipe, arrays)
        if recipe.arrange:
            source = source.arranged(recipe, arrays)
        return source, arrays
    from tfrewprune.calibration.keras_inputs import input_specs
    from tfrewprune.oneshot.keras_model import KerasSource
    from tfrewprune.pipeline.likeness import arrange
    from tfrewprune.wrappers.cloning import plain_copy
    from tfrewprune.wrappers.loading import load_model

    if keras_file:
        model = load_model(model)
        in_place = True
    arrays = calibration_inputs(data, input_specs(model))
    if not in_place:
        way_out = "Pass in_place=True to prune the model itself."
        model = plain_copy(model, "prune_one_shot", way_out)
    if recipe.arrange:
        arrange(model, recipe)
    return KerasSource(model, recipe, arrays), arrays
