# SPDX-License-Identifier: Apache-2.0
"""Converts models: a dense ``.tflite`` in, one with packed layers out."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tfrewprune.convert.errors import ConversionError
from tfrewprune.convert.flatbuffer import read_model, write_model
from tfrewprune.convert.perform import perform
from tfrewprune.convert.plan import Settings, make_plan

__all__ = ["ConversionError", "convert"]


def convert(model, output=None, *, minimum_gain=1.0, band_rows=None) -> bytes:
    content = Path(model).read_bytes() if isinstance(model, (str, os.PathLike)) else model
    tree = read_model(content)
    decisions = make_plan(tree, Settings(minimum_gain, band_rows))
    perform(tree, decisions)
    packed = write_model(tree)
    if output is not None:
        Path(output).write_bytes(packed)
    return packed
