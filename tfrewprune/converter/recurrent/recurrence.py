# SPDX-License-Identifier: Apache-2.0
"""One recurrent layer as tensors of a graph, whatever operators compute it."""

from __future__ import annotations

from dataclasses import dataclass

from tfrewprune.converter.options import RecurrentOptions


@dataclass(frozen=True)
class Weights:
    """The constants of one matrix of a recurrence.

    Attributes:
        buffer: Buffer of the model with the float32 matrix, rows = gates x units.
        rows: Rows of the matrix.
        columns: Columns of the matrix.
    """

    buffer: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer in the main graph of a model.

    Tensors are indices into the subgraph; -1 where there is none. B is the batch, T the
    number of steps, I the features, H the units and G the gates of the cell.

    Attributes:
        options: Which cell, and how it goes through the sequence.
        name: Name of the layer.
        units: H.
        x: The sequence, ``[B, T, I]``.
        kernel: Constant tensor, ``[G * H, I]``.
        bias: Constant tensor, ``[G * H]``.
        recurrent: Recurrent kernel ``[G * H, H]``; of a GRU that resets before the
            product the rows of its two gates.
        candidate: The other rows of such a GRU; None mostly.
        recurrent_bias: Buffer of the bias of ``recurrent``; None without one.
        mask: Truth values ``[B, T]``; False steps are passed over.
        h: State before the first step, ``[B, H]``.
        c: Cell state of an LSTM, likewise.
        outputs: Tensors written: what the layer gives out, if ``options.outputs`` is
            not 0, the last state, and the last cell state of an LSTM.
    """

    options: RecurrentOptions
    name: str
    units: int
    x: int
    kernel: int
    bias: int
    recurrent: Weights
    candidate: Weights | None
    recurrent_bias: int | None
    mask: int
    h: int
    c: int
    outputs: tuple[int, ...]
