# SPDX-License-Identifier: Apache-2.0
"""Training as every method of an experiment does it: same split, optimizer, schedule.

Keras is imported inside the functions, so that :func:`limit_threads` can still
set up TensorFlow.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrewprune.experiments.datasets import ImageData

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 128


def limit_threads(threads: int) -> None:
    """Lets TensorFlow compute with ``threads`` threads; call it before training."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        # A generator of batches holds one of them while a recurrent layer loops.
        tf.config.threading.set_inter_op_parallelism_threads(2)
    except RuntimeError:  # It runs already, as in a test: leave it as it is.
        pass


def compile_for(
    model: keras.Model,
    learning_rate: float,
    steps: int | None = None,
    from_logits: bool = True,
) -> None:
    """Compiles a classifier with Adam.

    Args:
        model: Built classifier.
        learning_rate: Rate at the beginning.
        steps: In so many it falls to 0 along a cosine; None: it stays.
        from_logits: Whether the model ends without softmax.
    """
    import keras

    falling = keras.optimizers.schedules.CosineDecay
    model.compile(
        keras.optimizers.Adam(
            learning_rate if steps is None else falling(learning_rate, max(1, steps))
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
    )


def step_count(data: ImageData, epochs: int) -> int:
    """Returns the number of batches of training images in ``epochs``."""
    return epochs * -(-len(data.x_train) // BATCH_SIZE)


def train_and_cut(
    model: keras.Model,
    recipe,
    learning_rate: float,
    fit: dict[str, Any],
    from_logits: bool = True,
    teacher: keras.Model | None = None,
) -> None:
    """Trains under the recipe's method, if it trains, at a constant rate; then cuts.

    Args:
        model: Built classifier, changed in place.
        recipe: A :class:`tfrewprune.Recipe`.
        learning_rate: Adam's.
        fit: Arguments of ``fit``.
        from_logits: As in :func:`compile_for`.
        teacher: What training follows beside the labels.
    """
    import tfrewprune

    if recipe.method.trains:
        compile_for(model, learning_rate, from_logits=from_logits)
        tfrewprune.reweighted_train(model, recipe, teacher=teacher, **fit)
    tfrewprune.hard_prune(model, recipe)


def retrain(
    model: keras.Model,
    recipe,
    data: ImageData,
    learning_rate: float,
    fit: dict[str, Any],
    from_logits: bool = True,
    teacher: keras.Model | None = None,
) -> keras.Model:
    """Trains what :func:`train_and_cut` left, the rate falling to 0; returns it plain.

    Args:
        model: A classifier under masks.
        recipe: As in :func:`train_and_cut`, like the other arguments.
        data: What it is trained on (only the length counts).
    """
    import tfrewprune

    steps = step_count(data, recipe.retrain_epochs)
    compile_for(model, learning_rate, steps, from_logits)
    tfrewprune.masked_retrain(model, recipe, teacher=teacher, **fit)
    return tfrewprune.strip(model)


def fit_arguments(data: ImageData) -> dict[str, Any]:
    """Keyword arguments of ``fit`` that all phases of all methods share."""
    return {
        "x": data.x_train,
        "y": data.y_train,
        "batch_size": BATCH_SIZE,
        "validation_data": (data.x_validation, data.y_validation),
        "verbose": 2,
    }


def crop_arguments(
    data: ImageData, seed: int, margin: int, flips: bool = False
) -> dict[str, Any]:
    """As :func:`fit_arguments`, of images that :func:`crops` shifts and mirrors."""
    return {
        "x": crops(data, seed, margin, flips),
        "validation_data": (data.x_validation, data.y_validation),
        "verbose": 2,
    }


def accuracy(model: keras.Model, images, labels) -> float:
    """Returns the fraction of ``images`` the model classifies right."""
    scores = model.predict(images, batch_size=500, verbose=0)
    return float((scores.argmax(axis=-1) == labels).mean())


def crops(
    data: ImageData, seed: int, margin: int, flips: bool = False
) -> keras.utils.PyDataset:
    """Returns the training images, shifted (and mirrored) at random, in batches.

    Each image is padded by reflection and cropped to its size at a random place; a new
    order every epoch.

    Args:
        data: Images and labels; the training part is used.
        seed: Of the order, the crops and the flips.
        margin: Largest shift in pixels.
        flips: Mirror left-right with probability 1/2.
    """
    import keras

    height, width = data.x_train.shape[1:3]
    edges = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = np.pad(data.x_train, edges, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (1, 2))

    class Crops(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.random = np.random.default_rng(seed)
            self.on_epoch_end()

        def __len__(self):
            return -(-len(data.x_train) // BATCH_SIZE)

        def on_epoch_end(self):
            self.order = self.random.permutation(len(data.x_train))

        def __getitem__(self, index):
            chosen = self.order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
            tops, lefts = self.random.integers(0, 2 * margin + 1, (2, len(chosen)))
            batch = windows[chosen, tops, lefts].transpose(0, 2, 3, 1)
            if flips:
                mirrored = self.random.random(len(chosen)) < 0.5
                batch[mirrored] = batch[mirrored, :, ::-1]
            return batch, data.y_train[chosen]

    return Crops()
