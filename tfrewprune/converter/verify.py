# SPDX-License-Identifier: Apache-2.0
"""Runs a model before and after conversion on the same inputs and compares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tfrewprune.caller import warn_caller
from tfrewprune.converter.cases import (
    Case,
    entries,
    given_cases,
    random_cases,
)
from tfrewprune.converter.dynamic_range import in_float
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model, read_model, write_model
from tfrewprune.converter.isolation import run_models
from tfrewprune.converter.open_sizes import running_cases
from tfrewprune.converter.plan import Decision
from tfrewprune.converter.unpack import unpack_model


def verify(
    original: Model,
    packed: bytes,
    decisions: list[Decision],
    inputs: Iterable[Any] | None,
    tolerance: float,
    planned: bytes | None = None,
) -> float:
    """Runs the dense and the packed model and compares all outputs.

    Dynamic-range layers run with their weights as floats in both, see `dynamic_range`.

    Args:
        original: The model before conversion.
        packed: The model after conversion.
        decisions: What was done to the layers that were packed.
        inputs: Runs of the caller, beside random ones; see ``given_cases``.
        tolerance: Largest difference allowed, see ``largest_difference``.
        planned: The original as the decisions see it, with its recurrences as loops;
            None where it is the same.

    Returns:
        The largest difference found.

    Raises:
        ConversionError: If a model does not run, or an output differs by more.
    """
    # Not the caller's bytes: what LiteRT gets to see has passed our own reader.
    models = {"dense": (in_float(_unpacked(write_model(original))), False)}
    models["packed"] = (in_float(packed), True)
    if not _delegate_is_there():
        warn_caller(
            "The native library is not built, so the unpacked model was compared "
            "instead of the packed one.",
        )
        models["packed"] = (in_float(_unpacked(packed)), False)
    given = [] if inputs is None else given_cases(original, list(inputs))
    cases = random_cases(original) + given
    try:
        results = run_models(models, cases)
    except ConversionError:
        if not any(entry.open_sizes for entry in entries(original)):
            raise
        cases = running_cases(original, models["dense"][0], given) + given
        results = run_models(models, cases)
    worst = 0.0
    for case, dense, received in zip(
        cases, results["dense"], results["packed"], strict=True
    ):
        difference = max(map(largest_difference, dense, received), default=0.0)
        worst = max(worst, difference)
        if len(dense) != len(received) or not difference <= tolerance:
            if planned is not None:
                original = read_model(planned)
                models["dense"] = (in_float(_unpacked(planned)), False)
            where = _locate(original, models, case, decisions, tolerance)
            raise ConversionError(
                f"the packed model's outputs differ by {difference:.3g} of their "
                f"largest magnitude, expected at most {tolerance:g}; {where}"
            )
    return worst


def _unpacked(content: bytes) -> bytes:
    """The model without packed layers; those that were packed before included."""
    model = read_model(content)
    unpack_model(model)
    return write_model(model)


def _delegate_is_there() -> bool:
    from tfrewprune.runtime.library import LibraryNotFoundError, delegate_path

    try:
        delegate_path()
    except LibraryNotFoundError:
        return False
    return True


def _locate(
    planned: Model,
    models: dict[str, tuple[bytes, bool]],
    case: Case,
    decisions: list[Decision],
    tolerance: float,
) -> str:
    """Says which packed layer is the first to differ."""
    watched = []
    for decision in decisions:
        layer = decision.layer
        if layer.loop is not None:
            watched.append((layer.loop.subgraph, layer.loop.layer.outputs[0]))
            continue
        operator = planned.subgraphs[layer.subgraph].operators[layer.operator]
        total = decision.sum
        output = int(operator.outputs[0]) if total is None else total.output
        watched.append((layer.subgraph, output))
    try:
        results = run_models(models, [case], watched)
    except ConversionError as error:
        return f"the layer could not be located: {error}"
    pairs = zip(decisions, results["dense"][0], results["packed"][0], strict=True)
    for decision, dense, packed in pairs:
        difference = largest_difference(dense, packed)
        if not difference <= tolerance:
            name = decision.layer.name
            return f"the first layer to differ is {name!r}, by {difference:.3g}"
    return "no packed layer differs by as much alone"


def largest_difference(dense: np.ndarray, packed: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest dense magnitude.

    NaN and Inf must be at the same places in both, else the result is infinite; so it
    is when shapes, types or integers differ.
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
