# SPDX-License-Identifier: Apache-2.0
"""What a Keras model takes: shapes, types and names of its inputs."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from tfrewprune.calibration.inputs import InputSpec


def input_specs(model: keras.Model) -> list[InputSpec]:
    """What a built functional model takes, in the order of its inputs.

    Raises:
        ValueError: The model does not say.
    """
    tensors = keras.tree.flatten(getattr(model, "inputs", None) or [])
    if not tensors:
        raise ValueError(
            f"Model {model.name!r} does not say what it takes. Expected a "
            "built Sequential or functional model."
        )
    structure = getattr(model, "input", None)
    paths = _paths(structure) if isinstance(structure, Mapping) else {}
    return [
        InputSpec(
            tensor.name,
            tuple(tensor.shape),
            np.dtype("float32" if "float" in tensor.dtype else tensor.dtype),
            paths.get(id(tensor), ()),
        )
        for tensor in tensors
    ]


def _paths(structure, here: tuple[str | int, ...] = ()) -> dict[int, tuple]:
    """The keys that lead to each tensor of a model's inputs, by the tensor's id."""
    if isinstance(structure, Mapping):
        items = structure.items()
    elif isinstance(structure, list | tuple):
        items = enumerate(structure)
    else:
        return {id(structure): here}
    found: dict[int, tuple] = {}
    for key, part in items:
        found |= _paths(part, (*here, key))
    return found
