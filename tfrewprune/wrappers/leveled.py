# SPDX-License-Identifier: Apache-2.0
"""Quantization + model -> which kernel gets which levels; training and snapping."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from tfrewprune.levels import Levels
from tfrewprune.quantization import Quantization, Stage
from tfrewprune.rule import Rule
from tfrewprune.structures import Unstructured
from tfrewprune.wrappers.attachment import attach_target, detach_penalty, set_masks
from tfrewprune.wrappers.kernels import output_layers
from tfrewprune.wrappers.steps import rebuild_steps, synchronize
from tfrewprune.wrappers.targets import Target, all_kernels

_SINGLE = Rule("*", structure=Unstructured())


@dataclasses.dataclass(frozen=True)
class Leveled:
    """A kernel and its levels.

    Attributes:
        target: The kernel; its `reason` says why the layer stays as floats.
        levels: None with a reason.
        part: 1 for the first and the last layer where they come last, else 0.
    """

    target: Target
    levels: Levels | None
    part: int = 0


def resolve_levels(model: keras.Model, quantization: Quantization) -> list[Leveled]:
    """What a quantization means for each layer of the model.

    Raises:
        ValueError: A pattern matches no layer, or no layer is left to quantize; NaN or
            infinite weights.
    """
    rules = {name: Rule(name) for name in quantization.layers}
    meant: dict[str, dict[str, str | None]] = {}
    found = []
    targets = all_kernels(model)
    for target in targets:
        label = "kernel" if target.spec is None else target.spec.label
        matching = (
            name
            for name, rule in rules.items()
            if rule.matches(target.layer.name, target.path, target.kinds, label)
        )
        name = next(matching, None)
        if name is not None:
            meant.setdefault(name, {})[target.label] = target.reason
        levels = quantization.levels if name is None else quantization.layers[name]
        reason = target.reason
        if reason is None and levels is None:
            reason = "left as floats" + (f" by {name!r}" if name else "")
        if reason is None and not np.any(target.kernel()):
            reason = "all its weights are zero"
        target = dataclasses.replace(target, rule=_SINGLE, reason=reason)
        found.append(Leveled(target, levels if reason is None else None))
    _check_names(rules, meant, targets)
    if all(each.levels is None for each in found):
        reasons = "\n".join(f"  {e.target.label}: {e.target.reason}" for e in found)
        raise ValueError(
            f"The quantization leaves no layer:\n{reasons or '  no layers'}"
        )
    if not quantization.ends_last:
        return found
    ends = _ends(model, [each.target for each in found if each.levels])
    return [
        dataclasses.replace(each, part=int(id(each.target.layer) in ends))
        for each in found
    ]


def _check_names(rules, meant: dict[str, dict], targets: list[Target]) -> None:
    """Refuses a name or pattern that gives levels to no layer."""
    for name in rules:
        reasons = meant.get(name)
        if reasons and None in reasons.values():
            continue
        if reasons:
            why = "; ".join(f"{label}: {reason}" for label, reason in reasons.items())
            raise ValueError(f"The quantization cannot quantize {name!r}. {why}.")
        paths = ", ".join(dict.fromkeys(target.path for target in targets))
        raise ValueError(
            f"The quantization names {name!r}, but no layer is left that it matches. "
            f"Layers with weights: {paths or 'none (is the model built?)'}."
        )


def _ends(model: keras.Model, targets: list[Target]) -> set[int]:
    """The first layer with levels, and those that give the outputs."""
    last = output_layers(model) or [targets[-1].layer]
    return {id(targets[0].layer), *map(id, last)}


def attach_levels(
    model: keras.Model, quantization: Quantization | Stage | Levels | int | str
) -> list[Leveled]:
    """Has plain `fit` lead weights to their levels, in place; zeros stay zeros.

    Train with the callback `Reweight(stage.refreshes)`, then attach the next of
    `quantization.stages`; after the last stage of a part call `snap_to_levels`.
    `quantize` does all of it. Penalties that the model carries are taken off, masks
    stay, and weights that are zero are masked.

    Args:
        model: A built model, compiled for its optimizer.
        quantization: What to do; a whole `Quantization` stands for its first stage.

    Returns:
        One entry a kernel, with the reason for each one that stays as floats.

    Raises:
        ValueError: As `resolve_levels`.
    """
    stage = quantization
    if not isinstance(stage, Stage):
        stage = Quantization.get(quantization).stages[0]
    resolved = resolve_levels(model, stage.quantization)
    chosen = [each for each in resolved if each.levels is not None]
    targets = [each.target for each in chosen]
    synchronize(owner for target in targets for owner in target.owners)
    # What training under levels has brought to 0 may leave it again.
    pruned = [t for t in targets if t.penalty is None or t.penalty.method.prunes]
    hold_zeros(model, pruned)
    methods = {
        each.target.path_key: stage.method(each.levels, each.part) for each in chosen
    }
    if any(t.penalty is not None and t.penalty.method.prunes for t in targets):
        detach_penalty(model)
    strength = stage.quantization.strength
    changed = []
    for target in targets:
        method = methods[target.path_key]
        if method is not None:
            pull = strength if method.in_loss else method.default_strength
            if attach_target(model, target, method, pull):
                changed += target.owners
    rebuild_steps(changed)
    return resolved


def hold_zeros(model: keras.Model, targets: list[Target]) -> None:
    """Masks the weights that are zero, one by one."""
    masks = {target.path_key: target.values() != 0 for target in targets}
    holed = [target for target in targets if not masks[target.path_key].all()]
    set_masks(model, holed, masks)


def snap_to_levels(
    model: keras.Model,
    quantization: Quantization | Levels | int | str,
    part: int | None = None,
) -> list[Leveled]:
    """Sets the weights of all layers, or of one part, to the nearest on their levels.

    After training under `attach_levels` that changes little or nothing; of a model that
    was never trained under it, it is plain rounding. Zeros stay zeros.

    Args:
        model: A built model, changed in place.
        quantization: Which levels.
        part: As in `Stage`; None for all layers.

    Returns:
        One entry a kernel, with the reason for each one that stays as floats.

    Raises:
        ValueError: As `resolve_levels`.
    """
    resolved = resolve_levels(model, Quantization.get(quantization))
    chosen = [e for e in resolved if e.levels is not None and part in (None, e.part)]
    synchronize(owner for each in chosen for owner in each.target.owners)
    for each in chosen:
        target = each.target
        variable = target.variable
        weights = ops.convert_to_numpy(variable.value)
        kernel = each.levels.project(target.kernel())
        layout = target.spec.layout
        snapped = layout.from_kernel(kernel, weights.shape, np, weights)
        variable.assign(snapped.astype(weights.dtype))
    return resolved
