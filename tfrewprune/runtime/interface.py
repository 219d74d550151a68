# SPDX-License-Identifier: Apache-2.0
"""What goes into a streaming model frame by frame, and what comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.cases import random_values
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model, text
from tfrewprune.converter.recurrent.streaming import read_states
from tfrewprune.runtime.interpreter import Interpreter


@dataclass(frozen=True)
class TimeInput:
    """An input that takes a frame of a sequence after the other.

    Attributes:
        name: What the model calls it.
        index: Its tensor.
        dtype: Of its numbers.
        frame_shape: Of a frame.
    """

    name: str
    index: int
    dtype: type
    frame_shape: tuple[int, ...]

    def frames(self, given: Any) -> np.ndarray:
        """One frame, or any number, as an array with all of them.

        Raises:
            ValueError: If they have another shape.
        """
        frames, shape = np.asarray(given, self.dtype), self.frame_shape
        if frames.shape == shape:
            return frames[None]
        if frames.ndim != len(shape) + 1 or frames.shape[1:] != shape:
            several = ", ".join(["n", *map(str, shape)])
            raise ValueError(
                f"frames of input {self.name!r} must have the shape {list(shape)} or "
                f"[{several}], received {list(frames.shape)}"
            )
        return frames

    def random(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Frames of any content; integers are 0 and 1."""
        shape = (count, *self.frame_shape)
        return random_values(generator, np.dtype(self.dtype), shape)


@dataclass(frozen=True)
class State:
    """A state, which goes out of one call and into the next.

    Attributes:
        before: The tensor that it goes in by.
        after: The tensor that it comes out by.
        shape: Of the state of one stream, with a batch of 1.
    """

    before: int
    after: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of a streaming model.

    Attributes:
        inputs: What takes frames, in the model's order.
        states: Its states.
        outputs: Tensors of its outputs, in its order; states that it did not give out
            before are not among them.
        names: Their names if there are several and the model names them, else None.
        open: Whether it takes any number of frames in a call; or else one.
    """

    inputs: tuple[TimeInput, ...]
    states: tuple[State, ...]
    outputs: tuple[int, ...]
    names: tuple[str, ...] | None
    open: bool

    @property
    def frame_shape(self) -> Any:
        shapes = {one.name: one.frame_shape for one in self.inputs}
        return shapes if len(shapes) > 1 else self.inputs[0].frame_shape

    def first_states(self) -> list[np.ndarray]:
        return [np.zeros(state.shape, np.float32) for state in self.states]

    def take(self, given: Any) -> list[np.ndarray]:
        """The frames of every input, of what the caller pushes.

        Raises:
            ValueError: If they do not fit the inputs, or are not as many for each.
        """
        if len(self.inputs) == 1 and not isinstance(given, dict):
            return [self.inputs[0].frames(given)]  # a call is worth microseconds
        names = [one.name for one in self.inputs]
        if isinstance(given, dict):
            if set(given) != set(names):
                raise ValueError(
                    f"frames must be those of the inputs {names}, received "
                    f"{list(given)}"
                )
            given = [given[name] for name in names]
        elif not isinstance(given, list | tuple) or len(given) != len(names):
            count = f"{len(given)} of them" if hasattr(given, "__len__") else given
            raise ValueError(
                f"frames must be a list of one array for each of the inputs {names}, "
                f"or a dict of them, received {type(given).__name__}: {count}"
            )
        frames = [
            one.frames(array) for one, array in zip(self.inputs, given, strict=True)
        ]
        lengths = dict(zip(names, map(len, frames), strict=True))
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"every input must get as many frames as the others, received {lengths}"
            )
        return frames

    def give(self, outputs: Sequence[Any]) -> Any:
        """The outputs as the caller gets them: alone, by name, or in a list."""
        if len(outputs) == 1:
            return outputs[0]
        if self.names is None:
            return list(outputs)
        return dict(zip(self.names, outputs, strict=True))


def read_interface(model: Model, interpreter: Interpreter) -> Interface:
    """Returns the interface of a streaming model.

    Args:
        model: The model, with its states as inputs and outputs.
        interpreter: One of it, with the shapes that are in the file.

    Raises:
        ConversionError: If it cannot be fed frame by frame.
    """
    known = read_states(model)
    given = {detail["name"]: detail for detail in interpreter.get_input_details()}
    results = interpreter.get_output_details()
    indices = {detail["name"]: detail["index"] for detail in results}
    try:
        states = tuple(
            State(
                given[before]["index"],
                indices[after],
                (1, *(int(n) for n in given[before]["shape"][1:])),
            )
            for before, after, _ in known
        )
    except KeyError as error:
        raise ConversionError(
            f"the model has no state {error} although its metadata names it"
        ) from None
    befores = {before for before, _, _ in known}
    timed = [detail for name, detail in given.items() if name not in befores]
    if not timed:
        raise ConversionError(
            "a streaming model must have an input [batch, time, ...] besides its "
            "states, received none"
        )
    (signature,) = model.tree.signatureDefs or (schema.SignatureDefT(),)
    called = _names([d["index"] for d in timed], signature.inputs)
    called = [name or d["name"] for name, d in zip(called, timed, strict=True)]
    inputs = tuple(map(_time_input, called, timed))
    steps = {int(detail["shape_signature"][1]) for detail in timed}
    if len(steps) > 1:
        raise ConversionError(
            "the inputs of a streaming model must all have an open time, or all one of "
            f"1, received {dict(zip(called, (_shape(d) for d in timed), strict=True))}"
        )
    hidden = {after for _, after, own in known if not own}
    outputs = [d["index"] for d in results if d["name"] not in hidden]
    if not outputs:
        raise ConversionError(
            "a streaming model must have an output besides its states, received none"
        )
    names = _names(outputs, signature.outputs)
    numbered = all(re.fullmatch(r"output_\d+", name) for name in names)
    named = len(names) > 1 and all(names) and not numbered
    return Interface(
        inputs,
        states,
        tuple(outputs),
        tuple(names) if named else None,
        steps == {-1},
    )


def _names(
    tensors: Sequence[int], entries: Sequence[schema.TensorMapT] | None
) -> list[str]:
    """What a signature calls tensors; one that is there twice has two names."""
    left = list(entries or ())
    names = []
    for tensor in tensors:
        found = next((entry for entry in left if entry.tensorIndex == tensor), None)
        names.append("" if found is None else text(found.name))
        left = [entry for entry in left if entry is not found]
    return names


def _time_input(name: str, detail: dict[str, Any]) -> TimeInput:
    shape = _shape(detail)
    if len(shape) < 2:
        raise ConversionError(
            f"input {name!r} of a streaming model must be [batch, time, ...], or a "
            f"state that goes into its layer as it is, received {shape}"
        )
    if shape[0] not in (-1, 1) or -1 in shape[2:]:
        raise ConversionError(
            f"input {name!r} of a streaming model must take [1, time, ...], received "
            f"{shape}"
        )
    if shape[1] not in (-1, 1):
        frame = "".join(f", {n}" for n in shape[2:]) or ","
        raise ConversionError(
            f"the time of input {name!r} of a streaming model must be open, as in "
            f"Input((None{frame})), or 1, received {shape[1]}"
        )
    return TimeInput(name, detail["index"], detail["dtype"], tuple(shape[2:]))


def _shape(detail: dict[str, Any]) -> list[int]:
    return [int(n) for n in detail["shape_signature"]]
