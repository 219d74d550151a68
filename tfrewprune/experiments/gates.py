# SPDX-License-Identifier: Apache-2.0
"""Training and pruning of the recurrent networks, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfrewprune.experiments.experiment import counted
from tfrewprune.experiments.training import compile_for

if TYPE_CHECKING:
    import keras


def fit(
    model: keras.Model, pieces: keras.utils.PyDataset, epochs: int, rate: float
) -> None:
    """Trains without pruning, the learning rate falling to 0."""
    compile_for(model, rate, epochs * len(pieces))
    model.fit(pieces, epochs=epochs, verbose=2)


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
