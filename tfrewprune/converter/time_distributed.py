# SPDX-License-Identifier: Apache-2.0
"""Lets `TimeDistributed` layers treat all their steps at once while a model is traced.

Keras calls the layer inside once a step: the file has a layer for each of them, or,
where the length is open, a loop that the converter refuses or takes to be of one step.
Steps are as good as samples to most layers, and can be folded into the batch.

TensorFlow and Keras are imported inside functions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfrewprune.replacing import replaced_for_now

_OPEN = 32  # stands for what is open in the shape of a sample
_TOLERANCE = 1e-4


@contextlib.contextmanager
def steps_at_once(model: Any) -> Iterator[None]:
    """Folds the steps of `TimeDistributed` layers into the batch; afterwards as before.

    Layers that mix samples, or remember some, are left to Keras.
    """
    import keras

    known = keras.layers.TimeDistributed
    with replaced_for_now() as replace:
        for layer in model._flatten_layers():
            own = isinstance(layer, known) and type(layer).call is known.call
            if own and _samples_are_alone(layer):
                replace(layer, "call", _call_at_once(layer.layer))
        yield


def _samples_are_alone(layer: Any) -> bool:
    """Whether the layer inside makes the same of two samples as of each by itself."""
    import keras

    inside = list(layer.layer._flatten_layers())
    shapes = layer._build_shapes_dict
    if not shapes or any(getattr(part, "stateful", False) for part in inside):
        return False
    (shape,) = shapes.values()
    sample = [_OPEN if extent is None else extent for extent in shape[2:]]
    # Indices, too, may be any number from 0 to 1.
    two = np.random.default_rng(0).random((2, *sample), np.float32)
    given = {"training": False} if layer.layer._call_has_training_arg else {}

    def outputs(samples: np.ndarray) -> np.ndarray:
        made = layer.layer.call(keras.ops.convert_to_tensor(samples), **given)
        return keras.ops.convert_to_numpy(made)

    try:
        with keras.StatelessScope():  # nothing that they remember stays
            together = outputs(two)
            alone = np.concatenate([outputs(two[:1]), outputs(two[1:])])
    except Exception:  # whatever the call of a user's layer raises
        return False
    bound = _TOLERANCE * max(1.0, float(np.abs(together).max(initial=0)))
    return together.shape == alone.shape and np.allclose(together, alone, 0, bound)


def _call_at_once(layer: Any) -> Callable:
    """What stands for `TimeDistributed.call` around a layer."""
    from keras import ops

    def call(inputs, training=None, mask=None):
        batch, steps, *sample = ops.shape(inputs)
        given = {}
        if layer._call_has_training_arg:
            given["training"] = training
        if layer._call_has_mask_arg and mask is not None:
            given["mask"] = ops.reshape(mask, (-1, *ops.shape(mask)[2:]))
        outputs = layer.call(ops.reshape(inputs, (-1, *sample)), **given)
        shape = [batch, steps, *ops.shape(outputs)[1:]]
        unknown = [i for i, extent in enumerate(shape) if not isinstance(extent, int)]
        if len(unknown) == 1:
            shape[unknown[0]] = -1  # a constant shape, where one is enough
        return ops.reshape(outputs, shape)

    return call
