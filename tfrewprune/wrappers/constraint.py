# SPDX-License-Identifier: Apache-2.0
"""What happens to weights after every update: the method's step, then the mask."""

from __future__ import annotations

import base64
import zlib

import keras
import numpy as np
from keras import ops

from tfrewprune.structures import Block, KernelLayout, KernelShape, Structure
from tfrewprune.wrappers.after_step import AfterStep


@keras.saving.register_keras_serializable(package="tfrewprune")
class MaskConstraint(keras.constraints.Constraint):
    """Sets the weights outside a mask to exactly 0.0 after every optimizer update.

    Keras optimizers apply `variable.constraint` after momentum, decoupled weight decay
    and gradient accumulation, so nothing revives a removed weight. (`use_ema=True`
    writes averages at the end of `fit`, after the last constraint: `SparsityLogger`,
    `masked_retrain` and `strip` apply the mask once more.) The mask is part of the
    config, one bit a group: a model saved to `.keras` trains on under the same mask,
    without callbacks.

    After `bind` the mask is a variable: steps traced before a `set_mask`, those of a
    user's own `tf.function` included, obey the new mask. On JAX it is a constant of the
    compiled step, because Keras' trainer hands constraints nothing but the optimizer's
    variables; `tfrewprune.hard_prune` has the models that hold the weights compile
    their steps anew. (While masks tighten step by step the optimizer holds them.)

    Gradients of removed weights are not masked: Keras clips them before any
    constraint, so they count in an optimizer's `global_clipnorm` (not in `clipnorm` or
    `clipvalue`, which look at one variable or weight). They also enter the momentum of
    removed weights, which nothing reads.

    Args:
        mask: A `Structure` (or its config or name): no weight is masked until
            `set_mask`. Or a boolean array of the weights' shape: True is kept.
        layout: How the weight tensor is read as a matrix.
        groups: Encoded group mask, as in the config.
        existing: Another constraint of the same weights, applied before the mask.

    Attributes:
        after_step: What a method does to the weights after an update of the optimizer,
            between `existing` and the mask; None for nothing. `attach` sets it.

    Example:

    >>> constraint = MaskConstraint(np.array([[True, False]]))
    >>> np.asarray(constraint(np.array([[3.0, 4.0]])))
    array([[3., 0.]])
    """

    def __init__(self, mask=None, layout=None, groups=None, existing=None):
        self.layout = KernelLayout.get(layout)
        self.existing = keras.constraints.get(existing)
        self.groups: np.ndarray | None = None
        self.after_step: AfterStep | None = None
        self._variable: keras.Variable | None = None
        if isinstance(mask, np.ndarray | list | tuple):
            mask = np.asarray(mask)
            if mask.dtype != bool:
                raise ValueError(
                    "A mask must be boolean, True where a weight is kept. "
                    f"Received: dtype={mask.dtype}"
                )
            self.structure = Structure.get("Unstructured")
            self.groups = self.layout.to_kernel(mask)
        else:
            self.structure = Structure.get(Block() if mask is None else mask)
        if groups is not None:
            self.groups = decode_mask(groups)

    def __call__(self, weights):
        """`weights` with the removed groups set to zero; same shape and dtype."""
        updated = weights
        if self.existing is not None:
            weights = self.existing(weights)
        if self.after_step is not None and isinstance(updated, keras.Variable):
            weights = self.after_step(updated, ops.convert_to_tensor(weights))
        if self._variable is not None:
            mask = ops.convert_to_tensor(self._variable)
        elif self.groups is not None:
            mask = ops.convert_to_tensor(self.weight_mask(weights.shape))
        else:
            return weights
        weights = ops.convert_to_tensor(weights)
        return ops.where(mask, weights, ops.zeros_like(weights))

    @property
    def variable(self) -> keras.Variable | None:
        """The mask as steps read it, a boolean a weight; None before `bind`."""
        return self._variable

    @property
    def bound(self) -> bool:
        """Whether the mask is a variable that traced steps read."""
        return self._variable is not None

    def bind(self, shape: tuple[int, ...]) -> None:
        """Keeps the mask in a variable from now on, for weights of `shape`."""
        if self._variable is None:
            self._variable = keras.Variable(
                keras.initializers.Ones(),
                shape=tuple(shape),
                dtype="bool",
                trainable=False,
                aggregation="only_first_replica",
                name="mask",
            )
        # Under a stateless scope (a symbolic build) variables have no values yet.
        if not keras.src.backend.in_stateless_scope():
            self._variable.assign(self.weight_mask(self._variable.shape))

    def set_mask(
        self, groups: np.ndarray | None, structure: Structure | None = None
    ) -> None:
        """Sets the group mask (boolean, True is kept); None lifts the mask.

        Args:
            groups: One entry a group.
            structure: What the groups are, if it is another structure than so far.
        """
        if structure is not None:
            self.structure = structure
        self.groups = None if groups is None else np.array(groups, dtype=bool)
        if self._variable is not None:
            self._variable.assign(self.weight_mask(self._variable.shape))

    def weight_mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """Boolean mask of the weight tensor's shape."""
        kernel_shape = self._kernel_shape(shape)
        if self.groups is None:
            return np.ones(shape, dtype=bool)
        mask = self.structure.mask(self.groups, kernel_shape)
        others = np.ones(shape, dtype=bool)
        return np.ascontiguousarray(self.layout.from_kernel(mask, shape, np, others))

    def revived(self, weights: np.ndarray) -> int:
        """Number of weights outside the mask that are not zero."""
        if self.groups is None:
            return 0
        return int(np.count_nonzero(weights[~self.weight_mask(weights.shape)]))

    def _kernel_shape(self, shape) -> KernelShape:
        kernel_shape = self.layout.kernel_shape(shape)
        grid = self.structure.group_grid(kernel_shape)
        if self.groups is not None and self.groups.shape != grid:
            raise ValueError(
                f"The mask has groups {self.groups.shape}, but {self.structure} cuts "
                f"weights of shape {tuple(shape)} into groups {grid}."
            )
        return kernel_shape

    def get_config(self) -> dict:
        return {
            "mask": self.structure.get_config(),
            "layout": self.layout.get_config(),
            "groups": None if self.groups is None else encode_mask(self.groups),
            "existing": keras.constraints.serialize(self.existing)
            if self.existing is not None
            else None,
        }


def encode_mask(mask: np.ndarray) -> dict:
    """Boolean array -> JSON-serializable dict, one bit an entry, deflated."""
    bits = zlib.compress(np.packbits(mask, axis=None).tobytes(), 9)
    return {"shape": list(mask.shape), "bits": base64.b64encode(bits).decode("ascii")}


def decode_mask(encoded: dict) -> np.ndarray:
    """Inverse of `encode_mask`.

    Raises:
        ValueError: The text is damaged or does not fit the shape.
    """
    try:
        shape = tuple(int(extent) for extent in encoded["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        data = zlib.decompress(base64.b64decode(encoded["bits"], validate=True))
        if len(data) != -(-count // 8):
            raise ValueError(f"{len(data)} bytes do not hold {count} bits")
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"The stored mask is damaged: {error}") from error
    return bits.astype(bool).reshape(shape)
