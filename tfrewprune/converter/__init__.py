# SPDX-License-Identifier: Apache-2.0
"""Converts models: a dense ``.tflite`` in, one with packed layers out, and back.

The stages are one file each: ``export`` (Keras to dense ``.tflite``), ``flatbuffer``
(read), ``detect`` (which layers), ``plan`` (decide), ``perform`` (do), ``verify``,
``report``.
"""

from tfrewprune.converter.conversion import convert, unpack
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.reasons import SkipReason
from tfrewprune.converter.report import ConversionReport, Converted

__all__ = [
    "ConversionError",
    "ConversionReport",
    "Converted",
    "SkipReason",
    "convert",
    "unpack",
]
