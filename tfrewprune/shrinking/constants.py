# SPDX-License-Identifier: Apache-2.0
"""Constants that come on top of what a layer gives, and where they are held."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tfrewprune.wrappers.graph import Call


def place_of(
    layer: keras.Layer, calls: Sequence[Call], outputs: Sequence[keras.KerasTensor]
) -> tuple[keras.Variable, int] | None:
    """A variable that is added to a layer's outputs alone, and its sign.

    That is its bias, or the moving mean of the batch normalization that reads it, if
    nothing else does.

    Args:
        layer: A layer with a weight matrix.
        calls: Of the model that the layer belongs to; none where they are not known.
        outputs: Of that model.
    """
    bias = getattr(layer, "bias", None)
    if isinstance(bias, keras.Variable):
        return bias, 1
    own = [call for call in calls if call.operation is layer]
    if len(own) != 1 or len(own[0].outputs) != 1:
        return None
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        return None
    (output,) = own[0].outputs
    if any(tensor is output for tensor in outputs):
        return None
    readers = [call for call in calls if any(t is output for t in call.inputs)]
    if len(readers) == 1 and _normalizes(readers[0], layer, len(output.shape)):
        return readers[0].operation.moving_mean, -1
    return None


def add(place: tuple[keras.Variable, int], shift: np.ndarray) -> None:
    """Adds to a layer's outputs by what `place_of` found."""
    variable, sign = place
    before = ops.convert_to_numpy(variable.value).astype(np.float64)
    change = sign * shift.reshape(tuple(variable.shape))
    variable.assign((before + change).astype(np.float32))


def _normalizes(call: Call, layer: keras.Layer, rank: int) -> bool:
    """Whether a call subtracts a mean of its own from each of the layer's outputs."""
    follower = call.operation
    axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    return (
        type(follower) is keras.layers.BatchNormalization
        and call.times == 1
        and not call.kwargs.get("training")
        and follower.axis % rank == axis % rank
    )
