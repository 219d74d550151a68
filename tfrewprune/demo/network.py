# SPDX-License-Identifier: Apache-2.0
"""The demo's small CNN, whose convolutions are wide enough to be worth pruning."""

import keras

from tfrewprune.demo.data import CLASSES, IMAGE_SIZE

BATCH_SIZE = 32


def build_network(seed: int) -> keras.Model:
    """Builds the untrained network: four convolutions, two dense layers.

    Args:
        seed: Equal seeds give equal weights.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1)),
            *_convolution("conv1", 32),
            *_convolution("conv2", 64),
            layers.MaxPooling2D(name="pool2"),
            *_convolution("conv3", 128),
            *_convolution("conv4", 128),
            layers.MaxPooling2D(name="pool4"),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="hidden"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(CLASSES, name="classifier"),
        ],
        name="digits",
    )


def compile_network(model: keras.Model, epochs: int, examples: int) -> None:
    """Compiles for a phase of training: Adam, the rate falling along a cosine.

    Args:
        model: The network.
        epochs: Epochs of the phase.
        examples: Training examples of an epoch.
    """
    steps = epochs * -(-examples // BATCH_SIZE)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(2e-3, steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _convolution(name: str, filters: int) -> list[keras.Layer]:
    layers = keras.layers
    return [
        layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name),
        # An epoch has 34 steps: the usual momentum of 0.99 would lag behind.
        layers.BatchNormalization(momentum=0.9, name=f"{name}_norm"),
        layers.ReLU(name=f"{name}_relu"),
    ]
