# SPDX-License-Identifier: Apache-2.0
"""Bands of like filters in a convolutional network; the question of ``banding``.

Four 3x3 convolutions of 32 to 128 filters on 8,000 images of CIFAR-10 with random
flips and shifts of up to four pixels; all but the first are pruned to 1/16. Everything
else is as in :mod:`tfrewprune.experiments.banding`.

Run ``python -m tfrewprune.experiments.banding_filters``; ``--quick`` for a trial of a
minute.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrewprune.experiments import banding, datasets, training


def network():
    """Returns the untrained network for images of 0 to 255; its outputs are logits."""
    import keras
    from keras import layers

    def convolution(filters: int, stride: int, name: str) -> list:
        return [
            layers.Conv2D(
                filters, 3, stride, padding="same", use_bias=False, name=name
            ),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        ]

    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 64, offset=-2),
            *convolution(32, 2, "first"),
            *convolution(64, 1, "hidden1"),
            *convolution(128, 2, "hidden2"),
            *convolution(128, 2, "hidden3"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="classes"),
        ]
    )


class BandingFilters(banding.Banding):
    """The experiment; see the module."""

    name = "banding_filters"
    title = "Bands of neighbours and of like filters: CIFAR-10, 16x, Block(16, 1)"
    full_plan = dataclasses.replace(
        banding.Plan(), dense_epochs=10, learning_rate=2e-3, images=8_000
    )

    def load_data(self) -> datasets.ImageData:
        return datasets.cifar10()

    def network(self):
        return network()

    def fit_arguments(self, data: datasets.ImageData) -> dict[str, Any]:
        return training.crop_arguments(data, seed=0, margin=4, flips=True)


if __name__ == "__main__":
    BandingFilters.main()
