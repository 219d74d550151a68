# SPDX-License-Identifier: Apache-2.0
"""What pruning would gain, layer by layer, before anything is trained."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import keras

from tfrewprune.mapping import finest
from tfrewprune.payload.cost import AnyCost, cost_model
from tfrewprune.payload.gain import joint_gain
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Structure
from tfrewprune.wrappers.kernels import kernel_specs
from tfrewprune.wrappers.loading import load_model
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.targets import Target, all_kernels, layer_runs

RATES = (2, 4, 8)


@dataclasses.dataclass(frozen=True)
class PlanRow:
    """What pruning would do for one layer.

    Attributes:
        layer: Path of the layer inside the model.
        kind: Layer class.
        shape: Shape of the weight tensor in Keras' order; () without a matrix
            that is known.
        weights: Number of weights.
        pixels: Output positions for a batch of one, steps of a recurrent layer (1
            where their number is open), of all calls together; None when unknown.
        not_prunable: Why it cannot be pruned, or None.
        not_packable: Why no kernel runs it packed, or None.
        left_dense: Why `compress(model, rate=8)` leaves it dense, or None.
        dense_us: Predicted microseconds in dense, on one thread; None when unknown.
        share: Of the predicted time of all layers with a known one.
        gains: Rate to how many times faster the layer would be; empty when unknown.
        finest: The finest structure that at 8x is nearly as fast as the fastest, see
            `map_by_rule`; None when unknown.
    """

    layer: str
    kind: str
    shape: tuple[int, ...] = ()
    weights: int = 0
    pixels: int | None = None
    not_prunable: str | None = None
    not_packable: str | None = None
    left_dense: str | None = None
    dense_us: float | None = None
    share: float | None = None
    gains: dict[int, float] = dataclasses.field(default_factory=dict)
    finest: str | None = None

    def to_dict(self) -> dict:
        """JSON-serializable."""
        return dataclasses.asdict(self) | {"shape": list(self.shape)}


def plan(
    model: keras.Model | str | os.PathLike[str],
    structure: Structure | None = None,
    target: str | None = None,
) -> list[PlanRow]:
    """Predicts for every layer with weights what pruning it would gain.

    Predictions come from the converter's cost model: one thread, float32, for a batch
    of one of the shape the model was built with. They compare ways to run one layer;
    measure with `tfrewprune bench`.

    Args:
        model: A built Keras model, trained or not, or a file `keras` loads.
        structure: What would be removed together; None for `Block(16, 1)`.
        target: The kind of processor to predict for, as in `convert`; None is this
            machine.

    Returns:
        One row a layer with weights, in the order of the model.

    Raises:
        ValueError: The model has no weights, Keras cannot load the file, or there is
            no such target.
        OSError: The file cannot be read.

    Example:

    >>> for row in plan("model.keras"):  # doctest: +SKIP
    ...     print(row.layer, row.gains, row.left_dense)
    """
    structure = structure or Block(16, 1)
    costs = cost_model(target)
    if not isinstance(model, keras.Model):
        model = load_model(model)
    targets = all_kernels(model)
    if not targets:
        raise ValueError(
            f"Model {model.name!r} has no layer with weights. Build it, or call it "
            "once, before planning."
        )
    default = _default_reasons(model, structure, costs)
    rows = [_row(each, structure, default, costs) for each in targets]
    total = sum(row.dense_us or 0 for row in rows)
    return [
        row
        if row.dense_us is None
        else dataclasses.replace(row, share=row.dense_us / total)
        for row in rows
    ]


def total_gain(rows: Sequence[PlanRow], rate: int) -> float | None:
    """How many times faster the layers of the plan are together at a rate.

    Layers that are left dense take their dense time. What LiteRT runs besides, such as
    depthwise convolutions and pooling, is not counted: the whole model gains less.

    Args:
        rows: What `plan` returned.
        rate: One of `RATES`.

    Returns:
        None when no layer's time is known.
    """
    known = [row for row in rows if row.dense_us is not None]
    if not known:
        return None
    after = sum(
        row.dense_us / (1 if row.left_dense else max(1, row.gains[rate]))
        for row in known
    )
    return sum(row.dense_us for row in known) / after


def _default_reasons(
    model: keras.Model, structure: Structure, costs: AnyCost
) -> dict[tuple[int, str], str | None]:
    """Layer and weight to the reason why a recipe for all layers leaves it dense."""
    recipe = Recipe(Rule("*", structure=structure, rate=RATES[-1]))
    try:
        resolved = resolve(model, recipe, costs)
    except ValueError:  # It leaves nothing to prune, which a plan may well say.
        reason = "`rate=8` leaves no layer of this model to prune"
        return {_key(t): t.reason or reason for t in all_kernels(model)}
    return {_key(target): target.reason for target in resolved}


def _key(target: Target) -> tuple[int, str]:
    return id(target.layer), target.spec.label if target.spec else ""


def _row(
    target: Target,
    structure: Structure,
    default: dict[tuple[int, str], str | None],
    costs: AnyCost,
) -> PlanRow:
    layer = target.layer
    # A frozen layer cannot be pruned, but takes its time.
    spec = target.spec or next(iter(kernel_specs(layer) or ()), None)
    kind = type(layer).__name__
    row = PlanRow(
        target.label,
        kind,
        shape=dataclasses.replace(target, spec=spec).extent if spec else (),
        not_prunable=target.reason,
        not_packable=f"no packed operator for {kind}"
        if spec and not spec.packed
        else None,
        left_dense=default[_key(target)],
    )
    if spec is None or getattr(layer, "groups", 1) != 1:
        return row
    target = dataclasses.replace(target, spec=spec)
    row = dataclasses.replace(row, weights=target.shape.weights)
    try:
        runs = layer_runs(target, open_steps=1)
    except ValueError:
        return row
    pixels = sum(size.pixels * times for size, times in runs.items())
    row = dataclasses.replace(row, pixels=pixels)
    if row.not_packable:
        return row
    alike = structure.rows_alike(target.shape)
    return dataclasses.replace(
        row,
        dense_us=sum(times * costs.dense(size) for size, times in runs.items()),
        gains={rate: joint_gain(runs, rate, alike, costs) for rate in RATES},
        finest=str(finest(target, RATES[-1], costs=costs)),
    )
