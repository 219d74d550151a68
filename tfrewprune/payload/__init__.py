# SPDX-License-Identifier: Apache-2.0
"""Packed weight matrices: the format and the packer (numpy only)."""

from tfrewprune.payload.format import (
    BandedMatrix,
    Header,
    PayloadError,
    decode,
    encode,
    read_header,
    unpack_matrix,
)
from tfrewprune.payload.packer import pack_matrix

__all__ = [
    "BandedMatrix",
    "Header",
    "PayloadError",
    "decode",
    "encode",
    "pack_matrix",
    "read_header",
    "unpack_matrix",
]
