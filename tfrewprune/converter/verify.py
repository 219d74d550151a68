# SPDX-License-Identifier: Apache-2.0
"""Runs a model before and after conversion on the same inputs and compares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model, tensor_signature, text

SECONDS = 900
_TYPES = {
    schema.TensorType.FLOAT32: "f4",
    schema.TensorType.FLOAT16: "f2",
    schema.TensorType.FLOAT64: "f8",
    schema.TensorType.INT8: "i1",
    schema.TensorType.INT16: "i2",
    schema.TensorType.INT32: "i4",
    schema.TensorType.INT64: "i8",
    schema.TensorType.UINT8: "u1",
    schema.TensorType.UINT16: "u2",
    schema.TensorType.UINT32: "u4",
    schema.TensorType.UINT64: "u8",
    schema.TensorType.BOOL: "?",
    schema.TensorType.COMPLEX64: "c8",
    schema.TensorType.COMPLEX128: "c16",
    schema.TensorType.STRING: "S1",
}


@dataclass(frozen=True)
class Entry:
    """One way into a model: a signature, or the first subgraph without any.

    Attributes:
        signature: Its key; None for the first subgraph.
        names: Names of its inputs, in the order they are fed.
        tensors: The input tensors, in the same order.
    """

    signature: str | None
    names: tuple[str, ...]
    tensors: tuple[schema.TensorT, ...]


@dataclass(frozen=True)
class Case:
    """One run of a model: where it enters and what it is fed."""

    signature: str | None
    feed: tuple[np.ndarray, ...]


def entries(model: Model) -> list[Entry]:
    """Returns every way into a model."""
    found = []
    for signature in model.tree.signatureDefs or ():
        tensors = model.subgraphs[signature.subgraphIndex].tensors
        inputs = sorted(signature.inputs or (), key=lambda entry: text(entry.name))
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


def random_cases(model: Model, seed: int = 0) -> list[Case]:
    """Returns one random run for each way in, and one with other sizes.

    Floats are standard normal; integers 0 or 1, since they are often indices.
    Unknown dimensions are 1, and 2 in the second run.
    """
    generator = np.random.default_rng(seed)
    cases = []
    for entry in entries(model):
        signatures = [tensor_signature(tensor) for tensor in entry.tensors]
        unknown = any(n < 0 for shape in signatures for n in shape)
        for size in (1, 2) if unknown else (1,):
            feed = []
            for tensor, shape in zip(entry.tensors, signatures, strict=True):
                shape = tuple(size if n < 0 else n for n in shape)
                feed.append(_random(generator, tensor, shape))
            cases.append(Case(entry.signature, tuple(feed)))
    return cases


def _random(
    generator: np.random.Generator, tensor: schema.TensorT, shape: tuple[int, ...]
) -> np.ndarray:
    if tensor.type not in _TYPES:
        raise ConversionError(
            f"no random values for input {text(tensor.name)!r} of tensor type "
            f"{tensor.type}; pass verify=False to convert without comparing"
        )
    dtype = np.dtype(_TYPES[tensor.type])
    if dtype.kind in "fc":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "S":
        return np.full(shape, b"a")
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
            dtype = np.dtype(_TYPES.get(tensor.type, "f4"))
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
        cases.append(Case(entry.signature, tuple(feed)))
    return cases


def run_models(
    models: Mapping[str, tuple[bytes, bool]], cases: Sequence[Case]
) -> dict[str, list[list[np.ndarray]]]:
    """Runs models on the same cases in a child process.

    Args:
        models: Name -> (bytes, whether our delegate is needed).
        cases: The runs.

    Returns:
        Name -> outputs of every run.

    Raises:
        ConversionError: If LiteRT refuses a model, or crashes over it.
    """
    with tempfile.TemporaryDirectory(prefix="tfrewprune-") as path:
        folder = Path(path)
        job: dict[str, list] = {"models": [], "cases": []}
        for name, (content, packed) in models.items():
            (folder / f"{name}.tflite").write_bytes(content)
            job["models"].append(
                {"name": name, "file": f"{name}.tflite", "packed": packed}
            )
        for number, case in enumerate(cases):
            np.savez(folder / f"inputs_{number}.npz", *case.feed)
            job["cases"].append(
                {"signature": case.signature, "inputs": f"inputs_{number}.npz"}
            )
        (folder / "job.json").write_text(json.dumps(job))
        _run_child(folder)
        results: dict[str, list[list[np.ndarray]]] = {}
        for name in models:
            results[name] = []
            for number in range(len(cases)):
                with np.load(folder / f"{name}_{number}.npz") as arrays:
                    count = len(arrays.files)
                    results[name].append([arrays[f"arr_{i}"] for i in range(count)])
        return results


def _run_child(folder: Path) -> None:
    paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    command = [sys.executable, "-m", "tfrewprune.converter.execute", str(folder)]
    try:
        child = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConversionError(
            f"LiteRT did not finish running the models in {SECONDS} seconds"
        ) from None
    if child.returncode == 0:
        return
    tail = child.stderr.decode("utf-8", "replace").strip()[-2000:]
    report = folder / "error.json"
    if report.is_file():
        name, message = json.loads(report.read_text())
        log = "\n".join(line for line in tail.splitlines() if line.startswith("ERROR"))
        raise ConversionError(
            f"LiteRT cannot run the {name} model: {message}"
            + (f"\n{log}" if log else "")
        )
    raise ConversionError(
        f"LiteRT crashed (exit status {child.returncode}) while running the models"
        f"\n{tail}"
    )


def largest_difference(dense: np.ndarray, packed: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest dense magnitude.

    NaN and Inf must be at the same places in both, else the result is infinite.
    Magnitudes below 1 count as 1e-3 of ... as they are.
    """
    if dense.shape != packed.shape or dense.dtype != packed.dtype:
        return float("inf")
    if dense.dtype.kind not in "fc":
        return 0.0 if np.array_equal(dense, packed) else float("inf")
    finite = np.isfinite(dense)
    same = np.array_equal(finite, np.isfinite(packed)) and np.array_equal(
        dense[~finite], packed[~finite], equal_nan=True
    )
    if not same:
        return float("inf")
    dense, packed = dense[finite], packed[finite]
    if dense.size == 0:
        return 0.0
    wide = np.result_type(dense.dtype, np.float64)
    difference = np.abs(dense.astype(wide) - packed.astype(wide)).max()
    return float(difference / max(float(np.abs(dense).max()), 1e-6))


def compare(
    results: Mapping[str, list[list[np.ndarray]]],
    cases: Sequence[Case],
    tolerance: float,
) -> float:
    """Returns the largest difference over all outputs of all runs.

    Raises:
        ConversionError: If it exceeds the tolerance.
    """
    worst = 0.0
    for case, dense, packed in zip(
        cases, results["dense"], results["packed"], strict=True
    ):
        if len(dense) != len(packed):
            raise ConversionError(
                f"the dense model has {len(dense)} outputs, the packed {len(packed)}"
            )
        for number, (expected, received) in enumerate(zip(dense, packed, strict=True)):
            difference = largest_difference(expected, received)
            worst = max(worst, difference)
            if not difference <= tolerance:
                raise ConversionError(
                    f"output {number} of signature {case.signature!r} differs by "
                    f"{difference:.3g} of its largest magnitude; expected at most "
                    f"{tolerance:g}"
                )
    return worst
