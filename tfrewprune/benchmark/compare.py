# SPDX-License-Identifier: Apache-2.0
"""A packed model beside its dense original: same inputs, same threads, in turn."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter

from tfrewprune.benchmark.load_cost import Cost, load_cost
from tfrewprune.benchmark.measure import (
    Measurement,
    Ratio,
    Timing,
    check_results,
    clock_for,
    interleave,
)
from tfrewprune.converter.cases import random_values
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.dynamic_range import in_float
from tfrewprune.converter.flatbuffer import read_model
from tfrewprune.converter.open_sizes import check_size, open_axes, sized_shape
from tfrewprune.converter.recurrent.streaming import read_states
from tfrewprune.runtime import Interpreter

DEFAULT_TOLERANCE = 1e-3
"""Largest difference of outputs, over the largest output, that counts as equal."""


@dataclass(frozen=True)
class Comparison:
    """Everything measured about one packed model and its dense original.

    Attributes:
        threads: Threads of both. One thread is timed by processor time, more by the
            wall clock.
        isa: Kernels that ran the packed layers.
        claimed_nodes: Packed layers.
        dense: Time of the dense model in LiteRT with XNNPACK.
        packed: Time of the packed model.
        ratio: How many times faster the packed model is.
        rounds: Alternating rounds the figures come from.
        error: Largest output difference over the largest output; of a dynamic-range
            model that to its weights as floats, see `check_in_float`.
        dense_bytes: File size.
        packed_bytes: File size.
        dense_cost: Load time and memory, or None if not asked for.
        packed_cost: Load time and memory, or None if not asked for.
        shapes: Shapes of the inputs.
        frames: Steps of the first input, if that is ``[batch, time, ...]``: its time is
            open, or the model has packed recurrent layers or states.
    """

    threads: int
    isa: str
    claimed_nodes: int
    dense: Timing
    packed: Timing
    ratio: Ratio
    rounds: int
    error: float
    dense_bytes: int
    packed_bytes: int
    dense_cost: Cost | None = None
    packed_cost: Cost | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    frames: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_models(
    packed: str | os.PathLike[str],
    dense: str | os.PathLike[str],
    *,
    threads: int = 1,
    isa: str | None = None,
    tune: str | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    min_seconds: float = 2.0,
    inputs: Sequence[np.ndarray] | None = None,
    seed: int = 0,
    with_cost: bool = True,
    frames: int = 1,
    size: tuple[int, int] | None = None,
) -> Comparison:
    """Checks that two models agree and times them in turn.

    Args:
        packed: Path of the model that `tfrewprune.convert` wrote.
        dense: Path of the dense model.
        threads: Threads for both.
        isa: Kernels of the packed layers; None for the best of this CPU.
        tune: "once" measures drivers before, see `Interpreter`.
        tolerance: Largest allowed difference of outputs, over the largest output.
        min_seconds: How long to measure, both models together.
        inputs: Arrays in the order of the models' inputs; None draws random ones.
        seed: Seed of the random inputs.
        with_cost: Whether to measure load time and memory in fresh processes too.
        frames: Steps of random inputs whose time is open.
        size: Height and width of random inputs where both are open.

    Returns:
        The comparison.

    Raises:
        WrongResultError: If the outputs differ; nothing is timed then.
        ValueError: If a model cannot be read, the inputs of the two differ, or open
            height and width are not given.

    Example:
        >>> result = compare_models("packed.tflite", "dense.tflite", threads=2)
        >>> result.ratio.median  # doctest: +SKIP
        3.4
    """
    baseline = LiteRtInterpreter(
        model_path=_existing(dense, "dense"), num_threads=threads
    )
    candidate = Interpreter(
        model_path=_existing(packed, "packed"),
        num_threads=threads,
        isa=isa,
        tune=tune,
    )
    if inputs is None:
        inputs = random_inputs(baseline, seed, frames, size)
    contents = Path(dense).read_bytes(), Path(packed).read_bytes()
    checked = check_in_float(*contents, inputs, isa=isa, tolerance=tolerance)
    measurement, error = time_pair(
        baseline,
        candidate,
        inputs,
        threads=threads,
        tolerance=tolerance if checked is None else float("inf"),
        min_seconds=min_seconds,
    )
    if checked is not None:
        error = checked
    shapes = tuple(array.shape for array in inputs)
    return Comparison(
        threads=threads,
        isa=candidate.isa,
        claimed_nodes=candidate.claimed_nodes,
        dense=measurement.timing("dense"),
        packed=measurement.timing("packed"),
        ratio=measurement.ratio("dense", "packed"),
        rounds=measurement.rounds,
        error=error,
        dense_bytes=os.path.getsize(dense),
        packed_bytes=os.path.getsize(packed),
        dense_cost=load_cost(dense, threads, shapes=shapes) if with_cost else None,
        packed_cost=load_cost(packed, threads, packed=True, shapes=shapes)
        if with_cost
        else None,
        shapes=shapes,
        frames=shapes[0][1] if _has_time(baseline, contents[1]) else None,
    )


def _has_time(baseline: LiteRtInterpreter, packed: bytes) -> bool:
    """Whether the second dimension of the first input is time, not height."""
    signature = [int(n) for n in baseline.get_input_details()[0]["shape_signature"]]
    if len(signature) < 3:
        return False
    model = read_model(packed)
    return (
        # Height and width are open together, perhaps behind time.
        (1 in open_axes(signature) and len(open_axes(signature)) != 2)
        or any(layer.recurrent for layer in find_layers(model) if layer.packed)
        or bool(read_states(model))
    )


def check_in_float(
    dense: bytes,
    packed: bytes,
    inputs: Sequence[np.ndarray],
    *,
    isa: str | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> float | None:
    """Checks a packed dynamic-range model against its weights as floats.

    LiteRT's own outputs are off by what it rounds activations to.

    Args:
        dense: The dense model.
        packed: The packed model.
        inputs: Arrays in the order of the models' inputs.
        isa: Kernels of the packed layers; None for the best of this CPU.
        tolerance: See `compare_models`.

    Returns:
        The largest error; None for a model without dynamic-range layers.

    Raises:
        WrongResultError: If the outputs differ.
    """
    floats = in_float(dense)
    if floats is dense:
        return None
    return check_results(
        run_once(LiteRtInterpreter(model_content=floats), inputs),
        run_once(Interpreter(model_content=in_float(packed), isa=isa), inputs),
        tolerance=tolerance,
    )


def time_pair(
    dense: LiteRtInterpreter,
    packed: LiteRtInterpreter,
    inputs: Sequence[np.ndarray],
    *,
    threads: int = 1,
    tolerance: float = DEFAULT_TOLERANCE,
    min_seconds: float = 2.0,
    **options: Any,
) -> tuple[Measurement, float]:
    """Checks two interpreters against each other on the same inputs and times them.

    Args:
        dense: The baseline.
        packed: The candidate.
        inputs: Arrays in the order of the models' inputs.
        threads: Threads of both; decides which clock is read.
        tolerance: See `compare_models`.
        min_seconds: How long to measure.
        **options: More arguments of `interleave`.

    Returns:
        The measurement with the names "dense" and "packed", and the largest error.

    Raises:
        WrongResultError: If the outputs differ.
        ValueError: If the inputs do not fit.
    """
    error = check_results(
        run_once(dense, inputs), run_once(packed, inputs), tolerance=tolerance
    )
    measurement = interleave(
        {"dense": dense.invoke, "packed": packed.invoke},
        min_seconds=min_seconds,
        clock=clock_for(threads),
        **options,
    )
    return measurement, error


def random_inputs(
    interpreter: LiteRtInterpreter,
    seed: int = 0,
    frames: int = 1,
    size: tuple[int, int] | None = None,
) -> list[np.ndarray]:
    """Draws inputs for a model, see `random_values`.

    Args:
        interpreter: The model's interpreter.
        seed: Seed of the generator.
        frames: What an open time becomes; see `sized_shape`.
        size: What open height and width become.

    Raises:
        ValueError: If an input is neither a number nor a truth value, or there is no
            size for height and width, or one without them.
    """
    generator = np.random.default_rng(seed)
    details = interpreter.get_input_details()
    signatures = [detail["shape_signature"] for detail in details]
    if size is not None:
        check_size(size, signatures)
    arrays = []
    for detail in details:
        shape, dtype = detail["shape"], np.dtype(detail["dtype"])
        signature = detail["shape_signature"]
        shape = sized_shape(detail["name"], signature, shape, frames, size)
        if dtype.kind not in "fiub":
            raise ValueError(
                f"Input {detail['name']!r} holds {dtype}; give `inputs` yourself."
            )
        arrays.append(random_values(generator, dtype, tuple(shape)))
    return arrays


def run_once(
    interpreter: LiteRtInterpreter, inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Resizes the inputs to those given, runs the model and copies its outputs.

    Raises:
        ValueError: If the number of inputs is wrong, or one does not fit.
    """
    details = interpreter.get_input_details()
    if len(details) != len(inputs):
        raise ValueError(
            f"The model has {len(details)} inputs. Received: {len(inputs)} arrays."
        )
    for detail, array in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != array.shape:
            interpreter.resize_tensor_input(detail["index"], array.shape)
    interpreter.allocate_tensors()
    for detail, array in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [
        interpreter.get_tensor(detail["index"])
        for detail in interpreter.get_output_details()
    ]


def _existing(path: str | os.PathLike[str], role: str) -> str:
    if not os.path.isfile(path):
        raise ValueError(
            f"Argument `{role}` must name a .tflite file. "
            f"Received: {os.fspath(path)!r}, and there is no such file."
        )
    return os.fspath(path)
