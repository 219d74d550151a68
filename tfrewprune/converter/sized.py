# SPDX-License-Identifier: Apache-2.0
"""What the tensors of a model with open sizes are at one size.

A file stores 1 for what is open, and nobody runs an image of one pixel: layers are
counted and timed at the size that is given, or at one that is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from tfrewprune.converter.cases import Entry, entries, random_case
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.isolation import run_models
from tfrewprune.converter.open_sizes import candidates, is_image

Shapes: TypeAlias = tuple[tuple[int, ...], ...]

_LEAST_IMAGE = 32
_LEAST_LENGTH = 16


def at_one_size(
    content: bytes, shapes: Sequence[tuple[int, ...]] | None = None
) -> tuple[bytes, Shapes | None]:
    """Returns a model that stores the shapes its tensors have at one size.

    LiteRT runs it once for that, in a child process. Only the first way into a model is
    looked at.

    Args:
        content: The model, dense or packed.
        shapes: Of its inputs; None assumes the smallest that runs, from 32 x 32 pixels
            and from 16 steps on.

    Returns:
        The model and the shapes of its inputs. The same bytes and None if nothing but
        the batch is open, or nothing runs.

    Raises:
        ConversionError: If the model is damaged.
    """
    model = read_model(content)
    entry = entries(model)[0]
    if not entry.open_sizes:
        return content, None
    packed = any(layer.packed for layer in find_layers(model))
    # Constants have no other shape, and are the most of a file.
    watched = [
        (place, index)
        for place, graph in enumerate(model.subgraphs)
        for index, tensor in enumerate(graph.tensors)
        if model.data(tensor) is None
    ]
    for tried in [shapes] if shapes is not None else _likely(entry):
        try:
            case = random_case(entry, tried)
            (found,) = run_models(
                {"sized": (content, packed)}, [case], watched, only_shapes=True
            )["sized"]
        except ConversionError:
            continue
        for (place, index), shape in zip(watched, found, strict=True):
            if shape.all():  # not of a branch that did not run
                model.subgraphs[place].tensors[index].shape = shape.astype(np.int32)
        return write_model(model), tuple(map(tuple, tried))
    return content, None


def _likely(entry: Entry) -> list[list[tuple[int, ...]]]:
    least = _LEAST_IMAGE if is_image(entry) else _LEAST_LENGTH
    sizes = (least, *(size for size in candidates(entry) if size > least))
    return [entry.shapes_at(size, batch=1) for size in sizes]
