# SPDX-License-Identifier: Apache-2.0
"""The wrapper layer that owns and saves penalty weights and mask of one layer."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfrewprune.methods import Method, Reweighted
from tfrewprune.structures import Block, Structure
from tfrewprune.wrappers.constraint import MaskConstraint
from tfrewprune.wrappers.kernels import KernelSpec, find_kernels
from tfrewprune.wrappers.regularizer import MethodRegularizer, regularizer_for


@keras.saving.register_keras_serializable(package="tfrewprune")
class Prunable(keras.layers.Wrapper):
    """A layer together with the state of its pruning.

    Output, name and weights are those of the wrapped layer; added are the method's
    state (alpha, float32, not trainable) as variables of the wrapper and the mask in
    its saved files. `.keras` and `.weights.h5` files therefore resume in any phase
    exactly where they were. `strip` returns the plain layer.

    Args:
        layer: A layer with a weight matrix, such as `Conv2D` or `Dense`.
        structure: Structure, its config or its name; default `Block(16, 1)`.
        method: Method, its config or its name; default `Reweighted()`.
        strength: Penalty strength.
        penalized: Whether the penalty is in place; `hard_prune` ends it.
        **kwargs: As in `keras.layers.Layer`; `name` defaults to the layer's.

    Raises:
        ValueError: At build, when the layer has no weight that can be pruned.

    Example:

    >>> model = keras.Sequential([
    ...     Prunable(keras.layers.Dense(64, activation="relu"), Block(16, 1)),
    ...     keras.layers.Dense(10)])
    """

    def __init__(
        self,
        layer,
        structure=None,
        method=None,
        strength=1e-5,
        penalized=True,
        **kwargs,
    ):
        if isinstance(layer, keras.Layer):
            kwargs.setdefault("name", layer.name)
        super().__init__(layer, **kwargs)
        self.structure = Structure.get(Block() if structure is None else structure)
        self.method = Method.get(Reweighted() if method is None else method)
        self.strength = float(strength)
        self._penalized = bool(penalized)
        self.supports_masking = layer.supports_masking
        self._kernels: dict[str, KernelSpec] = {}

    def build(self, input_shape=None):
        super().build(input_shape)
        specs, reason = find_kernels(self.layer)
        if not specs:
            raise ValueError(
                f"Layer {self.layer.name!r} ({type(self.layer).__name__}) cannot be "
                f"Prunable: {reason or 'it has no weights'}."
            )
        self._kernels = {spec.attribute: spec for spec in specs}
        for spec in specs:
            if self.method.penalized:
                self._add_penalty(spec)
        self.built = True

    def call(self, inputs, **kwargs):
        return self.layer(inputs, **kwargs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    @property
    def penalized(self) -> bool:
        """Whether the wrapped layer carries the penalty now."""
        if not self._kernels:
            return self._penalized
        return any(
            isinstance(spec.variable(self.layer).regularizer, MethodRegularizer)
            for spec in self._kernels.values()
        )

    def _add_penalty(self, spec: KernelSpec) -> None:
        variable = spec.variable(self.layer)
        found = variable.regularizer
        existing = found.existing if isinstance(found, MethodRegularizer) else found
        regularizer = regularizer_for(
            self.method, self.structure, self.strength, spec.layout, existing
        )

        def create(name, value):
            return self.add_weight(
                shape=value.shape,
                initializer="ones",
                dtype="float32",
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
                name=f"{spec.attribute}_{name}",
            )

        regularizer.bind(variable.shape, create)
        # Under a stateless scope (a symbolic build) weights have no values yet.
        if not keras.src.backend.in_stateless_scope():
            regularizer.refresh(variable.value)
        spec.set_regularizer(self.layer, regularizer if self._penalized else existing)

    def _mask(self, spec: KernelSpec) -> MaskConstraint | None:
        found = spec.variable(self.layer).constraint
        return found if isinstance(found, MaskConstraint) else None

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for attribute, spec in self._kernels.items():
            mask = self._mask(spec)
            if mask is not None and mask.groups is not None:
                store[f"{attribute}_mask"] = mask.groups.astype(np.uint8)

    def load_own_variables(self, store):
        names = list(store.keys())
        variables = self._trainable_variables + self._non_trainable_variables
        stored = sum(name.isdigit() for name in names)
        if stored != len(variables):
            raise ValueError(
                f"Layer {self.name!r} has {len(variables)} variables of pruning state; "
                f"the file has {stored}. Was it saved with another method?"
            )
        for index, variable in enumerate(variables):
            variable.assign(store[str(index)])
        for attribute, spec in self._kernels.items():
            if f"{attribute}_mask" not in names:
                continue
            mask = self._mask(spec)
            if mask is None:
                existing = spec.variable(self.layer).constraint
                mask = MaskConstraint(self.structure, spec.layout, existing=existing)
                spec.set_constraint(self.layer, mask)
            mask.set_mask(ops.convert_to_numpy(store[f"{attribute}_mask"]))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "structure": self.structure.get_config(),
            "method": self.method.get_config(),
            "strength": self.strength,
            "penalized": self.penalized,
        }
