# SPDX-License-Identifier: Apache-2.0
"""Warnings that point at the line of the user's code that called this package."""

from __future__ import annotations

import sys
import warnings

#: This package, and Keras, which calls its callbacks and loads its layers.
_BETWEEN = (__name__.partition(".")[0], "keras")


def warn_caller(message: str) -> None:
    """Issues a UserWarning at the nearest line that is neither ours nor Keras'."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] not in _BETWEEN:
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
