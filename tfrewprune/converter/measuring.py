# SPDX-License-Identifier: Apache-2.0
"""Decides by measuring on this machine which layers are packed."""

from __future__ import annotations

from dataclasses import replace

from tfrewprune.converter.densify import stored_bytes
from tfrewprune.converter.flatbuffer import Model, read_model, write_model
from tfrewprune.converter.perform import perform
from tfrewprune.converter.plan import Decision, Settings, with_sums
from tfrewprune.converter.reasons import SkipReason
from tfrewprune.converter.sized import Shapes, at_one_size

_SECONDS = 0.1
"""How long one layer is timed, dense and packed together."""


def pack_worth_measuring(
    content: bytes, decisions: list[Decision]
) -> tuple[bytes, list[Decision]]:
    """Packs every layer that only a prediction may keep dense.

    Args:
        content: The model.
        decisions: What predictions say of its layers.

    Returns:
        The packed model, and the decisions that made it.
    """
    model = read_model(content)
    trial = with_sums(
        model,
        [
            replace(decision, skip=None, reason=None)
            if decision.skip is SkipReason.DENSE_IS_FASTER and _fits(model, decision)
            else decision
            for decision in decisions
        ],
    )
    if not any(decision.packs for decision in trial):
        return content, trial
    perform(model, trial)
    return write_model(model), trial


def decide_by_measuring(
    content: bytes,
    packed: bytes,
    trial: list[Decision],
    settings: Settings,
    shapes: Shapes | None = None,
) -> list[Decision]:
    """Times every packed layer beside the dense one, in turn, in LiteRT.

    Args:
        content: The model.
        packed: The same with all layers packed that `trial` packs. It runs in this
            process: verify it before.
        trial: What `pack_worth_measuring` returned.
        settings: A layer stays packed where its dense time is at least `minimum_gain`
            times its packed time; medians over alternating rounds, one thread.
        shapes: Of the inputs where sizes are open, as `at_one_size` returned them.

    Returns:
        The decisions, with measured times.

    Raises:
        WrongResultError: If a packed layer computes something else than LiteRT.
    """
    # As in `verify`, running a model is what the layers further down are for.
    from tfrewprune.benchmark.profile import time_layers

    if shapes is not None:
        packed, _ = at_one_size(packed, shapes)
    times = iter(time_layers(packed, min_seconds=_SECONDS, only_packed=True))
    measured = []
    for decision in trial:
        if decision.layer.packed:  # the file came with it
            if decision.layer.reason is None:
                next(times)
            measured.append(decision)
            continue
        if not decision.packs or decision.layer.loop is not None:
            # A recurrent layer is one operator whatever its products take.
            measured.append(decision)
            continue
        time = next(times)
        dense_us, packed_us = 1e6 * time.dense.median, 1e6 * time.packed.median
        skip = reason = None
        if time.ratio.median < settings.minimum_gain:
            skip = SkipReason.DENSE_IS_FASTER
            reason = (
                f"dense is faster: measured {dense_us:.3g} us dense, "
                f"{packed_us:.3g} us packed"
            )
        measured.append(
            replace(
                decision,
                skip=skip,
                reason=reason,
                measured_us=(dense_us, packed_us),
            )
        )
    return with_sums(read_model(content), measured)


def _fits(model: Model, decision: Decision) -> bool:
    """Whether the file does not grow by packing the layer."""
    layer = decision.layer
    tensor = model.subgraphs[layer.subgraph].tensors[layer.source.tensor]
    return decision.packing.payload_bytes <= stored_bytes(model, tensor)
