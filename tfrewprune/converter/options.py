# SPDX-License-Identifier: Apache-2.0
"""Custom options of the packed operators: 16 integers, see ``PAYLOAD.md``."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from tfrewprune.converter.errors import ConversionError

# LiteRT without our delegate prints the name, and nothing else of ours, when it refuses
# a model: it says where to go.
CONV_2D = "TfrewpruneConv2D (run it in tfrewprune.Interpreter)"
FULLY_CONNECTED = "TfrewpruneFullyConnected (run it in tfrewprune.Interpreter)"
OPERATORS = (CONV_2D, FULLY_CONNECTED)
BUILTIN_NAMES = {CONV_2D: "CONV_2D", FULLY_CONNECTED: "FULLY_CONNECTED"}
"""The operators that packed ones were."""

_MAGIC = 0x4F504654
_BLOCK = struct.Struct("<16i")


@dataclass(frozen=True)
class ConvOptions:
    """What a packed convolution must know besides its weights.

    ``activation`` is TFLite's ``ActivationFunctionType``; ``padding`` its ``Padding``
    (0 SAME, 1 VALID). ``own_output`` is the index of the tensor that the convolution
    wrote before it took over the addition behind it, or None: it names the layer and
    comes back when the model is unpacked.
    """

    activation: int
    kernel_height: int
    kernel_width: int
    input_channels: int
    stride_height: int
    stride_width: int
    dilation_height: int
    dilation_width: int
    padding: int
    own_output: int | None = None

    def encode(self) -> bytes:
        *numbers, own_output = astuple(self)
        own_output = 0 if own_output is None else own_output + 1
        return _BLOCK.pack(_MAGIC, 1, 0, *numbers, own_output, 0, 0, 0)


@dataclass(frozen=True)
class FullyConnectedOptions:
    """What a packed fully connected layer must know besides its weights."""

    activation: int
    keep_num_dims: int
    asymmetric_inputs: int = 0
    """What LiteRT's int8 operator was told to round activations to; unpacking needs it,
    the packed operator rounds none."""

    def encode(self) -> bytes:
        head = (_MAGIC, 1, 1, self.activation)
        tail = (self.keep_num_dims, self.asymmetric_inputs, 0, 0, 0)
        return _BLOCK.pack(*head, *(0,) * 7, *tail)


def decode(custom_code: str, data: bytes) -> ConvOptions | FullyConnectedOptions:
    """Reads the custom options of a packed operator.

    Raises:
        ConversionError: If they are damaged or of another version.
    """

    def refuse(expected: str, received: object) -> None:
        raise ConversionError(
            f"custom options of {custom_code}: expected {expected}, received {received}"
        )

    if len(data) != _BLOCK.size:
        refuse(f"{_BLOCK.size} bytes", len(data))
    values = _BLOCK.unpack(data)
    if values[:2] != (_MAGIC, 1):
        refuse(f"magic and version {(_MAGIC, 1)}", values[:2])
    if values[2] != OPERATORS.index(custom_code):
        refuse(f"operator {OPERATORS.index(custom_code)}", values[2])
    if not 0 <= values[3] <= 5:
        refuse("an activation from 0 to 5", values[3])
    if any(values[13:]):
        refuse("zeros in words 13 to 15", values[13:])
    if values[11] not in (0, 1):
        refuse("0 or 1 in word 11", values[11])
    if custom_code == FULLY_CONNECTED:
        if any(values[4:11]):
            refuse("zeros in words 4 to 10", values[4:11])
        if values[12] not in (0, 1):
            refuse("0 or 1 in word 12", values[12])
        return FullyConnectedOptions(values[3], *values[11:13])
    if min(values[4:11]) < 1:
        refuse("kernel, channels, strides and dilations of at least 1", values[4:11])
    if values[12] < 0:
        refuse("0 or 1 + a tensor index in word 12", values[12])
    return ConvOptions(*values[3:12], values[12] - 1 if values[12] else None)
