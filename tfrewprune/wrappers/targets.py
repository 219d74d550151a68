# SPDX-License-Identifier: Apache-2.0
"""The kernels of a model: their hooks, how often they run, what pruning them gains."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfrewprune.payload.cost import AnyCost, LayerShape
from tfrewprune.payload.gain import joint_gain
from tfrewprune.rule import Rule
from tfrewprune.structures import KernelShape, Structure
from tfrewprune.wrappers.calls import UNKNOWN, Calling, layer_calls
from tfrewprune.wrappers.constraint import MaskConstraint
from tfrewprune.wrappers.kernels import (
    OF_KEYS,
    KernelSpec,
    attention_length,
    cells_of,
    find_kernels,
    hooked_specs,
    kernel_specs,
    macs_per_weight,
    steps_of,
    walk_kinds,
)
from tfrewprune.wrappers.moments import second_moment
from tfrewprune.wrappers.regularizer import MethodRegularizer


@dataclasses.dataclass(frozen=True)
class Target:
    """One layer's kernel, with what a recipe says about it.

    `reason` tells why it stays dense; `spec` and `rule` may then be None. `note` is
    what the user should know although the layer is pruned as asked. `around` is the
    recurrent layer whose cell the layer is, or the attention layer whose projection.
    `calls` are those of the layer around it, or else its own.
    """

    path: str
    layer: keras.Layer
    spec: KernelSpec | None = None
    rule: Rule | None = None
    reason: str | None = None
    note: str | None = None
    kinds: tuple[str, ...] = ()
    around: keras.Layer | None = None
    calls: tuple[Calling, ...] = dataclasses.field(
        default=UNKNOWN, repr=False, compare=False
    )

    @property
    def label(self) -> str:
        """The path, and where a layer has several matrices which one it is."""
        named = self.spec is not None and self.spec.name is not None
        return f"{self.path}/{self.spec.name}" if named else self.path

    @property
    def kinds_around(self) -> tuple[str, ...]:
        """Kinds of the layers around this one."""
        classes = type(self.layer).__mro__
        return self.kinds[: -classes.index(keras.Layer)]

    @property
    def variable(self) -> keras.Variable:
        """The weight tensor, the first if there are several."""
        return self.spec.variable(self.layer)

    @property
    def parts(self) -> list[tuple[keras.Layer, KernelSpec]]:
        """The layer that holds each of the kernel's tensors, with how it is read."""
        return [(part.owner(self.layer), part) for part in self.spec.parts]

    @property
    def owners(self) -> list[keras.Layer]:
        """The layers that hold the kernel's tensors: mostly the layer itself."""
        return [owner for owner, _ in self.parts]

    @property
    def path_key(self) -> tuple[int, str]:
        """Identifies the kernel: two layers may share a path, never this."""
        return id(self.layer), self.spec.label

    @property
    def shape(self) -> KernelShape:
        """Extent of the kernel as a GEMM matrix."""
        shapes = [
            part.layout.kernel_shape(part.variable(self.layer).shape)
            for part in self.spec.parts
        ]
        return shapes[0]._replace(channels=sum(shape.channels for shape in shapes))

    @property
    def extent(self) -> tuple[int, ...]:
        """Shape of the weight tensor, or of the matrix that is a part of it."""
        if self.spec.name is None:
            return tuple(self.variable.shape)
        return tuple(self.shape[1:])

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
        return self.spec.hooks(self.layer)[0]

    @property
    def mask(self) -> MaskConstraint | None:
        """The mask in place, of the first tensor if there are several."""
        return self.spec.hooks(self.layer)[1]

    @property
    def masks(self) -> list[tuple[keras.Variable, MaskConstraint]]:
        """Every tensor of the kernel that has a mask, with it."""
        found = [
            (part.variable(self.layer), part.hooks(self.layer)[1])
            for part in self.spec.parts
        ]
        return [(variable, mask) for variable, mask in found if mask is not None]

    def kept(self, groups: np.ndarray) -> int:
        """Weights of these groups that no mask of another structure has removed."""
        structure, mask = self.structure, self.mask
        if mask is None or mask.groups is None or mask.structure == structure:
            return structure.kept(groups, self.shape)
        if len(self.masks) > 1 or mask.structure.settles(structure):
            return structure.kept(groups, self.shape)
        left = mask.structure.mask(mask.groups, self.shape)
        return int(np.count_nonzero(left & structure.mask(groups, self.shape)))

    def revived(self) -> int:
        """Number of weights outside the mask that are not zero."""
        return sum(mask.revived(_values(v)) for v, mask in self.masks)

    def squared_gradient(
        self, optimizer: keras.optimizers.Optimizer | None
    ) -> np.ndarray | None:
        """The optimizer's running mean of each weight's squared gradient.

        Returns:
            (positions, channels, outputs), float32; None where it keeps none, or not
            yet.
        """
        if optimizer is None or second_moment(optimizer, self.variable) is None:
            return None
        return self.gather(lambda variable: second_moment(optimizer, variable))

    def gather(self, values: Callable[[keras.Variable], Any]) -> np.ndarray:
        """One number a weight, (positions, channels, outputs), float32.

        Args:
            values: Gives a tensor of the shape of a variable: its value, or a moment of
                its gradient.
        """
        return np.concatenate(
            [
                part.layout.to_kernel(_numpy(values(part.variable(self.layer))))
                for part in self.spec.parts
            ],
            axis=1,
        )

    def values(self) -> np.ndarray:
        """The weights as float32 numpy (positions, channels, outputs)."""
        return self.gather(lambda variable: variable.value)

    def kernel(self) -> np.ndarray:
        """As `values`, of weights that can be compared.

        Raises:
            ValueError: The weights hold NaN or infinity.
        """
        kernel = self.values()
        broken = int(kernel.size - np.isfinite(kernel).sum())
        if broken:
            raise ValueError(
                f"Layer {self.path!r} has {broken} NaN or infinite weights of "
                f"{kernel.size} in `{self.spec.label}`. Restore a good checkpoint "
                "or lower the learning rate before pruning."
            )
        return kernel

    def weights(self) -> np.ndarray:
        """The (first) weight tensor as float32 numpy, in the layer's own shape."""
        return _values(self.variable)


def _numpy(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor).astype(np.float32)


def _values(variable: keras.Variable) -> np.ndarray:
    return _numpy(variable.value)


def all_kernels(model: keras.Layer, units: Sequence[str] = ("matrix",)) -> list[Target]:
    """Every layer with weights: prunable kernels, and the others with a reason.

    Args:
        model: A model or layer.
        units: What shall be found, see `Structure.unit`.
    """
    targets = []
    around: dict[int, keras.Layer] = {}
    calls = layer_calls(model)
    for path, layer, kinds in walk_kinds(model):
        around |= {id(part): layer for part in _parts(layer)}
        for unit in units:
            specs, reason = find_kernels(layer, unit)
            if reason is not None and not specs:
                own = calls.get(id(layer), UNKNOWN)
                targets.append(
                    Target(path, layer, reason=reason, kinds=kinds, calls=own)
                )
            for spec in specs:
                holder = around.get(id(layer))
                target = Target(
                    *(path, layer, spec),
                    reason=reason,
                    kinds=kinds,
                    around=holder,
                    calls=calls.get(id(holder or layer), UNKNOWN),
                )
                if not target.shape.weights:
                    empty = f"empty: weights of shape {tuple(target.variable.shape)}"
                    target = Target(path, layer, reason=empty, kinds=kinds)
                targets.append(target)
    return targets


def _parts(layer: keras.Layer) -> list[keras.Layer]:
    """The layers inside one that know less of its input than it does."""
    if isinstance(layer, keras.layers.RNN):
        return cells_of(layer)
    heads = kernel_specs(layer, "heads") or ()
    return [part.owner(layer) for spec in heads for part in spec.parts]


def hooked_kernels(model: keras.Layer) -> list[Target]:
    """Kernels that carry a penalty or a mask of this package, frozen ones too."""
    return [
        Target(path, layer, spec, kinds=kinds)
        for path, layer, kinds in walk_kinds(model)
        for spec in hooked_specs(layer)
    ]


def layer_runs(target: Target, open_steps: int | None = None) -> dict[LayerShape, int]:
    """How often a kernel is multiplied for one input, by size as the cost model has it.

    Every call of the layer counts, with the size of its own inputs. What multiplies the
    state of a recurrent layer runs once a step; a table is looked up: 0 times.

    Args:
        target: A kernel, of a layer without groups.
        open_steps: Steps of a recurrent layer to count where their number is open.

    Raises:
        ValueError: The shape of an input is not known, or the number of steps is open.
    """
    kernel, layer = target.shape, target.around or target.layer
    runs: Counter[LayerShape] = Counter()
    for call in target.calls:
        shapes = call.shapes or layer.get_build_config() or {}
        pixels, times = _positions(target, shapes, open_steps)
        pixels *= call.batch
        size = LayerShape(kernel.outputs, kernel.columns, pixels, kernel.positions)
        runs[size] += call.times * times
    return runs


def _positions(
    target: Target, shapes: Mapping[str, Any], open_steps: int | None
) -> tuple[int, int]:
    """Positions that one call multiplies at once, and how often it does."""
    if isinstance(target.layer, keras.layers.Embedding):
        if "reverse" not in shapes:
            return 1, 0
        # Each vector meets the whole table, as many as it would give looked up.
        shapes = {"input_shape": shapes["input_shape"][:-1]}
    if isinstance(target.around, keras.layers.RNN):
        steps = steps_of(shapes) or open_steps
        if steps is None:
            raise ValueError(
                f"Layer {target.path!r}: how often a weight of {target.spec.label!r} "
                "is multiplied depends on the length of a sequence, which is open. "
                "Build the model with an Input of fixed length, or use "
                "budget='weights'."
            )
        # The inputs of all steps are multiplied at once, states one after the other.
        return (steps, 1) if target.spec.attribute == "kernel" else (1, steps)
    if target.around is not None:
        # By name: on PyTorch a layer's `__dict__` does not hold the layers inside.
        keys = any(getattr(target.around, n, None) is target.layer for n in OF_KEYS)
        pixels = attention_length(shapes, keys=keys)
        if pixels is not None:
            return pixels, 1
        shapes = target.layer.get_build_config() or {}
    return macs_per_weight(target.layer, target.spec, shapes), 1


def expected_gain(
    target: Target, structure: Structure, rate: float, costs: AnyCost | None = None
) -> float | None:
    """How many times faster than dense a packed kernel would run on one thread.

    Args:
        target: A kernel that can be packed.
        structure: What is removed together.
        rate: Dense weights / kept weights.
        costs: Predicts times; None is the cost model of this machine.

    Returns:
        The cost model's prediction for all calls that one input of the model takes;
        None if their sizes are not known, or several matrices lose whole units.
    """
    if target.spec.unit != "matrix":
        return None
    try:
        runs = layer_runs(target, open_steps=1)
    except ValueError:
        return None
    return joint_gain(runs, rate, structure.rows_alike(target.shape), costs)
