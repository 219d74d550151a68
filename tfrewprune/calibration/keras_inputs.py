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
    paths = {}
    if isinstance(structure, Mapping):
        leaves = keras.tree.flatten_with_path(structure)
        paths = {id(leaf): path for path, leaf in leaves}
    return [
        InputSpec(
            tensor.name,
            tuple(tensor.shape),
            np.dtype("float32" if "float" in tensor.dtype else tensor.dtype),
            paths.get(id(tensor), ()),
        )
        for tensor in tensors
    ]
