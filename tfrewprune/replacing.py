# SPDX-License-Identifier: Apache-2.0
"""Methods of layers that others stand for, while a model is traced or watched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def replaced_for_now() -> Iterator[Callable[[Any, str, Any], None]]:
    """Yields what gives a layer a method of its own; afterwards all is as before."""
    replaced: list[tuple[Any, str]] = []

    def replace(layer: Any, name: str, value: Any) -> None:
        replaced.append((layer, name))
        # Not by Keras' own __setattr__, which tracks what it sees.
        object.__setattr__(layer, name, value)

    try:
        yield replace
    finally:
        for layer, name in replaced:
            object.__delattr__(layer, name)
