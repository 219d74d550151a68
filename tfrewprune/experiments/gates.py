# SPDX-License-Identifier: Apache-2.0
"""Training and pruning of the recurrent networks, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfrewprune.experiments.experiment import counted
from tfrewprune.experiments.rows import Row

if TYPE_CHECKING:
    import keras


def compile_for(model: keras.Model, rate: float, steps: int | None = None) -> None:
    """Compiles a classifier of steps with Adam.

    Args:
        model: Its outputs are logits.
        rate: Of learning, at the beginning.
        steps: In so many it falls to 0 along a cosine; None: it stays.
    """
    import keras

    falling = keras.optimizers.schedules.CosineDecay
    model.compile(
        keras.optimizers.Adam(rate if steps is None else falling(rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def fit(
    model: keras.Model, pieces: keras.utils.PyDataset, epochs: int, rate: float
) -> None:
    """Trains without pruning, the learning rate falling to 0."""
    compile_for(model, rate, epochs * len(pieces))
    model.fit(pieces, epochs=epochs, verbose=2)


def recipe(row: Row, layers: Sequence[str], training: int, retraining: int):
    """Returns the :class:`tfrewprune.Recipe` of a row.

    Under a penalty each gate matrix has the row's rate, and a strength of its own: of a
    common one the matrices of the gates z and r, whose gradients are small, empty
    first. The other methods share a budget out.

    Args:
        row: Method, structure and rate.
        layers: Names of the recurrent layers.
        training: Epochs under the method.
        retraining: Epochs under the mask.
    """
    chosen = row.recipe(layers, row.rate, training, retraining)
    if not chosen.method.penalized:
        return chosen
    rules = [rule.replace(rate=row.rate) for rule in chosen.rules]
    return chosen.replace(rules=rules, rate=None)


def prune(
    model: keras.Model,
    recipe,
    pieces: keras.utils.PyDataset,
    rate: float,
    after_cut=lambda model: None,
    teacher: keras.Model | None = None,
) -> keras.Model:
    """Goes through all steps of a recipe.

    Trains under the method at a constant learning rate, cuts, and trains what is left,
    the rate falling to 0.

    Args:
        model: Trained and dense.
        recipe: A :class:`tfrewprune.Recipe`.
        pieces: Training data.
        rate: Adam's learning rate.
        after_cut: Called with the model each time it has been cut.
        teacher: What training follows beside the labels.

    Returns:
        The plain model.
    """
    import tfrewprune

    fit = {"teacher": teacher, "verbose": 2}
    for step in recipe.steps:
        compile_for(model, rate)
        if step.method.trains:
            tfrewprune.reweighted_train(model, step, pieces, **fit)
        tfrewprune.hard_prune(model, step)
        after_cut(model)
        compile_for(model, rate, step.retrain_epochs * len(pieces))
        tfrewprune.masked_retrain(model, step, pieces, **fit)
    return tfrewprune.strip(model)


def count_weights(model: keras.Model, layers: Sequence[str]) -> dict[str, Any]:
    """Returns the weights of the gate matrices; biases are not counted.

    ``weights``, ``kept`` (not zero), ``rate`` = weights / kept, and the kept ones
    matrix by matrix.

    Args:
        model: A network.
        layers: Names of its recurrent layers.
    """
    import keras

    matrices = {
        f"{name}/{part}": keras.ops.convert_to_numpy(
            getattr(model.get_layer(name).cell, part)
        )
        for name in layers
        for part in ("kernel", "recurrent_kernel")
    }
    return counted(matrices)
