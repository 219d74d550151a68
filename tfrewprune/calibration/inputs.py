# SPDX-License-Identifier: Apache-2.0
"""Calibration inputs as a user gives them, checked against what a model takes."""

from __future__ import annotations

import dataclasses
import functools
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Inputs looked at, at most, where the data set says no end.
MOST = 1000


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: Its name.
        shape: Its shape with the batch; None or -1 for what is not fixed.
        dtype: What it is fed with.
        path: Keys that lead to it in named data, as `fit` or a signature takes them;
            () if it has but its name.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    path: tuple[str | int, ...] = ()


class CalibrationInputs(list[np.ndarray]):
    """Checked arrays, one for each input of a model.

    Attributes:
        integers: Whether integers were given for an input that takes floats.
    """

    integers: bool = False


def calibration_inputs(data: Any, specs: Sequence[InputSpec]) -> CalibrationInputs:
    """The arrays that calibrate a model, one for each of its inputs.

    Args:
        data: An array, a list or a dict of arrays, a `.npy` or `.npz` file, or a data
            set of batches (`tf.data`, `PyDataset`, a loader), of which the first 1,000
            inputs are taken; labels beside the inputs are left out. A dict has the
            keys that `fit` or the signature takes, or else the names of the inputs.
        specs: What the model takes.

    Raises:
        ValueError: The wrong number of inputs, shape or type; NaN; integers beyond
            the type that the model takes; no two different inputs.
    """
    given = [np.asarray(array) for array in _arrays(data, specs)]
    if len(given) != len(specs):
        raise ValueError(
            f"Calibration data: the model has {len(specs)} inputs "
            f"({', '.join(spec.name for spec in specs)}). Received: {len(given)} arrays"
        )
    pairs = list(zip(given, specs, strict=True))
    arrays = CalibrationInputs(_checked(array, spec) for array, spec in pairs)
    arrays.integers = any(
        array.dtype.kind in "iu" and np.dtype(spec.dtype).kind == "f"
        for array, spec in pairs
    )
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        raise ValueError(
            "Calibration data: every array must hold the same number of inputs. "
            f"Received: {[len(array) for array in arrays]}"
        )
    if lengths == {0}:
        raise ValueError(
            "Calibration data: expected 100 to 1,000 inputs. Received: none"
        )
    if all((array == array[:1]).all() for array in arrays):
        raise ValueError(
            f"Calibration data: all {lengths.pop()} inputs are the same, so they tell "
            "nothing. Give 100 to 1,000 different ones, prepared as for the model."
        )
    return arrays


def check_outputs(outputs: Sequence[np.ndarray]) -> None:
    """Refuses data that the model does not tell apart, such as of a wrong range.

    Raises:
        ValueError: NaN outputs, or one and the same output for every input.
    """
    for output in outputs:
        if not np.isfinite(output).all():
            raise ValueError(
                "The model gives NaN or infinite outputs for the calibration data. "
                "Expected inputs prepared as in training (range, mean, order of axes)."
            )
    if outputs and len(outputs[0]) > 1:
        if all((output == output[:1]).all() for output in outputs):
            raise ValueError(
                "The model gives the same output for every calibration input. Expected "
                "inputs prepared as in training: their range is probably wrong."
            )


def _arrays(data: Any, specs: Sequence[InputSpec]) -> list[Any]:
    if data is None:
        raise ValueError(
            "Calibration data: expected 100 to 1,000 unlabelled inputs. Received: None"
        )
    if isinstance(data, str | os.PathLike):
        data = _load(data)
    if isinstance(data, Mapping):
        return _named(data, specs)
    if isinstance(data, np.ndarray):
        return [data]
    if _is_dataset(data):
        return _arrays(_from_batches(data), specs)
    if isinstance(data, list | tuple):
        # A list of arrays is one an input; with one input, a list of its rows.
        if len(specs) == 1 and len(data) != 1:
            return [_stacked(data)]
        return list(data)
    return [data]


def _named(data: Mapping, specs: Sequence[InputSpec]) -> list[Any]:
    """The arrays by the inputs' paths, or all of them by their names.

    Never some by the one and some by the other: a key may be the path of one input and
    the name of another.
    """
    names = [(spec.name,) for spec in specs]
    paths = [spec.path or name for spec, name in zip(specs, names, strict=True)]
    for keys in (paths, names):
        try:
            return [functools.reduce(operator.getitem, key, data) for key in keys]
        except (KeyError, IndexError, TypeError):
            continue
    if len(data) == len(specs) == 1:
        return list(data.values())
    known = [
        ", ".join(".".join(map(str, key)) for key in keys)
        for keys in dict.fromkeys(map(tuple, (paths, names)))
    ]
    raise ValueError(
        f"Calibration data: expected entries named {', or '.join(known)}. "
        f"Received: {', '.join(sorted(map(str, data)))}"
    )


def _is_dataset(data: Any) -> bool:
    names = ("element_spec", "dataset", "__next__")
    return any(hasattr(data, name) for name in names) or (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and hasattr(data, "num_batches")
    )


def _from_batches(data: Any) -> Any:
    """The first inputs of batches, as an array, a list or a dict of arrays."""
    if hasattr(data, "num_batches"):  # a PyDataset is indexed
        batches = (data[index] for index in range(len(data)))
    else:
        batches = iter(data)
    parts: list[Any] = []
    count = 0
    for batch in batches:
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        parts.append(inputs)
        first = inputs
        while isinstance(first, Mapping | tuple | list):
            first = next(iter(first.values() if isinstance(first, Mapping) else first))
        count += len(first)
        if count >= MOST:
            break
    if not parts:
        raise ValueError("Calibration data: the data set is empty.")
    return _joined(parts)


def _joined(parts: Sequence[Any]) -> Any:
    """Batches one behind the other, in the structure that each of them has."""
    if isinstance(parts[0], Mapping):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], tuple | list):
        return [_joined(column) for column in zip(*parts, strict=True)]
    return np.concatenate([np.asarray(part) for part in parts])[:MOST]


def _stacked(rows: Sequence[Any]) -> np.ndarray:
    try:
        return np.stack([np.asarray(row) for row in rows]) if rows else np.zeros(0)
    except ValueError as error:
        raise ValueError(
            f"Calibration data: a list of inputs of different shapes ({error})."
        ) from error


def _load(path: str | os.PathLike[str]) -> Any:
    try:
        loaded = np.load(path)
    except OSError:
        raise
    except Exception as error:  # numpy raises whatever the bytes provoke
        raise ValueError(
            f"Calibration data: expected a .npy or .npz file, received "
            f"{os.fspath(path)!r} ({error})"
        ) from error
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def _checked(array: np.ndarray, spec: InputSpec) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    where = f"Calibration data for input {spec.name!r}"
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{where}: expected numbers. Received: dtype {array.dtype}")
    shape = tuple(n if n is None or n >= 0 else None for n in spec.shape)
    fits = array.ndim == len(shape) and all(
        wanted is None or axis == 0 or wanted == n
        for axis, (wanted, n) in enumerate(zip(shape, array.shape, strict=True))
    )
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape[1:])
        raise ValueError(
            f"{where}: expected shape (inputs, {wanted}). Received: {array.shape}"
        )
    if array.dtype.kind == "f":
        if broken := int(array.size - np.isfinite(array).sum()):
            raise ValueError(f"{where}: {broken} of {array.size} values are NaN or Inf")
        if dtype.kind in "iu" and (array != np.round(array)).any():
            raise ValueError(
                f"{where}: expected integers ({dtype}). "
                f"Received: {array.dtype} with fractions"
            )
    if dtype.kind in "iu" and array.size:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if array.min() < least or array.max() > most:  # a cast would wrap them
            raise ValueError(
                f"{where}: expected {dtype}, {least} to {most}. "
                f"Received: {array.min():g} to {array.max():g}"
            )
    return np.ascontiguousarray(array, dtype)
