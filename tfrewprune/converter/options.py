# SPDX-License-Identifier: Apache-2.0
"""Custom options of the packed operators: 16 integers, see ``PAYLOAD.md``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import ClassVar, TypeAlias

from tfrewprune.converter.errors import ConversionError

# LiteRT without our delegate prints the name, and nothing else of ours, when it refuses
# a model: it says where to go.
CONV_2D = "TfrewpruneConv2D (run it in tfrewprune.Interpreter)"
FULLY_CONNECTED = "TfrewpruneFullyConnected (run it in tfrewprune.Interpreter)"
GRU = "TfrewpruneGRU (run it in tfrewprune.Interpreter)"
LSTM = "TfrewpruneLSTM (run it in tfrewprune.Interpreter)"
RNN = "TfrewpruneRNN (run it in tfrewprune.Interpreter)"
OPERATORS = (CONV_2D, FULLY_CONNECTED, GRU, LSTM, RNN)
RECURRENT = (GRU, LSTM, RNN)
BUILTIN_NAMES = {
    CONV_2D: "CONV_2D",
    FULLY_CONNECTED: "FULLY_CONNECTED",
    GRU: "GRU",
    LSTM: "LSTM",
    RNN: "RNN",
}
"""The operators that packed ones were."""

_MAGIC = 0x4F504654
_BLOCK = struct.Struct("<16i")
_LARGEST_FLOAT = 0x7F7FFFFF  # its bits; those of positive floats ascend as they do


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


@dataclass(frozen=True)
class RecurrentOptions:
    """What a packed recurrent layer must know besides its weights.

    Attributes:
        kind: `GRU`, `LSTM` or `RNN`.
        activation: 0 linear, 1 relu, 2 sigmoid, 3 tanh.
        recurrent_activation: Likewise, of the gates.
        reset_after: Whether a GRU applies its reset gate after the product.
        go_backwards: Whether it begins at the last step.
        outputs: `STATES`: the last states alone; `SEQUENCE`: what every step gives out,
            before them; `LAST`: what the last step gives out, which differs from the
            state where steps are masked.
        zero_output: Whether masked steps give out zeros, not what came before.
        cell_clip: What cell states of an LSTM are clipped to, above and below 0; 0 is
            not at all.
        stateful: Whether the states of an LSTM are variable tensors, which it begins
            with and leaves its last states in, as `UNIDIRECTIONAL_SEQUENCE_LSTM` does.
    """

    kind: int
    activation: int
    recurrent_activation: int
    reset_after: int
    go_backwards: int
    outputs: int
    zero_output: int
    cell_clip: float = 0.0
    stateful: int = 0

    GRU: ClassVar[int] = 2
    LSTM: ClassVar[int] = 3
    RNN: ClassVar[int] = 4
    STATES: ClassVar[int] = 0
    SEQUENCE: ClassVar[int] = 1
    LAST: ClassVar[int] = 2

    @property
    def lstm(self) -> bool:
        return self.kind == self.LSTM

    @property
    def gates(self) -> int:
        """How many times the units the rows of the kernel are."""
        return {self.GRU: 3, self.LSTM: 4, self.RNN: 1}[self.kind]

    @property
    def operator(self) -> str:
        """The name of the packed operator."""
        return OPERATORS[self.kind]

    @property
    def results(self) -> int:
        """How many outputs the packed operator has."""
        states = 0 if self.stateful else 1 + self.lstm
        return states + (self.outputs != self.STATES)

    def words(self) -> tuple[int, ...]:
        *numbers, clip, stateful = astuple(self)
        return *numbers, *struct.unpack("<i", struct.pack("<f", clip)), stateful

    @classmethod
    def parse(cls, words: Sequence[int]) -> RecurrentOptions | None:
        """The options of their own words; None if they are none."""
        highest = (4, 3, 3, 1, 1, 2, 1, _LARGEST_FLOAT, 1)
        if len(words) != len(highest) or words[0] < cls.GRU:
            return None
        if not all(0 <= n <= most for n, most in zip(words, highest, strict=True)):
            return None
        if words[3] and words[0] != cls.GRU or words[2] and words[0] == cls.RNN:
            return None
        *numbers, clip, stateful = words
        made = cls(*numbers, *struct.unpack("<f", struct.pack("<i", clip)), stateful)
        if any(words[7:]) and not made.lstm:
            return None
        # relu or tanh, gates of sigmoids, forwards, every step: what TFLite's can be.
        kept = (2, 0, cls.SEQUENCE, 0)
        if stateful and (words[1] not in (1, 3) or (words[2], *words[4:7]) != kept):
            return None
        return made

    def encode(self) -> bytes:
        return _BLOCK.pack(_MAGIC, 1, self.kind, 0, *self.words()[1:], *(0,) * 4)


Options: TypeAlias = ConvOptions | FullyConnectedOptions | RecurrentOptions


def decode(custom_code: str, data: bytes) -> Options:
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
    if custom_code in RECURRENT:
        made = RecurrentOptions.parse((values[2], *values[4:12]))
        if made is None or values[3] or values[12]:
            refuse("the options of a recurrent layer", values[3:])
        return made
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
