# SPDX-License-Identifier: Apache-2.0
"""Cloning with `Prunable` wrappers, and the way back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import keras

from tfrewprune.caller import warn_caller
from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.attachment import (
    allowances,
    apply_masks,
    attach_recipe,
    check_method,
    release,
    revived_weights,
)
from tfrewprune.wrappers.compilation import compile_arguments, compile_with
from tfrewprune.wrappers.copying import NotCopied, layer_like
from tfrewprune.wrappers.kernels import kernel_specs, walk_layers
from tfrewprune.wrappers.prunable import Prunable
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.targets import Target, hooked_kernels

#: What to do with a model that `wrap` cannot clone.
_ATTACH = "Use attach(model, recipe) instead."


def wrap(model: keras.Model, recipe: Recipe) -> keras.Model:
    """A clone of the model whose pruned layers are `Prunable`.

    The clone owns and saves all pruning state: a `.keras` or `.weights.h5` file resumes
    in any phase with the very alpha and mask. For Sequential and functional models,
    nested ones included; everything else, and training on without a clone, is what
    `attach` is for. Kernels inside other layers (the projections of
    `MultiHeadAttention`, the layer of `TimeDistributed`) cannot be wrapped; they are
    attached instead.

    Args:
        model: A built Sequential or functional model. It is left as it is.
        recipe: What to penalize.

    Returns:
        The clone, with the same weights, compiled like `model` with a new optimizer.

    Raises:
        ValueError: The model is subclassed or has a layer that cannot be copied, the
            recipe names no layer, leaves nothing to prune, or has a method that cannot
            empty its structures.
    """
    _check_clonable(model, "wrap", _ATTACH)
    if any(isinstance(layer, Prunable) for _, layer in walk_layers(model)):
        raise ValueError(
            "wrap: the model has Prunable layers already. strip() it first."
        )
    targets = [target for target in resolve(model, recipe) if target.reason is None]
    check_method(targets, recipe.method)
    keep = allowances(targets, recipe)
    chosen: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        if target.spec.unit == "matrix":
            chosen[id(target.layer)].append(target)

    def make(layer):
        copy = layer_like(layer)
        found = chosen.get(id(layer), [])
        if not found or not _alike(found, keep):
            return copy
        target = found[0]
        return Prunable(
            copy,
            structure=target.rule.structure,
            method=recipe.method,
            strength=recipe.strength_of(target.rule),
            rate=_rate(target, keep),
        )

    clone = _clone(model, make, "wrap", _ATTACH)
    wrapped = {id(x.layer) for _, x in walk_layers(clone) if isinstance(x, Prunable)}
    cloned = [target for target in resolve(clone, recipe) if target.reason is None]
    keep = allowances(cloned, recipe)
    for target in cloned:
        if id(target.layer) not in wrapped:
            attach_recipe(clone, target, recipe, keep.get(target.path_key))
        elif target.penalty is not None:
            target.penalty.refresh(target.variable.value)
    return clone


def strip(model: keras.Model) -> keras.Model:
    """The plain model: no object of this package, removed weights exactly 0.0.

    An `attach`ed model is freed in place and returned itself; a model with `Prunable`
    layers is cloned without them, compiled alike. A `.keras` file of the result loads
    where tfrewprune is not installed.

    Args:
        model: A model after any phase. A plain model is returned as it is.

    Raises:
        ValueError: `Prunable` layers inside a subclassed model, or beside a layer that
            cannot be copied.

    Warns:
        UserWarning: Weights outside the mask are not zero, see `revived_weights`: they
            are set to zero, which costs accuracy that no training has made up for.
    """
    if message := revived_weights(model):
        warn_caller(f"strip: {message} They are set to zero now.")
    apply_masks(model)
    if any(isinstance(layer, Prunable) for _, layer in walk_layers(model)):
        _check_clonable(model, "strip", None)

        def make(layer):
            return layer_like(layer.layer if isinstance(layer, Prunable) else layer)

        model = _clone(model, make, "strip")
    release(model)
    return model


def _alike(targets: list[Target], keep: dict[tuple, int]) -> bool:
    """Whether one `Prunable` can prune all matrices of a layer as the recipe says."""
    rules = {(t.rule.structure, t.rule.strength, _rate(t, keep)) for t in targets}
    return len(rules) == 1 and len(targets) == len(kernel_specs(targets[0].layer))


def _rate(target: Target, keep: dict[tuple, int]) -> float | None:
    kept = keep.get(target.path_key)
    return None if kept is None else target.shape.weights / max(kept, 1)


def plain_copy(
    model: keras.Model, caller: str, way_out: str | None = None, borrow: bool = False
) -> keras.Model:
    """A copy without any object of this package; the model is left as it is.

    Args:
        model: A built Sequential or functional model.
        caller: Name of the function that was called.
        way_out: A sentence for errors on what to do about a model without a copy.
        borrow: Let the copy have the very layers of the model that cannot be copied,
            unless they carry an object of this package.

    Raises:
        ValueError: The model is subclassed, not built, or has a layer that cannot be
            copied.
    """
    _check_clonable(model, caller, way_out)
    return strip(_clone(model, layer_like, caller, way_out, borrow))


def _clone(
    model: keras.Model,
    make: Callable[[keras.Layer], keras.Layer],
    caller: str,
    way_out: str | None = None,
    borrow: bool = False,
) -> keras.Model:
    """clone_model with `make` for every layer; weights and compilation are copied."""
    pairs = []

    def refusal(reason: NotCopied | str) -> ValueError:
        return ValueError(" ".join(filter(None, (f"{caller}: {reason}", way_out))))

    def remember(operation):
        # Operators between layers, as in `a + b`, are cloned too but hold no weights.
        if not isinstance(operation, keras.Layer):
            return layer_like(operation)
        try:
            copy = make(operation)
        except NotCopied as reason:
            if not borrow or hooked_kernels(operation):
                raise refusal(reason) from reason
            return operation
        pairs.append((operation, copy))
        return copy

    clone = keras.models.clone_model(model, clone_function=remember, recursive=True)
    if not clone.built:
        clone.build(model.input_shape)
    for layer, copy in pairs:
        try:
            _plain(copy).set_weights(_plain(layer).get_weights())
        except ValueError as error:  # it came out with other weights, or none
            unbuilt = (
                f"layer {layer.name!r} was not built in the copy, as a layer before it "
                "does not say the shape of its output."
            )
            reason = NotCopied(layer) if copy.built else unbuilt
            raise refusal(reason) from error
        copy.trainable = layer.trainable
    compile_with(clone, compile_arguments(model))
    return clone


def _plain(layer: keras.Layer) -> keras.Layer:
    return layer.layer if isinstance(layer, Prunable) else layer


def _check_clonable(model: keras.Model, caller: str, way_out: str | None) -> None:
    functional = isinstance(model, keras.Sequential) or (
        isinstance(model, keras.src.models.Functional)
    )
    if not functional or not model.built:
        hint = f" {way_out}" if way_out else ""
        kind = "is not built" if functional else "is a subclassed model"
        raise ValueError(
            f"{caller}: only built Sequential and functional models can be cloned; "
            f"{model.name!r} ({type(model).__name__}) {kind}.{hint}"
        )
