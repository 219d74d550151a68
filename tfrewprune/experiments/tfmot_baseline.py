# SPDX-License-Identifier: Apache-2.0
"""The outside baseline: LeNet-5 pruned by the TensorFlow Model Optimization Toolkit.

``tfmot`` works with the legacy Keras 2 only, so this module is a program of its
own, run by :mod:`tfrewprune.experiments.lenet5` with ``TF_USE_LEGACY_KERAS=1``.
It reads the weights of the shared dense model from an ``.npz``, prunes by
magnitude as tfmot's guide says (``PolynomialDecay`` from 0 to the final
sparsity over the first half of the steps, then fine-tuning), strips, and writes
the weights and a ``.tflite``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from tfrewprune.experiments import datasets
from tfrewprune.experiments.training import BATCH_SIZE, crops, limit_threads


def main(arguments: list[str] | None = None) -> None:
    """Prunes one model; see ``--help``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="dense weights, .npz")
    parser.add_argument("output", type=Path, help="output prefix: .npz and .tflite")
    parser.add_argument("--rates", type=json.loads, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train-images", type=int, default=None)
    options = parser.parse_args(arguments)
    if os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        parser.error("set TF_USE_LEGACY_KERAS=1: tfmot needs the legacy Keras 2")
    limit_threads(options.threads)

    import tensorflow as tf
    import tf_keras
    from tensorflow_model_optimization.sparsity import keras as sparsity

    data = datasets.mnist().head(options.train_images, None, 0)
    tf_keras.utils.set_random_seed(options.seed)
    model = _lenet5(tf_keras, np.load(options.weights))
    steps = options.epochs * -(-len(data.x_train) // BATCH_SIZE)
    ramp = max(1, steps // 2)
    frequency = max(1, min(100, ramp // 10))

    def prunable(layer):
        if layer.name not in options.rates:
            return layer
        schedule = sparsity.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=1.0 - 1.0 / options.rates[layer.name],
            begin_step=0,
            # The last update comes on a multiple of the frequency, at most here.
            end_step=ramp // frequency * frequency,
            frequency=frequency,
        )
        return sparsity.prune_low_magnitude(layer, pruning_schedule=schedule)

    pruned = tf_keras.models.clone_model(model, clone_function=prunable)
    pruned.compile(
        tf_keras.optimizers.Adam(
            tf_keras.optimizers.schedules.CosineDecayRestarts(
                options.learning_rate, first_decay_steps=ramp, t_mul=1.0
            )
        ),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    pruned.fit(
        _sequence(tf_keras, crops(data, options.seed, margin=2)),
        epochs=options.epochs,
        verbose=2,
        validation_data=(data.x_validation, data.y_validation),
        callbacks=[sparsity.UpdatePruningStep()],
    )
    stripped = sparsity.strip_pruning(pruned)
    tensors = {
        f"{layer.name}/{part}": value
        for layer in stripped.layers
        for part, value in zip(("kernel", "bias"), layer.get_weights(), strict=False)
    }
    content = tf.lite.TFLiteConverter.from_keras_model(stripped).convert()
    Path(f"{options.output}.tflite").write_bytes(content)
    np.savez(f"{options.output}.npz", **tensors)


def _sequence(tf_keras, batches):
    """The same batches as legacy Keras takes them."""

    class Sequence(tf_keras.utils.Sequence):
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return batches[index]

        def on_epoch_end(self):
            batches.on_epoch_end()

    return Sequence()


def _lenet5(tf_keras, weights):
    layers = tf_keras.layers
    units = {name: len(weights[f"{name}/bias"]) for name in ("conv1", "conv2", "fc1")}
    model = tf_keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(units["conv1"], 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(units["conv2"], 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(units["fc1"], activation="relu", name="fc1"),
            layers.Dense(10, name="fc2"),
        ]
    )
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(
                [weights[f"{layer.name}/{part}"] for part in ("kernel", "bias")]
            )
    return model


if __name__ == "__main__":
    main()
