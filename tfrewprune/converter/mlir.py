# SPDX-License-Identifier: Apache-2.0
"""What TensorFlow's converter says in hundreds of lines of MLIR, in one sentence."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator

_LONGEST = 400
_MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_REFUSED = re.compile(r"'tf\.(\w+)' op (requires [^\n]*)")
_LOCATION = re.compile(r"<unknown>:0: |error: |loc\(.*\)\): (?=')")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def shorten(error: Exception) -> str:
    """Returns the one sentence of an error that tells its reader what is wrong."""
    message = str(error)
    missing = sorted(set(_MISSING.findall(message)))
    if missing:
        return f"TFLite has no operator for {', '.join(missing)}"
    refused = _REFUSED.search(message)
    if refused is not None:
        return f"{refused[1]} {refused[2]}"
    message = _COLOUR.sub("", _LOCATION.sub("", message))
    message = message.partition("\n\nArguments received by")[0]  # Keras' own dump
    message = " ".join(message.split()).removesuffix(".")
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]} ..."
    return message or type(error).__name__


@contextlib.contextmanager
def native_output_hidden() -> Iterator[None]:
    """Hides what C++ writes to standard error; exceptions carry the same text."""
    sys.stderr.flush()
    saved, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)
