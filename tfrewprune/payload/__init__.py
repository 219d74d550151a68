# SPDX-License-Identifier: Apache-2.0
"""Packed weight matrices: the format and the packer (numpy only)."""

from tfrewprune.payload.format import (
    BandedMatrix,
    Header,
    decode,
    encode,
    read_header,
)
from tfrewprune.payload.irregular import (
    IrregularMatrix,
    decode_irregular,
    encode_irregular,
)
from tfrewprune.payload.packer import pack_matrix
from tfrewprune.payload.reading import unpack_matrix
from tfrewprune.payload.values import PayloadError

__all__ = [
    "BandedMatrix",
    "Header",
    "IrregularMatrix",
    "PayloadError",
    "decode",
    "decode_irregular",
    "encode",
    "encode_irregular",
    "pack_matrix",
    "read_header",
    "unpack_matrix",
]
