# SPDX-License-Identifier: Apache-2.0
"""Feeds recurrent models frame by frame, as they come."""

from __future__ import annotations

import os
import queue
from typing import Any

import numpy as np

from tfrewprune.converter.conversion import add_states, convert, read_content
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.files import is_keras_file
from tfrewprune.converter.flatbuffer import read_model
from tfrewprune.converter.recurrent.masked import masking_values
from tfrewprune.runtime.interface import read_interface
from tfrewprune.runtime.interpreter import Interpreter
from tfrewprune.runtime.pieces import BLOCK, Worker

_TOLERANCE = 1e-3


class Streamer:
    """Runs a recurrent model over endless sequences, in pieces of any length.

    The model is loaded once; every stream has its own states, which are 0 at its
    beginning. All layers besides the recurrent ones must look at one frame at a time,
    which is checked by running a sequence whole and in pieces.

    Args:
        model: A Keras model, or the path or bytes of a `.tflite` model that `convert`
            wrote, with or without `streaming=True`. Its inputs, one or several of any
            dtype, must be `[batch, time, ...]`, with the time open
            (`Input((None, 39))`), or of one frame. States that it takes as inputs
            already, `initial_state` of a layer, are kept by the streams, too.
        workers: How many streams can be pushed at the same time, from as many Python
            threads.
        num_threads: Threads that share one push; see `Interpreter`.
        isa: Kernels; see `Interpreter`.

    Raises:
        ConversionError: If the model cannot be streamed; the message says why.
        OSError: If a file cannot be read.

    Example:
        >>> streamer = trp.Streamer("speech.tflite")  # doctest: +SKIP
        >>> for frames in microphone:  # [n, 39], any n  # doctest: +SKIP
        ...     phones = streamer.push(frames)  # [n, 51]
        >>> other = streamer.stream()  # another speaker, same weights  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        *,
        workers: int = 1,
        num_threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers must be at least 1, received {workers!r}")
        content = _streaming_content(model)

        def make() -> Interpreter:
            return Interpreter(content, num_threads=num_threads, isa=isa)

        tree = read_model(content)
        self._interface = read_interface(tree, make())
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()
        for _ in range(workers):
            self._free.put(Worker(make, self._interface))
        self._own = self.stream()
        if self._interface.open:
            for value in masking_values(tree):
                self._check(value)

    @property
    def frame_shape(self) -> Any:
        """Shape of a frame; of a model with several inputs a dict of shapes by name."""
        return self._interface.frame_shape

    def stream(self) -> Stream:
        """Returns a new stream at its beginning."""
        return Stream(self)

    def push(self, frames: Any) -> Any:
        """Pushes frames into the streamer's own stream; see `Stream.push`."""
        return self._own.push(frames)

    def reset(self) -> None:
        """Takes the streamer's own stream back to its beginning."""
        self._own.reset()

    def random_frames(self, count: int, seed: int = 0) -> Any:
        """Returns frames as `push` takes them: normal floats, integers of 0 and 1."""
        frames = self._random(count, seed)
        return frames[0] if len(frames) == 1 else frames

    def _random(self, count: int, seed: int) -> list[np.ndarray]:
        generator = np.random.default_rng(seed)
        return [one.random(count, generator) for one in self._interface.inputs]

    def _run(
        self, states: list[np.ndarray], frames: list[np.ndarray]
    ) -> tuple[list[np.ndarray | None], list[np.ndarray]]:
        worker = self._free.get()
        try:
            return worker.run(states, frames)
        finally:
            self._free.put(worker)

    def _check(self, masked: float) -> None:
        """Compares a sequence in pieces with the whole one.

        The first frames of its second and its third piece are such as masking passes
        over, if the model masks.
        """
        frames = self._random(BLOCK + 3, 0)
        for array in frames:
            floats = np.issubdtype(array.dtype, np.floating)
            array[[1, BLOCK + 1]] = masked if floats else 0
        worker = self._free.get()
        begin = self._interface.first_states()
        whole = worker.run_at_once(begin, frames)
        first, states = worker.run(begin, [array[:1] for array in frames])
        rest, _ = worker.run(states, [array[1:] for array in frames])
        self._free.put(worker)
        for place, timed in enumerate(worker.timed):
            expected = np.asarray(whole[place], np.float64)
            received = rest[place]
            if timed:
                received = np.concatenate([first[place], received])
            scale = max(float(np.abs(expected).max()), 1e-6)
            if not np.abs(received - expected).max() <= _TOLERANCE * scale:
                raise ConversionError(
                    "the model cannot be streamed: a sequence in pieces gives other "
                    "outputs than the whole one; a layer besides the packed recurrent "
                    "ones looks at more than one frame"
                )


class Stream:
    """One sequence on its way through a model; `Streamer.stream` makes it.

    A stream belongs to one thread at a time; different streams may run at once.
    """

    def __init__(self, streamer: Streamer) -> None:
        self._streamer = streamer
        self.reset()

    def reset(self) -> None:
        """Back to the beginning, where all states are 0."""
        self._states = self._streamer._interface.first_states()

    def push(self, frames: Any) -> Any:
        """Runs the next frames.

        Args:
            frames: One frame, or `[n, ...]` of them, n >= 0; cast to the dtype of the
                model's input. For a model with several inputs a list of such arrays in
                the model's order, or a dict of them by name, with as many frames each.

        Returns:
            The model's output for these frames: `[n, ...]`, or of the last frame alone
            if the model gives out nothing else. If it has several outputs a list of
            them in its order, or a dict if it names them, as Keras' `predict` does.
            None for an output of the last frame of no frames.

        Raises:
            ValueError: If frames have another shape than the model takes, or its inputs
                do not get as many of them.
        """
        interface = self._streamer._interface
        taken = interface.take(frames)
        outputs, self._states = self._streamer._run(self._states, taken)
        return interface.give(outputs)


def _streaming_content(model: Any) -> bytes:
    if isinstance(model, (bytes, bytearray, str, os.PathLike)):
        is_file = not isinstance(model, (bytes, bytearray))
        exported = is_file and (os.path.isdir(model) or is_keras_file(model))
        if not exported:
            return add_states(read_content(model, may_export=False))
    return convert(model, streaming=True)
