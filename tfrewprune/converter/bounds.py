# SPDX-License-Identifier: Apache-2.0
"""Checks the skeleton of a ``.tflite`` file before anything else reads it."""

from __future__ import annotations

from tfrewprune.converter.errors import ConversionError


def check_bounds(content: memoryview) -> None:
    """Raises ConversionError unless every offset stays inside the file."""
    if len(content) < 8 or bytes(content[4:8]) != b"TFL3":
        raise ConversionError(
            "not a .tflite file: expected the identifier TFL3 at byte 4, received "
            f"{bytes(content[4:8])!r} in {len(content)} bytes"
        )
