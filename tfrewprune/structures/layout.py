# SPDX-License-Identifier: Apache-2.0
"""How a weight tensor is read as the GEMM matrix that structures cut into groups.

TFLite stores a convolution filter as OHWI, so its matrix has one row an output
channel and the columns run over (kernel position, input channel). Keras keeps the same
numbers as (kernel position..., input channel, output channel), that is, the transposed
matrix with its columns in exactly that order. Structures therefore work on one
canonical three-axis view, *kernel*: (positions, channels, outputs). For the common
layers reaching it is a reshape, which costs nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np


class KernelShape(NamedTuple):
    """Extent of a kernel: kernel positions, input channels, outputs.

    The GEMM matrix has `outputs` rows and `positions * channels` columns; column
    `position * channels + channel` (OHWI order).
    """

    positions: int
    channels: int
    outputs: int

    @property
    def columns(self) -> int:
        """Columns of the GEMM matrix."""
        return self.positions * self.channels

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.positions * self.channels * self.outputs


KINDS = ("conv", "conv_transpose", "dense", "gate", "heads")


@dataclasses.dataclass(frozen=True)
class KernelLayout:
    """Where a layer's weight tensor keeps positions, input channels and outputs.

    Args:
        kind: How the axes are read.

            - `"conv"`: (position..., channel, output), as in `Conv1D/2D/3D`, in the
              pointwise kernel of the separable layers and, without positions, in
              `Dense`.
            - `"conv_transpose"`: (position..., output, channel).
            - `"dense"`: (input axes..., output axes...), as in `EinsumDense`.
            - `"gate"`: (channel, `parts` times output), the matrices of a recurrent
              cell's gates side by side. The kernel is gate number `part` alone.
            - `"heads"`: (input axes..., head, other axes...), a projection of an
              attention layer. The kernel has one output a head: all that a head owns of
              the tensor. Where the axis counts finer, `parts` says how many heads.
        input_axes: Number of leading input axes; for `"dense"` and `"heads"`.
        parts: Number of gates, or of heads (0: as many as the axis is long).
        part: Number of the gate.

    Example:

    >>> KernelLayout().kernel_shape((3, 3, 16, 32))
    KernelShape(positions=9, channels=16, outputs=32)
    >>> KernelLayout("gate", parts=3, part=1).kernel_shape((39, 3 * 64))
    KernelShape(positions=1, channels=39, outputs=64)
    """

    kind: str = "conv"
    input_axes: int = 1
    parts: int = 0
    part: int = 0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(
                f"Invalid value for argument `kind`. Expected one of {KINDS}. "
                f"Received: kind={self.kind!r}"
            )
        least = 0 if self.kind == "heads" else 1
        if self.input_axes < least:
            raise ValueError(
                f"Argument `input_axes` must be at least {least}. "
                f"Received: input_axes={self.input_axes!r}"
            )
        if self.kind == "gate" and not 0 <= self.part < self.parts:
            raise ValueError(
                "A layout of one gate needs the number of gates, `parts`, and which "
                f"one it is, `part`. Received: parts={self.parts}, part={self.part}"
            )

    @property
    def suffix(self) -> str:
        """Tells layouts that read the same tensor apart; empty for all of a tensor."""
        return {"gate": f"_{self.part}", "heads": "_heads"}.get(self.kind, "")

    def kernel_shape(self, shape: tuple[int, ...]) -> KernelShape:
        """Extent of the kernel held by a weight tensor of `shape`.

        Raises:
            ValueError: The tensor has too few axes to be a matrix, or its last axis
                is no multiple of the number of gates.
        """
        shape = tuple(int(extent) for extent in shape)
        minimum = self.input_axes + 1 if self.kind == "dense" else 2
        if len(shape) < minimum:
            raise ValueError(
                f"A weight tensor in layout {self.kind!r} needs at least {minimum} "
                f"axes to be read as a matrix. Received: shape={shape}"
            )
        if self.kind == "dense":
            inputs = math.prod(shape[: self.input_axes])
            return KernelShape(1, inputs, math.prod(shape[self.input_axes :]))
        if self.kind in ("gate", "heads"):
            axis = -1 if self.kind == "gate" else self.input_axes
            parts = self.parts or shape[axis]
            if parts and shape[axis] % parts:
                raise ValueError(
                    f"A weight tensor that holds {parts} {self.kind} needs a multiple "
                    f"of {parts} on axis {axis}. Received: shape={shape}"
                )
            count = math.prod(shape) // max(parts, 1)
            if self.kind == "heads":
                return KernelShape(1, count, parts)
            return KernelShape(1, math.prod(shape[:-1]), shape[-1] // parts)
        positions = math.prod(shape[:-2])
        if self.kind == "conv_transpose":
            return KernelShape(positions, shape[-1], shape[-2])
        return KernelShape(positions, shape[-2], shape[-1])

    def to_kernel(self, tensor, xp: Any = np):
        """Weight tensor -> (positions, channels, outputs); numpy or keras.ops."""
        shape = self.kernel_shape(tensor.shape)
        if self.kind == "conv_transpose":
            swapped = (shape.positions, shape.outputs, shape.channels)
            return xp.transpose(xp.reshape(tensor, swapped), (0, 2, 1))
        if self.kind == "heads":
            before = math.prod(tensor.shape[: self.input_axes])
            by_head = xp.reshape(tensor, (before, shape.outputs, -1))
            return xp.reshape(xp.transpose(by_head, (0, 2, 1)), tuple(shape))
        if self.kind == "gate":
            start = self.part * shape.outputs
            tensor = tensor[..., start : start + shape.outputs]
        return xp.reshape(tensor, tuple(shape))

    def from_kernel(self, kernel, shape: tuple[int, ...], xp: Any = np, rest=None):
        """Inverse of `to_kernel`, for a weight tensor of `shape`.

        Args:
            kernel: (positions, channels, outputs).
            shape: Of the weight tensor.
            xp: numpy or keras.ops.
            rest: A weight tensor that gives what the kernel does not hold: the other
                gates. Only for `"gate"`.
        """
        shape = tuple(shape)
        if self.kind == "conv_transpose":
            kernel = xp.transpose(kernel, (0, 2, 1))
        if self.kind == "heads":
            before = math.prod(shape[: self.input_axes])
            kernel = xp.reshape(kernel, (before, -1, kernel.shape[-1]))
            kernel = xp.transpose(kernel, (0, 2, 1))
        if self.kind == "gate":
            start, stop = (n * kernel.shape[-1] for n in (self.part, self.part + 1))
            gate = xp.reshape(kernel, (*shape[:-1], kernel.shape[-1]))
            parts = [rest[..., :start], gate, rest[..., stop:]]
            return xp.concatenate(parts, axis=-1)
        return xp.reshape(kernel, shape)

    def get_config(self) -> dict:
        """JSON-serializable arguments of the constructor."""
        return dataclasses.asdict(self)

    @classmethod
    def get(cls, value: KernelLayout | dict | None) -> KernelLayout:
        """Layout from a layout, its config, or None for the default."""
        if value is None:
            return cls()
        return value if isinstance(value, cls) else cls(**value)


def kernel_from_matrix(matrix: np.ndarray, positions: int = 1) -> np.ndarray:
    """GEMM matrix (outputs, positions * channels) in OHWI order -> kernel view."""
    outputs, columns = matrix.shape
    if positions < 1 or columns % positions:
        raise ValueError(
            f"The {columns} columns of the matrix must be a multiple of `positions`. "
            f"Received: positions={positions}"
        )
    kernel = matrix.reshape(outputs, positions, columns // positions)
    return kernel.transpose(1, 2, 0)


def matrix_from_kernel(kernel: np.ndarray) -> np.ndarray:
    """Kernel view -> GEMM matrix (outputs, positions * channels) in OHWI order."""
    positions, channels, outputs = kernel.shape
    return kernel.transpose(2, 0, 1).reshape(outputs, positions * channels)
