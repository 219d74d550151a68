# SPDX-License-Identifier: Apache-2.0
"""Runs a streaming model on pieces of sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfrewprune.runtime.interface import Interface
from tfrewprune.runtime.interpreter import Interpreter

BLOCK = 16
"""Frames that go through the model at once, when so many are there."""


class Worker:
    """Interpreters of one model: for one frame, and for a block of them.

    Args:
        make: Makes an interpreter of the model.
        interface: Its inputs and outputs.

    Attributes:
        timed: Which outputs have a row for every frame.
    """

    def __init__(self, make: Callable[[], Interpreter], interface: Interface) -> None:
        self._make = make
        self._interface = interface
        self._single = self._sized(1)
        self._block = self._sized(BLOCK) if interface.open else None
        self.timed = self._find_timed()

    def run(
        self, states: list[np.ndarray], frames: list[np.ndarray]
    ) -> tuple[list[np.ndarray | None], list[np.ndarray]]:
        """Runs as many frames of every input.

        Returns:
            The outputs, None for one of the last frame of none; and the states after.
        """
        rows: list[list[np.ndarray]] = [[] for _ in self._interface.outputs]
        place, end = 0, len(frames[0])
        while place < end:
            count = 1
            if self._block is not None and end - place >= BLOCK:
                count = BLOCK
            interpreter = self._block if count > 1 else self._single
            piece = [array[place : place + count] for array in frames]
            outputs, states = self._call(interpreter, states, piece)
            for row, output in zip(rows, outputs, strict=True):
                row.append(output[0])
            place += count
        return [self._join(i, row) for i, row in enumerate(rows)], states

    def run_at_once(
        self, states: list[np.ndarray], frames: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Outputs of a sequence in one call, of a model whose time is open."""
        interpreter = self._sized(len(frames[0]))
        return [output[0] for output in self._call(interpreter, states, frames)[0]]

    def _sized(self, count: int) -> Interpreter:
        interpreter = self._make()
        for one in self._interface.inputs:
            interpreter.resize_tensor_input(one.index, (1, count, *one.frame_shape))
        for state in self._interface.states:
            interpreter.resize_tensor_input(state.before, state.shape)
        interpreter.allocate_tensors()
        return interpreter

    def _find_timed(self) -> list[bool]:
        ones = self._shapes(self._single, 1)
        if self._block is None:
            return [len(shape) > 2 and shape[1] == 1 for shape in ones]
        many = self._shapes(self._block, BLOCK)
        return [
            len(one) > 1 and one[1] == 1 and several[1] == BLOCK
            for one, several in zip(ones, many, strict=True)
        ]

    def _shapes(self, interpreter: Interpreter, count: int) -> list[tuple[int, ...]]:
        frames = [
            np.zeros((count, *one.frame_shape), one.dtype)
            for one in self._interface.inputs
        ]
        states = self._interface.first_states()
        return [output.shape for output in self._call(interpreter, states, frames)[0]]

    def _call(
        self,
        interpreter: Interpreter,
        states: list[np.ndarray],
        frames: list[np.ndarray],
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        known = self._interface
        for one, array in zip(known.inputs, frames, strict=True):
            interpreter.set_tensor(one.index, array[None])
        for state, value in zip(known.states, states, strict=True):
            interpreter.set_tensor(state.before, value)
        interpreter.invoke()
        after = [interpreter.get_tensor(state.after) for state in known.states]
        return [interpreter.get_tensor(index) for index in known.outputs], after

    def _join(self, place: int, rows: list[np.ndarray]) -> np.ndarray | None:
        if not self.timed[place]:
            return rows[-1] if rows else None
        if not rows:
            row = self._single.get_tensor(self._interface.outputs[place])
            return np.zeros((0, *row.shape[2:]), row.dtype)
        return rows[0] if len(rows) == 1 else np.concatenate(rows)
