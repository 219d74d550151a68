# SPDX-License-Identifier: Apache-2.0
"""Checks that an exported file computes what its Keras model does at another length.

TensorFlow's converter takes open dimensions to be 1 for the time being, and sometimes
for good: the file then runs at other lengths, and computes something else.

Keras is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfrewprune.converter.cases import (
    Case,
    Entry,
    entries,
    given_cases,
    random_case,
)
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model, read_model
from tfrewprune.converter.isolation import run_models
from tfrewprune.converter.open_sizes import ADVICE, candidates
from tfrewprune.converter.tracing import computing_in_float32, input_structure
from tfrewprune.converter.verify import largest_difference

# Not 1, which is what the converter took. 3 is no multiple of a step.
_FIRST = 3
# Outputs of another length differ by far more, rounding by far less.
_TOLERANCE = 0.05
_ADVICE = "fix it in the Input of the model, as in keras.Input((40, 8))"


def check_open_lengths(
    model: Any, content: bytes, inputs: Sequence[Any] | None = None
) -> None:
    """Runs a model and its file where a dimension beside the batch is open.

    Args:
        model: A Keras model. It is not changed.
        content: What it was exported as.
        inputs: Runs of the caller, whose sizes are tried; see ``given_cases``.

    Raises:
        ConversionError: If the file runs at no length, or computes something else.
    """
    file = read_model(content)
    (entry,) = entries(file)
    if not entry.open_sizes:
        return
    failure = None
    for case in _trials(file, entry, inputs):
        expected = _outputs(model, case.feed)
        if expected is None or not all(output.size for output in expected):
            continue
        try:
            received, again = run_models({"exported": (content, False)}, [case, case])[
                "exported"
            ]
        except ConversionError as error:
            failure = failure or error
            continue
        _compare(model, case, expected, received, again)
        return
    if failure is not None:
        raise ConversionError(
            f"the length of model {model.name!r} cannot stay open; {_ADVICE}, or "
            f"{ADVICE}: {failure}"
        ) from failure


def _trials(file: Model, entry: Entry, inputs: Sequence[Any] | None) -> Iterator[Case]:
    yield random_case(entry, entry.shapes_at(_FIRST))
    for case in given_cases(file, inputs or ()):
        yield random_case(entry, [array.shape for array in case.feed])
    for size in candidates(entry):
        if size not in (1, _FIRST):
            yield random_case(entry, entry.shapes_at(size))


def _compare(
    model: Any,
    case: Case,
    expected: list[np.ndarray],
    received: list[np.ndarray],
    again: list[np.ndarray],
) -> None:
    random = any(map(largest_difference, received, again))
    for output in expected:
        same = [other for other in received if other.shape == output.shape]
        if not same:
            raise ConversionError(
                f"the length of model {model.name!r} cannot stay open: of "
                f"{[list(array.shape) for array in case.feed]} TensorFlow's file makes "
                f"{[list(other.shape) for other in received]}, expected "
                f"{list(output.shape)}; {_ADVICE}"
            )
        # Ranks and indices may differ where two numbers are as good as equal.
        if random or output.dtype.kind not in "fc":
            continue
        difference = min(largest_difference(output, other) for other in same)
        if not difference <= _TOLERANCE:
            raise ConversionError(
                f"the length of model {model.name!r} cannot stay open: of "
                f"{[list(array.shape) for array in case.feed]} the outputs of "
                f"TensorFlow's file differ by {difference:.3g} of their largest "
                f"magnitude; {_ADVICE}"
            )


def _outputs(model: Any, feed: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """What the model makes of inputs; None if it does not take them."""
    import keras

    structure = input_structure(model)
    if len(keras.tree.flatten(structure)) != len(feed):
        return None  # the file has no input that nothing reads
    arguments = keras.tree.pack_sequence_as(structure, list(feed))
    try:
        with computing_in_float32(model), keras.StatelessScope():
            outputs = model(*arguments, training=False)
    except Exception:  # whatever the model's call raises over other lengths
        return None
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]
