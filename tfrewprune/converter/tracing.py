# SPDX-License-Identifier: Apache-2.0
"""Traces a Keras model as it computes in inference, in float32, and leaves it as it is.

Keras traces with each layer's own default of `training`, which is True for
augmentation; with every batch open; and in the dtype it trained in. A mobile file wants
inference, the batch that the model declares, and the float32 its weights have anyway.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.recurrent.composites import kept_whole
from tfrewprune.converter.time_distributed import steps_at_once

_OTHER_FLOATS = ("float16", "bfloat16", "float64")


def save_for_inference(
    model: Any, folder: Path, batch: int | None, whole: bool = True
) -> list[str]:
    """Writes a SavedModel of ``model(inputs, training=False)`` in float32.

    Args:
        model: A built model on Keras' TensorFlow backend. It is not changed.
        folder: Where to write.
        batch: Length of the first dimension of every input; None leaves it open.
        whole: Whether recurrent layers stay in one piece, see `kept_whole`.

    Returns:
        Names of the signature's inputs, in the model's own order.

    Raises:
        ConversionError: If Keras does not know what the model takes.
        Exception: Whatever the model's call raises when it is traced.
    """
    import keras
    import tensorflow as tf

    structure = input_structure(model)
    flat = keras.tree.flatten(structure)
    names = _unique_names(tensor.name for tensor in flat)
    specs = []
    for tensor, name in zip(flat, names, strict=True):
        dtype = "float32" if tensor.dtype in _OTHER_FLOATS else tensor.dtype
        shape = (batch, *tensor.shape[1:]) if tensor.shape else ()
        specs.append(tf.TensorSpec(shape, dtype, name))

    def serve(*tensors):
        arguments = keras.tree.pack_sequence_as(structure, tensors)
        return model(*arguments, training=False)

    archive = keras.export.ExportArchive()
    archive.track(model)
    keep = kept_whole(model) if whole else contextlib.nullcontext()
    with computing_in_float32(model), steps_at_once(model), keep:
        archive.add_endpoint("serve", serve, specs)
        archive.write_out(str(folder), verbose=False)
    return names


def built_batch(model: Any) -> int | None:
    """Returns the batch that all inputs of a model have, None if it is open.

    Raises:
        ConversionError: As for ``save_for_inference``.
    """
    import keras

    shapes = [tensor.shape for tensor in keras.tree.flatten(input_structure(model))]
    batches = {shape[0] for shape in shapes if shape}
    return batches.pop() if len(batches) == 1 else None


def declared_batch(model: Any) -> int | None:
    """Returns the batch that a model was made for, None if that is any.

    A stateful layer's states have the batch; otherwise an `Input` says it. A Sequential
    model without one makes it from the first data it sees, whose batch nobody declared.
    Clones and files of it do not tell the two apart: only a batch of 1 is believed.

    Raises:
        ConversionError: As for ``save_for_inference``.
    """
    import keras

    batch = built_batch(model)
    if any(getattr(layer, "stateful", False) for layer in model._flatten_layers()):
        return batch
    if not getattr(model, "inputs", None):
        return None
    if not isinstance(model, keras.Sequential) or batch == 1:
        return batch
    made = getattr(model._layers[0], "_auto_config", None)
    by_input = made is not None and made.config.get("shape") is not None
    return batch if by_input else None


def input_structure(model: Any) -> list[Any]:
    """Returns the positional arguments of a model's call, nested as it takes them.

    They are KerasTensors, whose batch may be that of the data that the model was first
    called on.

    Raises:
        ConversionError: If Keras does not know what the model takes.
    """
    import keras

    inputs = getattr(model, "inputs", None)
    if isinstance(model, keras.Sequential) and inputs:
        return inputs if len(inputs) == 1 else [inputs]
    if inputs:
        return [model.input]
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        raise ConversionError(
            f"model {model.name!r} does not know the shapes of its inputs: call it "
            "once on data, or convert it yourself and give the .tflite file"
        )
    return [_tensors(shape, "") for shape in shapes.values()]


def _tensors(shape: Any, name: str) -> Any:
    """A structure of shapes as one of KerasTensors, named by the keys of dicts."""
    import keras

    if isinstance(shape, dict):
        return {key: _tensors(value, str(key)) for key, value in shape.items()}
    if all(isinstance(extent, int | None) for extent in shape):
        return keras.KerasTensor(tuple(shape), "float32", name=name or "args_0")
    return [_tensors(value, name) for value in shape]


def _unique_names(names: Iterator[str]) -> list[str]:
    """Names as signatures take them, which TensorFlow would otherwise change."""
    chosen: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = plain if plain[:1].isalpha() else f"args_{plain}"
        unique, number = plain, 0
        while unique in chosen:
            number += 1
            unique = f"{plain}_{number}"
        chosen.append(unique)
    return chosen


@contextlib.contextmanager
def computing_in_float32(model: Any) -> Iterator[None]:
    """Lets every layer of a model compute in float32; afterwards all is as before.

    A clone would do without touching the model, but a subclassed one has none. What is
    set here is what `dtype=` sets when a layer is made: no variable is touched.
    """
    restore: list[tuple[Any, str, Any]] = []

    def set_for_now(target: Any, name: str, value: Any) -> None:
        restore.append((target, name, getattr(target, name)))
        setattr(target, name, value)

    try:
        for layer in model._flatten_layers():
            if layer.compute_dtype in _OTHER_FLOATS:
                # Not by the property, which writes into a DTypePolicyMap.
                set_for_now(layer, "_dtype_policy", _float32_policy(layer))
            # Functional models convert their inputs to the dtype of these.
            for tensor in getattr(layer, "inputs", None) or ():
                if tensor.dtype in _OTHER_FLOATS:
                    set_for_now(tensor, "_dtype", "float32")
        yield
    finally:
        for target, name, value in reversed(restore):
            setattr(target, name, value)


def _float32_policy(layer: Any) -> Any:
    import keras

    policy = layer.dtype_policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy[layer.path]
    config = policy.get_config()
    if "source_name" in config:  # of a quantized layer, which must stay quantized
        made = type(policy).from_config(config | {"source_name": "float32"})
    else:
        made = keras.dtype_policies.DTypePolicy("float32")
    # Variables of another dtype are cast where the two differ, as in mixed precision.
    made._variable_dtype = policy.variable_dtype
    return made
