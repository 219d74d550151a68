# SPDX-License-Identifier: Apache-2.0
"""Cloning with `Prunable` wrappers, and the way back."""

from __future__ import annotations

import warnings
from collections import defaultdict

import keras

from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.attachment import (
    allowances,
    apply_masks,
    attach_recipe,
    release,
    revived_weights,
)
from tfrewprune.wrappers.compilation import compile_arguments, compile_with
from tfrewprune.wrappers.kernels import kernel_specs, walk_layers
from tfrewprune.wrappers.prunable import Prunable
from tfrewprune.wrappers.targets import Target, resolve


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
        ValueError: The model is subclassed, the recipe names no layer, or leaves
            nothing to prune.
    """
    _check_clonable(model, "wrap", "attach")
    if any(isinstance(layer, Prunable) for _, layer in walk_layers(model)):
        raise ValueError(
            "wrap: the model has Prunable layers already. strip() it first."
        )
    targets = [target for target in resolve(model, recipe) if target.reason is None]
    keep = allowances(targets, recipe)
    chosen: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        if target.spec.unit == "matrix":
            chosen[id(target.layer)].append(target)

    def make(layer):
        copy = _copy_layer(layer)
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

    clone = _clone(model, make)
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
        ValueError: `Prunable` layers inside a subclassed model, which cannot be cloned.

    Warns:
        UserWarning: Weights outside the mask are not zero, see `revived_weights`: they
            are set to zero, which costs accuracy that no training has made up for.
    """
    if message := revived_weights(model):
        warnings.warn(f"strip: {message} They are set to zero now.", stacklevel=2)
    apply_masks(model)
    if any(isinstance(layer, Prunable) for _, layer in walk_layers(model)):
        _check_clonable(model, "strip", None)

        def make(layer):
            return _copy_layer(layer.layer if isinstance(layer, Prunable) else layer)

        model = _clone(model, make)
    release(model)
    return model


def _alike(targets: list[Target], keep: dict[tuple, int]) -> bool:
    """Whether one `Prunable` can prune all matrices of a layer as the recipe says."""
    rules = {(t.rule.structure, t.rule.strength, _rate(t, keep)) for t in targets}
    return len(rules) == 1 and len(targets) == len(kernel_specs(targets[0].layer))


def _rate(target: Target, keep: dict[tuple, int]) -> float | None:
    kept = keep.get(target.path_key)
    return None if kept is None else target.shape.weights / max(kept, 1)


def plain_copy(model: keras.Model, caller: str) -> keras.Model:
    """A copy without any object of this package; the model is left as it is.

    Args:
        model: A built Sequential or functional model.
        caller: Name of the function that was called.

    Raises:
        ValueError: The model is subclassed, or not built.
    """
    _check_clonable(model, caller, None)
    return strip(_clone(model, _copy_layer))


def _copy_layer(layer: keras.Operation) -> keras.Operation:
    return type(layer).from_config(layer.get_config())


def _clone(model: keras.Model, make) -> keras.Model:
    """clone_model with `make` for every layer; weights and compilation are copied."""
    pairs = []

    def remember(operation):
        # Operators between layers, as in `a + b`, are cloned too but hold no weights.
        if not isinstance(operation, keras.Layer):
            return _copy_layer(operation)
        copy = make(operation)
        pairs.append((operation, copy))
        return copy

    clone = keras.models.clone_model(model, clone_function=remember, recursive=True)
    if not clone.built:
        clone.build(model.input_shape)
    for layer, copy in pairs:
        _plain(copy).set_weights(_plain(layer).get_weights())
        copy.trainable = layer.trainable
    compile_with(clone, compile_arguments(model))
    return clone


def _plain(layer: keras.Layer) -> keras.Layer:
    return layer.layer if isinstance(layer, Prunable) else layer


def _check_clonable(model: keras.Model, caller: str, instead: str | None) -> None:
    functional = isinstance(model, keras.Sequential) or (
        isinstance(model, keras.src.models.Functional)
    )
    if not functional or not model.built:
        hint = f" Use {instead}(model, recipe) instead." if instead else ""
        kind = "is not built" if functional else "is a subclassed model"
        raise ValueError(
            f"{caller}: only built Sequential and functional models can be cloned; "
            f"{model.name!r} ({type(model).__name__}) {kind}.{hint}"
        )
