# SPDX-License-Identifier: Apache-2.0
"""The two public functions: convert and unpack."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tfrewprune.caller import warn_caller
from tfrewprune.converter.cases import given_cases
from tfrewprune.converter.detect import model_numbers_operators
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.files import check_folder, is_keras_file, write_atomically
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.hosts import describe_hosts, take_operators
from tfrewprune.converter.measuring import decide_by_measuring, pack_worth_measuring
from tfrewprune.converter.perform import perform
from tfrewprune.converter.plan import Decision, Settings, make_plan
from tfrewprune.converter.recurrent.adopt import adopt
from tfrewprune.converter.recurrent.streaming import (
    drop_dead_operators,
    expose_states,
    read_states,
)
from tfrewprune.converter.report import (
    Converted,
    describe_nothing_packed,
    make_report,
)
from tfrewprune.converter.sized import at_one_size
from tfrewprune.converter.unpack import unpack_model
from tfrewprune.converter.verify import verify as verify_models
from tfrewprune.payload.cost import targets
from tfrewprune.payload.cost_targets import this_target


def convert(
    model: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    inputs: Iterable[Any] | None = None,
    batch_size: int | None = None,
    tolerance: float = 1e-3,
    minimum_gain: float = 1.0,
    band_rows: int | None = None,
    weights: str = "keep",
    target: str | None = None,
    measure: bool = False,
    verify: bool = True,
    require_packed: int = 0,
    streaming: bool = False,
) -> Converted:
    """Converts a model so that its pruned layers run packed.

    CONV_2D and FULLY_CONNECTED layers with enough zeros become custom operators that
    hold the surviving weights only; a GRU, LSTM or SimpleRNN becomes one operator with
    or without zeros (from Keras, or from a `.tflite` in the form of TensorFlow's loops,
    of single LSTM and GRU steps, or of UNIDIRECTIONAL_SEQUENCE_LSTM, whose states stay
    from call to call); everything else stays as it is. The result runs
    in `tfrewprune.Interpreter` and `tfrewprune.CompiledModel`, or in the interpreter of
    any LiteRT with the delegate of `tfrewprune.delegate_path`.

    A Keras model is exported as it computes in inference, in float32, and left as it
    is: its masks, penalties and compilation. In the file filters may stand in another
    order: where channels between layers are in nobody's way, those of a band come side
    by side.

    Args:
        model: A Keras model, what `compress` returned, the path of a `.keras` file, of
            a SavedModel directory or of a `.tflite` file, or the bytes of a `.tflite`
            file from anywhere.
        output: Where to write the result; it appears whole or not at all.
        inputs: Inputs to compare the two models on, beside random ones. One element a
            run: an array, a list of arrays in the model's order (that of
            `model.inputs`, or of `get_input_details` of a `.tflite`), or a dict by
            name. Where sizes are open, times are predicted for those of the first;
            without inputs for the smallest that runs, from 32 x 32 pixels and from 16
            steps on (one step if `streaming`). The report tells it.
        batch_size: Fixes the batch of a Keras model. None keeps what its `Input` says.
        tolerance: Largest difference of any output, relative to the largest magnitude
            in that output. Dynamic-range layers are compared with their weights as
            floats, because LiteRT rounds their activations to int8.
        minimum_gain: A layer is packed when its predicted dense time is at least this
            many times its predicted packed time, and the file does not grow by it. 0
            packs whatever can be packed.
        band_rows: 4, 8, 16 or 32 rows in a band; None lets the packer choose.
        weights: `"keep"` packs weights in the type that the file has them in: float32,
            float16, or int8 with scales (dynamic range). `"float16"` rounds packed
            float32 weights to float16: half the bytes, and a difference that
            `tolerance` bounds. `"int8"` packs float32 weights of layers whose weights
            are a scale times integers, as `quantize` leaves them, as these integers: a
            quarter of the bytes, the same weights bit for bit. Others are kept, such as
            those that a batch normalization was folded into. Arithmetic is float32.
        target: The kind of processor the model is for, whose times decide what is
            packed and how: one of `tfrewprune.payload.cost.targets()`, such as
            `"x86-avx512-zen4"` or `"arm-small"`, or `"portable"` for phones: what
            holds on every ARM core. ARM times are orders of magnitude, counted from
            instructions. None is this machine, or what the environment variable
            `TFREWPRUNE_TARGET` names.
        measure: Whether to decide by measuring: each layer by itself is timed here,
            dense and packed in turn, on one thread; 0.1 to 0.3 s a layer. The report
            tells the times.
        verify: Whether to run both models and compare their outputs, and a Keras model
            with an open length beside its export. That the payloads hold exactly the
            weights is checked in any case.
        require_packed: Fails, and writes nothing, when fewer layers are packed in the
            result: a guard for scripts.
        streaming: Whether the states of recurrent layers become inputs and outputs, so
            that a sequence can be fed in pieces; see `Streamer`. Layers must begin with
            zeros, or with states that are inputs already. Masked steps at the beginning
            give out the state that came in.

    Returns:
        The bytes of the converted `.tflite` model; their attribute `report` is a
        `ConversionReport`: which layers are packed, why the others are not, bytes and
        predicted times before and after.

    Raises:
        ConversionError: If the model cannot be read or exported, holds NaN or Inf
            weights, does not behave as before, or has too few packed layers.
        OSError: If a file cannot be read or written.

    Warns:
        UserWarning: If no layer is packed, with the commonest reason. If weights that
            a mask removed are not zero.

    Example:
        >>> packed = trp.convert(pruned_model, "model.tflite")  # doctest: +SKIP
        >>> print(packed.report)  # doctest: +SKIP
    """
    _check_settings(tolerance, minimum_gain, band_rows, weights)
    _check_target(target, measure)
    _check_integer("batch_size", batch_size, 1)
    _check_integer("require_packed", require_packed, 0)
    if output is not None:
        check_folder(output)
    inputs = None if inputs is None else list(inputs)
    content = read_content(
        model, batch_size=batch_size, verify=verify, inputs=inputs, streaming=streaming
    )
    settings = Settings(minimum_gain, band_rows, weights, target)
    planned = with_own_loops(content)
    given = None
    if inputs:
        (first, *_) = given_cases(read_model(planned), inputs)
        given = [array.shape for array in first.feed]
    # A stream comes step by step, which is the length that the file stores.
    sized, shapes = (planned, None) if streaming else at_one_size(planned, given)
    decisions = make_plan(read_model(sized), settings)
    difference = None

    def check(packed: bytes, decisions: list[Decision]) -> float | None:
        packs = [decision for decision in decisions if decision.packs]
        if not verify or not packs:
            return None
        original = read_model(content)
        return verify_models(original, packed, packs, inputs, tolerance, planned)

    if measure:
        packed, trial = pack_worth_measuring(planned, decisions)
        difference = check(packed, trial)
        decisions = decide_by_measuring(planned, packed, trial, settings, shapes)
    packs = [decision for decision in decisions if decision.packs]
    if not measure or len(packs) < sum(decision.packs for decision in trial):
        packed = content
        if packs:
            tree = read_model(planned)
            perform(tree, decisions)
            packed = write_model(tree)
        difference = check(packed, decisions)
    if streaming:
        packed = add_states(packed)
    report = make_report(decisions, content, packed, difference, shapes)
    if len(report.packed) < require_packed:
        raise ConversionError(
            f"expected at least {require_packed} packed layers, received "
            f"{len(report.packed)} of {len(report.layers)}; left dense: "
            f"{report.why_dense or 'none'}"
        )
    if output is not None:
        write_atomically(output, packed)
    if not report.packed:
        warn_caller(describe_nothing_packed(report))
    return Converted(packed, report)


def with_own_loops(content: bytes) -> bytes:
    """Returns a model whose foreign recurrences are loops of ours, to plan with.

    See `recurrent.adopt`: a stateful LSTM is no longer one in it. The same bytes come
    back where there is nothing to rewrite.

    Raises:
        ConversionError: If it is damaged.
    """
    model = read_model(content)
    if model_numbers_operators(model) or not adopt(model):
        return content
    return write_model(model)


def add_states(packed: bytes) -> bytes:
    """Returns a packed model with its recurrent states as inputs and outputs.

    Raises:
        ConversionError: If it is damaged, or its layers cannot be streamed.
    """
    model = read_model(packed)
    if read_states(model):
        return packed
    before = take_operators(model)
    expose_states(model)
    drop_dead_operators(model.subgraphs[0])
    describe_hosts(model, before)
    return write_model(model)


def unpack(
    tflite: bytes | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
) -> bytes:
    """Returns the standard dense model of a converted one.

    Args:
        tflite: A model written by `convert`, as bytes or as a path. A model without
            packed layers comes back with the same content.
        output: Where to write the result; it appears whole or not at all.

    Returns:
        The bytes of a `.tflite` model that any TFLite runs without a delegate: the file
        as it was before conversion. Weights have the type and the encoding they had
        (float16 behind DEQUANTIZE, sparse behind DENSIFY, int8 with scales) and are
        bit-equal, except that every zero is +0.0, and that weights rounded by
        `weights="float16"` stay rounded. Recurrent layers come back as loops
        of float32 weights, whoever wrote them, or as UNIDIRECTIONAL_SEQUENCE_LSTM.

    Raises:
        ConversionError: If the model or a payload in it is damaged.
        OSError: If a file cannot be read or written.

    Example:
        >>> dense = trp.unpack("packed.tflite", "dense.tflite")  # doctest: +SKIP
    """
    if output is not None:
        check_folder(output)
    content = read_content(tflite, may_export=False)
    model = read_model(content)
    dense = write_model(model) if unpack_model(model) else content
    if output is not None:
        write_atomically(output, dense)
    return dense


def read_content(
    model: Any,
    may_export: bool = True,
    batch_size: int | None = None,
    verify: bool = True,
    inputs: Sequence[Any] | None = None,
    streaming: bool = False,
) -> bytes:
    """Returns the `.tflite` bytes of whatever the caller calls a model.

    Args:
        model: See `convert`.
        may_export: Whether something else than `.tflite` is allowed.
        batch_size: See `convert`.
        verify: See `convert`.
        inputs: See `convert`.
        streaming: See `convert`.

    Raises:
        ConversionError: If it is nothing that can be turned into `.tflite` bytes.
        OSError: If a file cannot be read.
    """
    content = _ready_content(model, may_export)
    if content is not None:
        if batch_size is not None:
            raise ConversionError(
                "batch_size applies to Keras models; a .tflite file has the shapes it "
                f"was converted with, received batch_size={batch_size}"
            )
        return content
    from tfrewprune.converter import export

    return export.to_tflite(unwrapped(model), batch_size, verify, inputs, streaming)


def _ready_content(model: Any, may_export: bool) -> bytes | None:
    """The bytes of a model that is `.tflite` already; None if it must be exported."""
    model = unwrapped(model)
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model)
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if not path.exists():
            raise FileNotFoundError(f"there is no model at {str(path)!r}")
        exported = path.is_dir() or is_keras_file(path)
        if not exported:
            return path.read_bytes()
        if not may_export:
            raise ConversionError(f"expected a .tflite file, received {str(path)!r}")
    elif not may_export or not hasattr(unwrapped(model), "save"):
        expected = "a Keras model, a path" if may_export else "a path"
        raise ConversionError(
            f"expected {expected} or the bytes of a .tflite file, received "
            f"{type(model).__name__}"
        )
    return None


def unwrapped(model: Any) -> Any:
    """Returns the model that a result of pruning holds; anything else as it is."""
    return model if hasattr(model, "save") else getattr(model, "model", model)


def _check_settings(
    tolerance: float, gain: float, band_rows: int | None, weights: str
) -> None:
    if not tolerance > 0:
        raise ConversionError(f"tolerance must be above 0, received {tolerance}")
    if not gain >= 0:
        raise ConversionError(f"minimum_gain must be at least 0, received {gain}")
    if weights not in ("keep", "float16", "int8"):
        raise ConversionError(
            f"weights must be 'keep', 'float16' or 'int8', received {weights!r}"
        )
    if band_rows not in (None, 4, 8, 16, 32):
        raise ConversionError(
            f"band_rows must be 4, 8, 16, 32 or None, received {band_rows}"
        )


def _check_target(target: str | None, measure: bool) -> None:
    known = targets()
    if target is not None and target not in known:
        raise ConversionError(
            f"target must be one of {', '.join(known)} or None, received {target!r}"
        )
    if measure and target not in (None, this_target()):
        raise ConversionError(
            f"measure=True times this machine, which is {this_target()!r}; received "
            f"target={target!r}"
        )


def _check_integer(name: str, value: int | None, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConversionError(
            f"{name} must be an integer of at least {least}, received {value!r}"
        )
