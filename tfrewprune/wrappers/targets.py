# SPDX-License-Identifier: Apache-2.0
"""Recipe + model -> the kernels to prune, and the reason for every layer left dense."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from tfrewprune.payload.cost import LayerShape
from tfrewprune.payload.gain import predicted_gain
from tfrewprune.recipe import TYPICAL_RATE, Recipe, Rule
from tfrewprune.structures import KernelShape, Structure
from tfrewprune.wrappers.constraint import MaskConstraint
from tfrewprune.wrappers.kernels import (
    KernelSpec,
    find_kernels,
    hooked_specs,
    macs_per_weight,
    output_layers,
    walk_layers,
)
from tfrewprune.wrappers.regularizer import MethodRegularizer


@dataclasses.dataclass(frozen=True)
class Target:
    """One layer's kernel, with what a recipe says about it.

    `reason` tells why it stays dense; `spec` and `rule` may then be None. `note` is
    what the user should know although the layer is pruned as asked.
    """

    path: str
    layer: keras.Layer
    spec: KernelSpec | None = None
    rule: Rule | None = None
    reason: str | None = None
    note: str | None = None

    @property
    def variable(self) -> keras.Variable:
        """The weight tensor."""
        return self.spec.variable(self.layer)

    @property
    def path_key(self) -> tuple[int, str]:
        """Identifies the kernel: two layers may share a path, never this."""
        return id(self.layer), self.spec.attribute

    @property
    def shape(self) -> KernelShape:
        """Extent of the kernel as a GEMM matrix."""
        return self.spec.layout.kernel_shape(self.variable.shape)

    @property
    def structure(self) -> Structure | None:
        """The rule's structure, or that of the penalty or mask in place."""
        if self.rule is not None:
            return self.rule.structure
        hook = self.mask or self.penalty
        return None if hook is None else hook.structure

    @property
    def penalty(self) -> MethodRegularizer | None:
        """The penalty in place."""
        found = self.variable.regularizer
        return found if isinstance(found, MethodRegularizer) else None

    @property
    def mask(self) -> MaskConstraint | None:
        """The mask in place."""
        found = self.variable.constraint
        return found if isinstance(found, MaskConstraint) else None

    def weights(self) -> np.ndarray:
        """The weight tensor as float32 numpy, in the layer's own shape."""
        return ops.convert_to_numpy(self.variable.value).astype(np.float32)

    def kernel(self) -> np.ndarray:
        """The weights as float32 numpy (positions, channels, outputs).

        Raises:
            ValueError: The weights hold NaN or infinity.
        """
        weights = self.weights()
        broken = int(weights.size - np.isfinite(weights).sum())
        if broken:
            raise ValueError(
                f"Layer {self.path!r} has {broken} NaN or infinite weights of "
                f"{weights.size} in `{self.spec.attribute}`. Restore a good checkpoint "
                "or lower the learning rate before pruning."
            )
        return self.spec.layout.to_kernel(weights)


def all_kernels(model: keras.Layer) -> list[Target]:
    """Every layer with weights: prunable kernels, and the others with a reason."""
    targets = []
    for path, layer in walk_layers(model):
        specs, reason = find_kernels(layer)
        if reason is not None:
            targets.append(Target(path, layer, reason=reason))
        for spec in specs:
            target = Target(path, layer, spec)
            if not target.shape.weights:
                reason = f"empty: weights of shape {tuple(target.variable.shape)}"
                target = Target(path, layer, reason=reason)
            targets.append(target)
    return targets


def hooked_kernels(model: keras.Layer) -> list[Target]:
    """Kernels that carry a penalty or a mask of this package, frozen ones too."""
    return [
        Target(path, layer, spec)
        for path, layer in walk_layers(model)
        for spec in hooked_specs(layer)
    ]


def resolve(model: keras.Layer, recipe: Recipe) -> list[Target]:
    """What the recipe means for each layer of the model.

    Raises:
        ValueError: A rule matches no layer, is shadowed by the rules before it, or the
            recipe leaves nothing to prune.
    """
    targets = all_kernels(model)
    _check_rules(targets, recipe)
    skipped = _ends(model, targets, recipe)
    resolved = [_apply(target, recipe, skipped) for target in targets]
    if all(target.reason is not None for target in resolved):
        reasons = "\n".join(f"  {t.path}: {t.reason}" for t in resolved)
        raise ValueError(
            "The recipe leaves no layer to prune:\n" + (reasons or "  no layers")
        )
    return resolved


def expected_gain(target: Target, structure: Structure, rate: float) -> float | None:
    """How many times faster than dense a packed kernel would run on one thread.

    Args:
        target: A kernel that can be packed.
        structure: What is removed together.
        rate: Dense weights / kept weights.

    Returns:
        The cost model's prediction for one input of the shape that the layer was built
        with; None if that shape is not known.
    """
    try:
        pixels = macs_per_weight(target.layer, target.spec)
    except ValueError:
        return None
    kernel = target.shape
    size = LayerShape(kernel.outputs, kernel.columns, pixels, kernel.positions)
    return predicted_gain(size, rate, structure.rows_alike(kernel))


def _apply(target: Target, recipe: Recipe, skipped: dict[int, str]) -> Target:
    rule = recipe.rule_for(target.layer.name, target.path)
    reason, note = target.reason, None
    if reason is None:
        exact = rule is not None and rule.names(target.layer.name, target.path)
        if rule is None:
            reason = "no rule matches"
        elif rule.skip:
            reason = f"left dense by rule {rule.match!r}"
        elif not target.spec.packed:
            # A pattern means "what pays"; a name means this layer.
            note = (
                f"no packed operator for {type(target.layer).__name__}: its zeros save "
                "neither bytes nor time in a converted model"
            )
            reason = None if exact else f"{note}; a rule by its exact name prunes it"
        elif not exact and id(target.layer) in skipped:
            reason = skipped[id(target.layer)]
        elif not exact and target.shape.weights < recipe.minimum_weights:
            reason = f"small: {target.shape.weights} weights < {recipe.minimum_weights}"
        elif not exact:
            rate = rule.rate or recipe.rate or TYPICAL_RATE
            gain = expected_gain(target, rule.structure, rate)
            if gain is not None and gain <= 1:
                reason = f"dense is faster at {rate:g}x (predicted gain {gain:.2f}x)"
    if reason is not None:
        return dataclasses.replace(target, rule=rule, reason=reason)
    structure = _fitted(target, rule.structure)
    rule = dataclasses.replace(rule, structure=structure)
    return dataclasses.replace(target, rule=rule, note=note)


def _fitted(target: Target, structure: Structure) -> Structure:
    """The structure for one kernel: as settled by penalty or mask, else settled now."""
    for hook in (target.mask, target.penalty):
        if hook is not None and hook.structure.settles(structure):
            return hook.structure
    return structure.fitted(target.spec.layout.to_kernel(target.weights()))


def _ends(model: keras.Layer, targets: list[Target], recipe: Recipe) -> dict[int, str]:
    """Layers that patterns leave alone: first convolution, output Dense layers."""
    kernels = [target for target in targets if target.reason is None]
    skipped = {}
    if recipe.skip_first:
        first = next((t for t in targets if hasattr(t.layer, "kernel_size")), None)
        if first is not None:
            skipped[id(first.layer)] = "first convolution (skip_first=True)"
    if recipe.skip_last and kernels:
        last = [kernels[-1].layer, *output_layers(model)]
        for layer in last:
            if isinstance(layer, keras.layers.Dense):
                skipped[id(layer)] = "last classifier (skip_last=True)"
    return skipped


def _check_rules(targets: list[Target], recipe: Recipe) -> None:
    winners = {
        rule.match
        for target in targets
        if (rule := recipe.rule_for(target.layer.name, target.path))
    }
    for rule in recipe.rules:
        if rule.match in winners:
            continue
        if any(rule.matches(target.layer.name, target.path) for target in targets):
            raise ValueError(
                f"Rule {rule.match!r} never applies: earlier rules match all of its "
                "layers. Put the more specific rule first."
            )
        names = ", ".join(dict.fromkeys(target.path for target in targets))
        raise ValueError(
            f"Rule {rule.match!r} matches no layer. Layers with weights: "
            f"{names or 'none (is the model built?)'}."
        )
