# SPDX-License-Identifier: Apache-2.0
"""Runs packed models: LiteRT's interpreter with the native delegate in place."""

from typing import Any

from tfrewprune.runtime.library import LibraryNotFoundError, delegate_path

__all__ = [
    "CompiledModel",
    "Interpreter",
    "LibraryNotFoundError",
    "Streamer",
    "delegate_path",
]


def __getattr__(name: str) -> Any:
    # `delegate_path` alone needs no LiteRT.
    if name == "Interpreter":
        from tfrewprune.runtime.interpreter import Interpreter

        return Interpreter
    if name == "CompiledModel":
        from tfrewprune.runtime.compiled_model import CompiledModel

        return CompiledModel
    if name == "Streamer":
        from tfrewprune.runtime.streamer import Streamer

        return Streamer
    raise AttributeError(f"module 'tfrewprune.runtime' has no attribute {name!r}")
