# SPDX-License-Identifier: Apache-2.0
"""Feeds recurrent models frame by frame, as they come."""

from __future__ import annotations

import os
import queue
from typing import Any

import numpy as np

from tfrewprune.converter.conversion import add_states, convert, read_content
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import read_model
from tfrewprune.converter.recurrent.streaming import state_names
from tfrewprune.runtime.interpreter import Interpreter

# Frames that go through the model at once, when so many are there.
_BLOCK = 16
_TOLERANCE = 1e-3


class Streamer:
    """Runs a recurrent model over endless sequences, in pieces of any length.

    The model is loaded once; every stream has its own states. All layers besides the
    recurrent ones must look at one frame at a time, which is checked by running a
    sequence whole and in pieces.

    Args:
        model: A Keras model, or the path or bytes of a `.tflite` model that `convert`
            wrote, with or without `streaming=True`. It must have one input,
            `[batch, time, ...]`, with the time open (`Input((None, 39))`), or of one
            frame.
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
        if not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers must be at least 1, received {workers!r}")
        self._content = _streaming_content(model)
        names = state_names(read_model(self._content))
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for _ in range(workers):
            self._free.put(_Worker(self._content, names, num_threads, isa))
        worker = self._free.get()
        self._frame_shape = worker.frame_shape
        self._begin = worker.first_states()
        self._free.put(worker)
        self._own = self.stream()
        self._check()

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        return self._frame_shape

    def stream(self) -> Stream:
        """Returns a new stream at its beginning."""
        return Stream(self)

    def push(self, frames: np.ndarray) -> Any:
        """Pushes frames into the streamer's own stream; see `Stream.push`."""
        return self._own.push(frames)

    def reset(self) -> None:
        """Takes the streamer's own stream back to its beginning."""
        self._own.reset()

    def _run(self, states: list[np.ndarray], frames: np.ndarray) -> tuple[Any, Any]:
        worker = self._free.get()
        try:
            return worker.run(states, frames)
        finally:
            self._free.put(worker)

    def _check(self) -> None:
        generator = np.random.default_rng(0)
        count = _BLOCK + 3
        frames = generator.standard_normal((count, *self._frame_shape), np.float32)
        worker = self._free.get()
        try:
            whole, _ = worker.run_at_once(self._begin, frames)
        finally:
            self._free.put(worker)
        if whole is None:
            return
        stream = self.stream()
        parts = [stream.push(frames[:1]), stream.push(frames[1:])]
        for place, expected in enumerate(whole):
            pieces = [_as_list(part)[place] for part in parts]
            timed = worker.timed[place]
            received = np.concatenate(pieces) if timed else pieces[-1]
            scale = max(float(np.abs(expected).max()), 1e-6)
            if not np.abs(received - expected).max() <= _TOLERANCE * scale:
                raise ConversionError(
                    "the model cannot be streamed: a sequence in pieces gives other "
                    "outputs than the whole one; a layer besides the recurrent ones "
                    "looks at more than one frame"
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
        self._states = [np.array(state) for state in self._streamer._begin]

    def push(self, frames: np.ndarray) -> Any:
        """Runs the next frames.

        Args:
            frames: One frame, or `[n, ...]` of them, n >= 0; cast to float32.

        Returns:
            The model's output for these frames: `[n, ...]`, or of the last frame alone
            if the model gives out nothing else; a list if it has several outputs. None
            for an output of the last frame of no frames.

        Raises:
            ValueError: If frames have another shape than the model takes.
        """
        frames = np.asarray(frames, np.float32)
        shape = self._streamer.frame_shape
        if frames.shape == shape:
            frames = frames[None]
        if frames.shape[1:] != shape or frames.ndim != len(shape) + 1:
            raise ValueError(
                f"frames must have the shape {list(shape)} or [n, "
                f"{', '.join(map(str, shape))}], received {list(frames.shape)}"
            )
        outputs, self._states = self._streamer._run(self._states, frames)
        return outputs[0] if len(outputs) == 1 else outputs


class _Worker:
    """Interpreters of one model: for one frame, and for a block of them."""

    def __init__(
        self,
        content: bytes,
        names: list[tuple[str, str]],
        num_threads: int | None,
        isa: str | None,
    ) -> None:
        self._make = lambda: Interpreter(content, num_threads=num_threads, isa=isa)
        self._names = names
        self._single = self._make()
        inputs = self._single.get_input_details()
        before = {name for name, _ in names}
        frames = [d for d in inputs if _plain(d["name"]) not in before]
        if len(frames) != 1 or len(frames[0]["shape"]) < 2:
            raise ConversionError(
                "a streaming model must have one input [batch, time, ...] besides its "
                f"states, received {[d['name'] for d in frames]}"
            )
        signature = frames[0]["shape_signature"]
        if signature[0] not in (-1, 1) or -1 in signature[2:]:
            raise ConversionError(
                "a streaming model must take [1, time, ...], received "
                f"{signature.tolist()}"
            )
        if signature[1] not in (-1, 1):
            raise ConversionError(
                "the time of a streaming model must be open, as in Input((None, "
                f"{signature[2]})), or 1, received {signature[1]}"
            )
        self.open = bool(signature[1] == -1)
        self.frame_shape = tuple(int(n) for n in signature[2:])
        self._x = frames[0]["index"]
        by_name = {_plain(d["name"]): d for d in inputs}
        outputs = self._single.get_output_details()
        out_by_name = {_plain(d["name"]): d for d in outputs}
        try:
            self._states = [
                (by_name[name], out_by_name[after]["index"]) for name, after in names
            ]
        except KeyError as error:
            raise ConversionError(
                f"the model has no state {error} although its metadata names it"
            ) from None
        after = {index for _, index in self._states}
        self._outputs = [d["index"] for d in outputs if d["index"] not in after]
        if not self._outputs:
            raise ConversionError(
                "a streaming model must have an output, received none"
            )
        self._resize(self._single, 1)
        self._block = None
        self.timed = self._find_timed()

    def _resize(self, interpreter: Interpreter, count: int) -> None:
        interpreter.resize_tensor_input(self._x, (1, count, *self.frame_shape))
        for detail, _ in self._states:
            shape = (1, *detail["shape"][1:])
            interpreter.resize_tensor_input(detail["index"], shape)
        interpreter.allocate_tensors()

    def first_states(self) -> list[np.ndarray]:
        return [
            np.zeros((1, *detail["shape"][1:]), np.float32)
            for detail, _ in self._states
        ]

    def _find_timed(self) -> list[bool]:
        """Which outputs have a row for every frame."""
        states = self.first_states()
        shapes = [
            output.shape
            for output in self._call(
                self._single, states, np.zeros((1, *self.frame_shape), np.float32)
            )[0]
        ]
        if not self.open:
            return [len(shape) > 2 and shape[1] == 1 for shape in shapes]
        self._block = self._make()
        self._resize(self._block, _BLOCK)
        many = self._call(
            self._block, states, np.zeros((_BLOCK, *self.frame_shape), np.float32)
        )[0]
        return [
            len(one) > 1 and one[1] == 1 and output.shape[1] == _BLOCK
            for one, output in zip(shapes, many, strict=True)
        ]

    def _call(
        self, interpreter: Interpreter, states: list[np.ndarray], frames: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        interpreter.set_tensor(self._x, frames[None])
        for (detail, _), state in zip(self._states, states, strict=True):
            interpreter.set_tensor(detail["index"], state)
        interpreter.invoke()
        after = [interpreter.get_tensor(index) for _, index in self._states]
        return [interpreter.get_tensor(index) for index in self._outputs], after

    def run(
        self, states: list[np.ndarray], frames: np.ndarray
    ) -> tuple[list[np.ndarray | None], list[np.ndarray]]:
        rows: list[list[np.ndarray]] = [[] for _ in self._outputs]
        place = 0
        while place < len(frames):
            count = 1
            if self._block is not None and len(frames) - place >= _BLOCK:
                count = _BLOCK
            interpreter = self._block if count > 1 else self._single
            piece = frames[place : place + count]
            outputs, states = self._call(interpreter, states, piece)
            for row, output in zip(rows, outputs, strict=True):
                row.append(output[0])
            place += count
        return [self._join(i, row) for i, row in enumerate(rows)], states

    def _join(self, place: int, rows: list[np.ndarray]) -> np.ndarray | None:
        if not self.timed[place]:
            return rows[-1] if rows else None
        if not rows:
            detail = self._single.get_tensor(self._outputs[place])
            return np.zeros((0, *detail.shape[2:]), np.float32)
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def run_at_once(
        self, states: list[np.ndarray], frames: np.ndarray
    ) -> tuple[list[np.ndarray] | None, None]:
        """Outputs of a sequence in one call; None where the time is not open."""
        if not self.open:
            return None, None
        interpreter = self._make()
        self._resize(interpreter, len(frames))
        return [
            output[0] for output in self._call(interpreter, states, frames)[0]
        ], None


def _plain(name: str) -> str:
    """The name of a tensor without what signatures add."""
    return name.removeprefix("serving_default_").split(":")[0]


def _as_list(outputs: Any) -> list:
    return outputs if isinstance(outputs, list) else [outputs]


def _streaming_content(model: Any) -> bytes:
    if isinstance(model, (bytes, bytearray, str, os.PathLike)):
        is_file = not isinstance(model, (bytes, bytearray))
        exported = is_file and (
            os.path.isdir(model) or str(model).endswith((".keras", ".h5", ".hdf5"))
        )
        if not exported:
            return add_states(read_content(model, may_export=False))
    return convert(model, streaming=True)
