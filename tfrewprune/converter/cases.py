# SPDX-License-Identifier: Apache-2.0
"""What a model is fed when it is compared: random inputs, and the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    NUMPY_TYPES,
    Model,
    index_list,
    tensor_signature,
    text,
)

LARGEST_BATCH = 3
"""Of random runs, whose sizes may have to be large."""


@dataclass(frozen=True)
class Entry:
    """One way into a model: a signature, or the first subgraph without any.

    Attributes:
        signature: Its key; None for the first subgraph.
        names: Names of its inputs, in the model's own order.
        tensors: The input tensors, in the same order.
    """

    signature: str | None
    names: tuple[str, ...]
    tensors: tuple[schema.TensorT, ...]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the inputs, -1 where they are open."""
        return [tensor_signature(tensor) for tensor in self.tensors]

    @property
    def open_sizes(self) -> bool:
        """Whether a dimension beside the batch is open."""
        return any(n < 0 for shape in self.shapes for n in shape[1:])

    def shapes_at(self, size: int, batch: int = LARGEST_BATCH) -> list[tuple[int, ...]]:
        """Shapes of the inputs with open dimensions of a size.

        Args:
            size: What open dimensions are.
            batch: What an open batch is at most.
        """
        return [
            tuple(
                n if n >= 0 else min(size, batch) if axis == 0 else size
                for axis, n in enumerate(shape)
            )
            for shape in self.shapes
        ]


@dataclass(frozen=True)
class Case:
    """One run of a model: where it enters, and what each of its inputs is fed."""

    signature: str | None
    names: tuple[str, ...]
    feed: tuple[np.ndarray, ...]


def entries(model: Model) -> list[Entry]:
    """Returns every way into a model."""
    found = []
    for signature in model.tree.signatureDefs or ():
        subgraph = model.subgraphs[signature.subgraphIndex]
        tensors = subgraph.tensors
        places = {tensor: i for i, tensor in enumerate(index_list(subgraph.inputs))}
        # Signatures list their inputs by the alphabet.
        inputs = sorted(
            signature.inputs or (),
            key=lambda entry: places.get(entry.tensorIndex, len(places)),
        )
        found.append(
            Entry(
                text(signature.signatureKey),
                tuple(text(entry.name) for entry in inputs),
                tuple(tensors[entry.tensorIndex] for entry in inputs),
            )
        )
    if not found:
        first = model.subgraphs[0]
        inputs = [] if first.inputs is None else first.inputs
        tensors = tuple(first.tensors[int(i)] for i in inputs)
        found.append(Entry(None, tuple(text(t.name) for t in tensors), tensors))
    return found


def random_cases(
    model: Model, seed: int = 0, sizes: Sequence[int] = (1, 2)
) -> list[Case]:
    """Returns one random run for each way in, and further ones with other sizes.

    Floats are standard normal; integers 0 or 1, since they are often indices.

    Args:
        model: The model.
        seed: Of the random numbers.
        sizes: What unknown dimensions are, one run each.
    """
    generator = np.random.default_rng(seed)
    cases = []
    for entry in entries(model):
        unknown = any(n < 0 for shape in entry.shapes for n in shape)
        for size in sizes if unknown else sizes[:1]:
            cases.append(random_case(entry, entry.shapes_at(size), generator))
    return cases


def random_case(
    entry: Entry,
    shapes: Sequence[tuple[int, ...]],
    generator: np.random.Generator | None = None,
) -> Case:
    """Returns one random run.

    Args:
        entry: The way in.
        shapes: Of its inputs.
        generator: Of the random numbers; None begins one.
    """
    generator = generator or np.random.default_rng(0)
    pairs = zip(entry.tensors, shapes, strict=True)
    feed = tuple(_random(generator, tensor, shape) for tensor, shape in pairs)
    return Case(entry.signature, entry.names, feed)


def _random(
    generator: np.random.Generator, tensor: schema.TensorT, shape: tuple[int, ...]
) -> np.ndarray:
    if tensor.type == schema.TensorType.STRING:
        return np.full(shape, b"a")
    if tensor.type not in NUMPY_TYPES:
        raise ConversionError(
            f"no random values for input {text(tensor.name)!r} of tensor type "
            f"{tensor.type}; pass verify=False to convert without comparing"
        )
    return random_values(generator, NUMPY_TYPES[tensor.type], shape)


def _fed_type(tensor: schema.TensorT) -> np.dtype:
    """What an input is fed as, text as bytes."""
    if tensor.type == schema.TensorType.STRING:
        return np.dtype("S1")
    return NUMPY_TYPES.get(tensor.type, np.dtype("f4"))


def random_values(
    generator: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns normal floats; integers 0 or 1, which are indices of every table."""
    if dtype.kind in "fc":
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)


def given_cases(model: Model, inputs: Sequence[Any]) -> list[Case]:
    """Turns inputs of the caller into runs.

    Args:
        model: The model.
        inputs: One element a run: a dict of input name to array, a list of arrays in
            the model's order, or one array. They enter by the model's first signature.

    Raises:
        ConversionError: If a run does not fit the model's inputs.
    """
    entry = entries(model)[0]
    cases = []
    for number, sample in enumerate(inputs):
        if isinstance(sample, Mapping):
            if sorted(sample) != sorted(entry.names):
                raise ConversionError(
                    f"inputs[{number}]: expected the names {sorted(entry.names)}, "
                    f"received {sorted(map(str, sample))}"
                )
            sample = [sample[name] for name in entry.names]
        elif not isinstance(sample, (list, tuple)):
            sample = [sample]
        if len(sample) != len(entry.names):
            raise ConversionError(
                f"inputs[{number}]: expected {len(entry.names)} arrays "
                f"({', '.join(entry.names)}), received {len(sample)}"
            )
        feed = []
        for name, tensor, array in zip(entry.names, entry.tensors, sample, strict=True):
            array = np.asarray(array)
            dtype = _fed_type(tensor)
            shape = tensor_signature(tensor)
            fits = len(shape) == array.ndim and all(
                n in (-1, m) for n, m in zip(shape, array.shape, strict=True)
            )
            if not fits or (
                dtype.kind != "S" and not np.can_cast(array.dtype, dtype, "same_kind")
            ):
                raise ConversionError(
                    f"inputs[{number}]: input {name!r} expects {dtype} "
                    f"{list(shape)}, received {array.dtype} {list(array.shape)}"
                )
            feed.append(array if dtype.kind == "S" else array.astype(dtype))
        cases.append(Case(entry.signature, entry.names, tuple(feed)))
    return cases
