# SPDX-License-Identifier: Apache-2.0
"""The wrapper layer that owns and saves penalty weights and mask of one layer."""

from __future__ import annotations

import keras

from tfrewprune.methods import Method, Reweighted
from tfrewprune.structures import Block, Structure
from tfrewprune.wrappers.constraint import MaskConstraint
from tfrewprune.wrappers.kernels import (
    KernelSpec,
    find_kernels,
    kernel_shape,
)
from tfrewprune.wrappers.regularizer import MethodRegularizer, regularizer_for
from tfrewprune.wrappers.state import give_state, hooked_variables


@keras.saving.register_keras_serializable(package="tfrewprune")
class Prunable(keras.layers.Wrapper):
    """A layer together with the state of its pruning.

    Output, name and weights are those of the wrapped layer, whose `PruningState` holds
    the penalty weights and the mask. It is there as soon as the layer is built, also
    when a model is loaded: `.keras` and `.weights.h5` files resume in any phase exactly
    where they were. `strip` returns the plain layer.

    Args:
        layer: A layer with a weight matrix, such as `Conv2D` or `Dense`.
        structure: Structure, its config or its name; default `Block(16, 1)`.
        method: Method, its config or its name; default `Reweighted()`.
        strength: Penalty strength.
        penalized: Whether the penalty is in place; `hard_prune` ends it.
        rate: Dense / kept weights, for methods that project onto it, such as `ADMM()`.
        **kwargs: As in `keras.layers.Layer`; `name` defaults to the layer's.

    Raises:
        ValueError: A method that projects, without a rate. At build, when the layer has
            no weight that can be pruned.

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
        rate=None,
        **kwargs,
    ):
        if isinstance(layer, keras.Layer):
            kwargs.setdefault("name", layer.name)
        super().__init__(layer, **kwargs)
        self.structure = Structure.get(Block() if structure is None else structure)
        self.method = Method.get(Reweighted() if method is None else method)
        self.strength = float(strength)
        self._penalized = bool(penalized)
        self.rate = None if rate is None else float(rate)
        if self.method.projects and not (self.rate and self.rate >= 1):
            raise ValueError(
                f"Prunable: {type(self.method).__name__} projects onto a rate, dense / "
                f"kept weights, and needs one of at least 1. Received: rate={rate!r}"
            )
        self.supports_masking = layer.supports_masking

    def build(self, input_shape=None):
        super().build(input_shape)
        specs, reason = find_kernels(self.layer)
        if not specs:
            raise ValueError(
                f"Layer {self.layer.name!r} ({type(self.layer).__name__}) cannot be "
                f"Prunable: {reason or 'it has no weights'}."
            )
        if self.method.penalized and self._penalized:
            for spec in specs:
                self._add_penalty(spec)
        for spec in specs:
            if spec.hooks(self.layer)[1] is None:
                mask = MaskConstraint(self.structure, spec.layout)
                spec.set_mask(self.layer, mask)
        give_state(self.layer)
        self.layer.pruning_state.rebuilt = True
        self.built = True

    def call(self, inputs, **kwargs):
        return self.layer(inputs, **kwargs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(self, *args, **kwargs):
        # Else Keras would ask for the shape above, which many layers do not say.
        return self.layer.compute_output_spec(*args, **kwargs)

    @property
    def penalized(self) -> bool:
        """Whether the wrapped layer carries the penalty now."""
        return self._penalty() is not None if self.built else self._penalized

    def _penalty(self) -> MethodRegularizer | None:
        penalties = (penalty for _, (penalty, _) in hooked_variables(self.layer))
        return next(filter(None, penalties), None)

    def _add_penalty(self, spec: KernelSpec) -> None:
        variable = spec.variable(self.layer)
        penalty = regularizer_for(
            self.method, self.structure, self.strength, spec.layout, None
        )
        if self.rate is not None:
            penalty.keep = kernel_shape(spec, self.layer).weights / self.rate
        spec.set_penalty(self.layer, penalty)
        # Under a stateless scope (a symbolic build) weights have no values yet.
        if not keras.src.backend.in_stateless_scope():
            penalty.refresh(variable.value)

    def get_config(self) -> dict:
        now = self._penalty() if self.built else None
        strength = self.strength if now is None else now.first_strength
        now = self if now is None else now  # attach() may have changed the penalty
        return {
            **super().get_config(),
            "structure": now.structure.get_config(),
            "method": now.method.get_config(),
            "strength": strength,
            "penalized": self.penalized,
            "rate": self.rate,
        }
