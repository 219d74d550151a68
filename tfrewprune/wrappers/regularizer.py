# SPDX-License-Identifier: Apache-2.0
"""Keras regularizers: strength and state of a method, and its penalty in the loss."""

from __future__ import annotations

import zlib

import keras
import numpy as np
from keras import ops

from tfrewprune.methods import GroupLasso, Method, Reweighted
from tfrewprune.structures import Block, KernelLayout, KernelShape, Structure
from tfrewprune.wrappers.probe import probe


@keras.saving.register_keras_serializable(package="tfrewprune")
class MethodRegularizer(keras.regularizers.Regularizer):
    """Penalty of any `Method` on one kernel.

    The strength and the method's state (for `Reweighted` its penalty weights alpha)
    live in non-trainable float32 variables, created by `bind` for the one kernel the
    regularizer belongs to and set by `refresh`: a step that is traced already follows
    both. Before `bind` the state follows the weights at every step, without a gradient:
    training is right also in a plain `fit` without the `Reweight` callback, it merely
    reweights continuously.

    The penalty is computed in float32 whatever the precision policy.

    Args:
        structure: Structure, its config or its name.
        method: Method, its config or its name.
        strength: Factor of the penalty (lambda).
        layout: How the weight tensor is read as a matrix; the default fits `Dense` and
            the convolutions.
        existing: Another regularizer of the same weights, added as it is.
        keep: Number of weights that shall survive, for methods that project.

    Attributes:
        state: The method's variables by name; empty before `bind`.
        felt: Whether a training step has asked for the penalty's gradient, or for what
            the method does after it. False after a step that leaves `model.losses` out
            of its loss.
        controlled: Whether the strength follows from a rate during training; a file
            that is loaded then sets it.
        muted: Whether steps see a penalty of 0.
        reported: Whether the user was told that no step feels the penalty.
        refreshes: How often the state was computed from the weights.
        first_strength: The strength that the phase began with.
        growths: How often it has grown since.
        rest: Further variables, with their layouts, that hold parts of the same groups.
    """

    def __init__(
        self,
        structure=None,
        method=None,
        strength=1e-5,
        layout=None,
        existing=None,
        keep=None,
    ):
        self.keep = keep
        self.structure = Structure.get(Block() if structure is None else structure)
        self.method = Method.get(Reweighted() if method is None else method)
        self.layout = KernelLayout.get(layout)
        self.existing = keras.regularizers.get(existing)
        self.state: dict[str, keras.Variable] = {}
        self.felt = self.reported = self.controlled = self.muted = False
        self.refreshes = 0
        self.rest: list[tuple[keras.Variable, KernelLayout]] = []
        self._factor: keras.Variable | None = None  # the strength, as steps read it
        self._copies: dict[str, keras.Variable] = {}
        self._holder = None  # the optimizer that holds the copies
        self._shape: tuple[int, ...] | None = None
        self._fingerprint: int | None = None
        self.strength = strength

    @property
    def strength(self) -> float:
        """Factor of the penalty (lambda); steps that are traced already follow it."""
        return self.first_strength * self.method.growth**self.growths

    @strength.setter
    def strength(self, strength: float) -> None:
        if not strength >= 0:
            raise ValueError(
                "Argument `strength` must be at least 0. "
                f"Received: strength={strength!r}"
            )
        self.first_strength = float(strength)
        self.grow(0)

    def grow(self, times: int) -> None:
        """Sets the strength to what it is so many refreshes into a phase."""
        self.growths = times
        self.mute(False)

    @property
    def bound(self) -> bool:
        """Whether strength and state are variables that traced steps read."""
        return self._factor is not None

    @property
    def variables(self) -> list[keras.Variable]:
        """What steps read: the factor and the method's state; empty before `bind`."""
        return [] if not self.bound else [self._factor, *self.state.values()]

    def mute(self, muted: bool = True) -> None:
        """Makes steps see a penalty of 0 until `mute(False)`; `strength` stays."""
        if self._factor is not None and not keras.src.backend.in_stateless_scope():
            self.assign("strength", 0.0 if muted else self.strength)
            self.muted = muted

    def assign(self, name: str, value) -> None:
        """Sets `"strength"` or an entry of the state, as steps read it."""
        (self._factor if name == "strength" else self.state[name]).assign(value)
        if name in self._copies:
            self._copies[name].assign(value)

    def held(self, name: str) -> keras.Variable:
        """The variable that steps change or read: the optimizer's copy if it has one.

        Args:
            name: Of an entry of the state.
        """
        return self._copies.get(name, self.state[name])

    def copy_to(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Has an optimizer hold copies for constraints, which see nothing else on JAX.

        Idempotent; the copies follow every later `assign`.
        """
        if self._holder is optimizer:
            return
        held = {name: self.held(name) for name in self.state}
        self._holder, self._copies = optimizer, {}
        for name, variable in {"strength": self._factor, **held}.items():
            copy = optimizer.add_variable(
                shape=variable.shape, dtype="float32", name=f"penalty_{name}"
            )
            copy.assign(ops.convert_to_numpy(variable))  # not the same buffer
            self._copies[name] = copy

    def values(self, optimizer: keras.optimizers.Optimizer):
        """(strength, state) as tensors, for a constraint that `optimizer` applies.

        Raises:
            ValueError: On JAX, if the optimizer does not hold the copies.
        """
        held = {"strength": self._factor, **self.state}
        if keras.backend.backend() == "jax":
            if self._holder is not optimizer:
                raise ValueError(
                    "The model was compiled anew since attach(): call attach() again, "
                    "or train with the callback Reweight()."
                )
            held = self._copies
        tensors = {name: ops.convert_to_tensor(value) for name, value in held.items()}
        return tensors.pop("strength"), tensors

    def __call__(self, weights):
        """Penalty of a weight tensor: a scalar of Keras' `floatx`.

        That is the type of the task's loss, to which Keras adds it without a cast.
        """
        penalty = ops.cast(self.penalty(weights), keras.config.floatx())
        if self.existing is None:
            return penalty
        return penalty + ops.cast(self.existing(weights), penalty.dtype)

    def penalty(self, weights):
        """The method's part of `__call__`: a float32 scalar."""
        if not self.method.in_loss:
            return ops.zeros((), "float32")
        weights = ops.convert_to_tensor(weights)
        if not self.felt:
            weights = probe(weights, self.feel)
        kernel = self._kernel(weights, ops)
        shape = KernelShape(*kernel.shape)
        state = {name: ops.cast(v, "float32") for name, v in self.state.items()}
        if self._factor is None:
            fresh = self.method.state(kernel, self.structure, shape, ops)
            state = {name: ops.stop_gradient(value) for name, value in fresh.items()}
            factor = self.strength
        else:
            self._check_shape(weights.shape)
            factor = ops.convert_to_tensor(self._factor)
        return factor * self.method.penalty(kernel, self.structure, shape, state, ops)

    def feel(self) -> None:
        """Notes that a training step obeys the method."""
        self.felt = True

    def bind(self, shape) -> None:
        """Creates the variables for a weight tensor of `shape`; idempotent.

        Raises:
            ValueError: The regularizer already belongs to a tensor of another shape.
        """
        if self._shape is not None:
            self._check_shape(shape)
            return
        self._shape = tuple(shape)
        self._factor = _state_variable("strength", (), self.strength)
        for name, value in self._fresh_state(np.zeros(self._shape, np.float32)).items():
            self.state[name] = _state_variable(name, value.shape, 1.0)

    def refresh(self, weights, start: bool = True) -> None:
        """Recomputes the state from the present weights (creating it if need be).

        Args:
            weights: The weight tensor.
            start: Whether a phase begins, from the strength it began with. Else the
                state develops from what it is, and the strength grows as the method
                has it.
        """
        weights = ops.convert_to_numpy(weights).astype(np.float32)
        self.bind(weights.shape)
        previous = None
        if not start:
            previous = {k: ops.convert_to_numpy(self.held(k)) for k in self.state}
        self.grow(0 if start else self.growths + 1)
        for name, value in self._fresh_state(weights, previous).items():
            self.assign(name, value)
        self.refreshes += 1
        self._fingerprint = zlib.crc32(weights.tobytes())

    def moved(self, weights) -> bool:
        """Whether the weights have changed since the last `refresh`."""
        weights = ops.convert_to_numpy(weights).astype(np.float32)
        fingerprint = zlib.crc32(weights.tobytes())
        return self._fingerprint is not None and self._fingerprint != fingerprint

    def _fresh_state(
        self, weights: np.ndarray, previous: dict[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        kernel = self._kernel(weights, np)
        shape = KernelShape(*kernel.shape)
        state = self.method.state(
            kernel, self.structure, shape, np, previous, self.keep
        )
        return {name: np.asarray(v, np.float32) for name, v in state.items()}

    def _kernel(self, weights, xp):
        """(positions, channels, outputs) of the weight tensor and of the `rest`."""
        kernel = self.layout.to_kernel(_float32(weights, xp), xp)
        if not self.rest:
            return kernel
        others = [
            layout.to_kernel(_float32(variable.value, xp), xp)
            for variable, layout in self.rest
        ]
        return xp.concatenate([kernel, *others], axis=1)

    def _check_shape(self, shape) -> None:
        if tuple(shape) != self._shape:
            raise ValueError(
                "A regularizer with state belongs to one weight tensor. It was bound "
                f"to shape {self._shape}. Received: shape={tuple(shape)}. Use one "
                "regularizer object per layer."
            )

    def get_config(self) -> dict:
        return {
            "structure": self.structure.get_config(),
            "method": self.method.get_config(),
            "strength": self.first_strength,
            "layout": self.layout.get_config(),
            "existing": keras.regularizers.serialize(self.existing)
            if self.existing is not None
            else None,
            "keep": self.keep,
        }


@keras.saving.register_keras_serializable(package="tfrewprune")
class ReweightedRegularizer(MethodRegularizer):
    """Reweighted group penalty: strength * sum_g n_g alpha_g rms_g.

    alpha_g = 1 / (rms_g + epsilon), see `tfrewprune.methods.Reweighted`.

    Args:
        structure: Structure, its config or its name; default `Block(16, 1)`.
        strength: Factor of the penalty (lambda).
        epsilon: Caps alpha at 1 / epsilon.
        layout: How the weight tensor is read as a matrix.
        existing: Another regularizer of the same weights.

    Example:

    >>> layer = keras.layers.Dense(
    ...     64, kernel_regularizer=ReweightedRegularizer(Block(16, 1), strength=1e-5))
    """

    def __init__(
        self, structure=None, strength=1e-5, epsilon=1e-3, layout=None, existing=None
    ):
        super().__init__(structure, Reweighted(epsilon), strength, layout, existing)

    def get_config(self) -> dict:
        config = super().get_config()
        del config["method"], config["keep"]
        return {**config, "epsilon": self.method.epsilon}


@keras.saving.register_keras_serializable(package="tfrewprune")
class GroupLassoRegularizer(MethodRegularizer):
    """Static group lasso: strength * sum_g n_g rms_g, `ReweightedRegularizer`'s twin.

    Args:
        structure: Structure, its config or its name; default `Block(16, 1)`.
        strength: Factor of the penalty (lambda).
        layout: How the weight tensor is read as a matrix.
        existing: Another regularizer of the same weights.
    """

    def __init__(self, structure=None, strength=1e-5, layout=None, existing=None):
        super().__init__(structure, GroupLasso(), strength, layout, existing)

    def get_config(self) -> dict:
        config = super().get_config()
        del config["method"], config["keep"]
        return config


def _float32(tensor, xp):
    if xp is np:
        return ops.convert_to_numpy(tensor).astype(np.float32)
    return ops.cast(tensor, "float32")


def _state_variable(name: str, shape: tuple[int, ...], value: float) -> keras.Variable:
    # By initializer, as a symbolic build allows no values.
    return keras.Variable(
        keras.initializers.Constant(value),
        shape=shape,
        dtype="float32",
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
        name=name,
    )


def regularizer_for(
    method: Method,
    structure: Structure,
    strength: float,
    layout: KernelLayout,
    existing: keras.regularizers.Regularizer | None,
) -> MethodRegularizer:
    """The regularizer class that fits a method: the named ones where there is one."""
    if type(method) is Reweighted:
        return ReweightedRegularizer(
            structure, strength, method.epsilon, layout, existing
        )
    if type(method) is GroupLasso:
        return GroupLassoRegularizer(structure, strength, layout, existing)
    return MethodRegularizer(structure, method, strength, layout, existing)
