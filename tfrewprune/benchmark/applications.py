# SPDX-License-Identifier: Apache-2.0
"""Models from keras.applications with pruned random weights."""

import os

import numpy as np

from tfrewprune.converter import convert

MODELS = {
    "resnet50": ("ResNet50", {"classifier_activation": None}),
    "vgg16": ("VGG16", {"include_top": False}),
    "mobilenet_v2": ("MobileNetV2", {"classifier_activation": None}),
}
"""Class in `keras.applications` and its arguments. VGG-16 comes without its dense
layers; the softmax is left out, because it makes all outputs look alike."""


def packed_model(name: str, rate: float = 8) -> bytes:
    """Prunes a model of `MODELS` with random weights and packs it.

    Raises:
        ValueError: If the name is unknown.
    """
    return convert(pruned_model(name, rate), verify=False)


def pruned_model(name: str, rate: float = 8) -> bytes:
    """A dense `.tflite` with pruned random weights.

    Args:
        name: One of `MODELS`.
        rate: Weights / surviving weights of each pruned layer.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in MODELS:
        raise ValueError(
            f"Invalid model. Expected one of {sorted(MODELS)}. Received: {name!r}"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    from tfrewprune.converter.export import to_tflite
    from tfrewprune.methods import Magnitude
    from tfrewprune.pipeline import hard_prune, strip
    from tfrewprune.recipe import Recipe
    from tfrewprune.rule import Rule

    keras.utils.set_random_seed(0)
    kind, arguments = MODELS[name]
    model = getattr(keras.applications, kind)(
        weights=None, input_shape=(224, 224, 3), **arguments
    )
    hard_prune(model, Recipe((Rule("*", rate=rate),), method=Magnitude()))
    model = strip(model)
    _normalise(model)
    return to_tflite(model)


def _normalise(model) -> None:
    """Gives the surviving weights of every output the mean 0 and the norm 1.

    Otherwise activations of an untrained model shrink from layer to layer, or all
    images give the same output, until comparing outputs compares nothing.
    """
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        weights = np.asarray(layer.kernel)
        alive = weights != 0
        # A depthwise kernel is (height, width, channel, 1), others end in the output.
        axes = (0, 1) if weights.shape[-1] == 1 else tuple(range(weights.ndim - 1))
        count = np.maximum(alive.sum(axis=axes, keepdims=True), 1)
        weights = weights - alive * weights.sum(axis=axes, keepdims=True) / count
        norm = np.sqrt(np.sum(np.square(weights), axis=axes, keepdims=True))
        layer.kernel.assign(weights / np.maximum(norm, 1e-6))
