# SPDX-License-Identifier: Apache-2.0
"""Named JSON in a `.tflite` file's metadata, which no runtime reads."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model, text


def write_metadata(model: Model, name: str, content: Any) -> None:
    """Adds an entry, or replaces the one of that name."""
    drop_metadata(model, name)
    data = json.dumps(content, separators=(",", ":")).encode()
    buffers = model.tree.buffers
    buffers.append(schema.BufferT(data=np.frombuffer(data, np.uint8)))
    entry = schema.MetadataT(name=name, buffer=len(buffers) - 1)
    model.tree.metadata = [*(model.tree.metadata or ()), entry]


def read_metadata(model: Model, name: str) -> Any:
    """Returns what an entry holds; None where there is none.

    Raises:
        ConversionError: If it is not JSON.
    """
    entry = _entry(model, name)
    if entry is None:
        return None
    try:
        return json.loads(bytes(model.tree.buffers[entry.buffer].data))
    except (ValueError, TypeError) as error:
        raise damaged(name, error) from error


def drop_metadata(model: Model, name: str) -> None:
    """Takes an entry out of the file again."""
    entry = _entry(model, name)
    if entry is None:
        return
    buffers = model.tree.buffers
    if entry.buffer == len(buffers) - 1:
        buffers.pop()
    else:
        buffers[entry.buffer] = schema.BufferT()
    model.tree.metadata = [kept for kept in model.tree.metadata if kept is not entry]


def damaged(name: str, error: Exception) -> ConversionError:
    """The error for an entry that is not what its name promises."""
    return ConversionError(f"metadata {name!r} is damaged: {error}")


def _entry(model: Model, name: str) -> schema.MetadataT | None:
    entries = model.tree.metadata or ()
    return next((entry for entry in entries if text(entry.name) == name), None)
