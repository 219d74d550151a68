# SPDX-License-Identifier: Apache-2.0
"""The fixed set of reasons for which a layer is left dense."""

from __future__ import annotations

import enum


class SkipReason(enum.Enum):
    """Why `convert` leaves a layer dense; the value completes "because ...".

    The sentence beside it, `reason`, tells what exactly was found in that layer.
    """

    NO_ZEROS = "none of their weights is 0"
    DENSE_IS_FASTER = "dense is predicted to be faster"
    PAYLOAD_IS_LARGER = (
        "packed weights would need more bytes than the file has for them"
    )
    OPERATOR = "their operator has no packed form"
    TYPE = "they are quantized, or of another type that is not packed"
    NOT_CONSTANT = "their weights are not constants of the file"
    UNSUPPORTED = "the packed operator lacks one of their options or shapes"
    DAMAGED = "they are damaged"
