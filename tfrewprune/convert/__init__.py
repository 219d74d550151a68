# SPDX-License-Identifier: Apache-2.0
"""Converts models: a dense ``.tflite`` in, one with packed layers out, and back.

The stages are one file each: ``export`` (Keras to dense ``.tflite``), ``flatbuffer``
(read), ``detect`` (which layers), ``plan`` (decide), ``perform`` (do), ``verify``.
"""

import sys
from types import ModuleType
from typing import Any

from tfrewprune.convert.converter import convert, unpack
from tfrewprune.convert.errors import ConversionError

__all__ = ["ConversionError", "convert", "unpack"]


class _CallableModule(ModuleType):
    """`tfrewprune.convert` is a function to users and a package to Python.

    Importing any module in here makes Python put the package in the place of the
    function; calling the package must then do what the function does.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> bytes:
        return convert(*args, **kwargs)


_CallableModule.__call__.__doc__ = convert.__doc__
sys.modules[__name__].__class__ = _CallableModule
