# SPDX-License-Identifier: Apache-2.0
"""The interface of a method: how training is made to empty groups."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tfrewprune.registry import Registered
from tfrewprune.structures import KernelShape, Structure


class Method(Registered, kind="method", example="Reweighted()"):
    """How a penalty moves weights towards removable groups.

    A method is a frozen dataclass without state of its own. What must persist between
    training steps it returns from `state` as named arrays; the regularizer keeps them
    in variables, files save them, the `Reweight` callback refreshes them. The
    functions and the facts below are all the rest of the package knows, so that a new
    method is a new file.
    """

    #: Whether the method pulls at weights, with a strength.
    penalized: ClassVar[bool] = True
    #: Whether it does so in the loss, by `penalty`; else by `after_step`.
    in_loss: ClassVar[bool] = True
    #: Whether `state` projects onto the rate asked for, which it must then be told.
    projects: ClassVar[bool] = False
    #: Whether more strength empties more groups, so that it can follow a rate.
    controlled: ClassVar[bool] = True
    #: Whether it empties groups; else it leads the weights that are left onto levels,
    #: which `Quantization` is for.
    prunes: ClassVar[bool] = True
    #: Whether masks tighten during training, along `rate_at(progress, rate, start)`.
    gradual: ClassVar[bool] = False
    #: Strength where neither the user nor a rate decides it.
    default_strength: ClassVar[float] = 1e-5
    #: Factor of the strength at each refresh.
    growth: float = 1.0

    @property
    def final_rate(self) -> float | None:
        """The rate that the method itself leads to; None where the recipe says."""
        return None

    @property
    def trains(self) -> bool:
        """Whether a phase of training under the method comes before `hard_prune`."""
        return self.penalized or self.gradual

    @property
    def negligible(self) -> float:
        """Groups of smaller rms count as emptied while the penalty acts."""
        return 2e-3

    @property
    def threshold(self) -> float:
        """Groups of smaller rms are removed where neither a rate nor a recipe says."""
        return 1e-3

    def pull(self, rms: float) -> float:
        """Gradient of the penalty in the weights of a group, at strength 1.

        Args:
            rms: Root mean square of the group; none is pulled harder than one of 0.
        """
        return 1.0

    def emptied_below(self, step: float) -> float:
        """Groups of smaller rms count as emptied.

        Args:
            step: How far a step carries a weight that only the penalty moves: as far do
                weights that are pulled to zero jump about it.
        """
        return max(self.negligible, 2 * step)

    def state(
        self,
        kernel,
        structure: Structure,
        shape: KernelShape,
        xp: Any = np,
        previous: dict[str, np.ndarray] | None = None,
        keep: float | None = None,
    ) -> dict[str, Any]:
        """State that belongs to the present weights; empty if the method needs none.

        Args:
            kernel: (positions, channels, outputs), float32.
            structure: How the kernel is cut into groups.
            shape: Extent of `kernel`.
            xp: numpy or keras.ops.
            previous: The state so far; None at the start of a phase.
            keep: Number of weights that shall survive; None where it is not decided.
        """
        return {}

    def penalty(
        self,
        kernel,
        structure: Structure,
        shape: KernelShape,
        state: dict[str, Any],
        xp: Any = np,
    ):
        """Penalty of a kernel, a float32 scalar, for strength 1."""
        raise TypeError(f"Method {type(self).__name__} adds no penalty.")

    def follow(self, kernel, state: dict[str, Any], xp: Any = np) -> dict[str, Any]:
        """Entries of the state that every step changes before `after_step` reads them.

        Args:
            kernel: (positions, channels, outputs), float32, as the step left it.
            state: The state so far.
            xp: numpy or keras.ops.
        """
        return {}

    def after_step(
        self,
        kernel,
        structure: Structure,
        shape: KernelShape,
        state: dict[str, Any],
        step,
        measure=1.0,
        xp: Any = np,
    ):
        """The kernel that takes the place of `kernel` after the optimizer's step.

        Args:
            kernel: (positions, channels, outputs), float32, as the step left it.
            structure: How the kernel is cut into groups.
            shape: Extent of `kernel`.
            state: What `state` returned last.
            step: Learning rate times strength, a scalar.
            measure: What the optimizer divides each weight's gradient by, an array
                like `kernel` or a number.
            xp: numpy or keras.ops.
        """
        raise TypeError(f"Method {type(self).__name__} does nothing after a step.")


def require_numpy(method: Method, xp: Any) -> None:
    """Refuses to compute a state inside a training step, where it would not last.

    Raises:
        ValueError: `xp` is not numpy.
    """
    if xp is not np:
        raise ValueError(
            f"Method {type(method).__name__} keeps a state between steps: put it on "
            "with attach(), or train with the callback Reweight()."
        )


def shrunk(kernel, factor, structure: Structure, shape: KernelShape, xp: Any = np):
    """The kernel, each weight times the factors of all groups that it is in.

    Args:
        kernel: (positions, channels, outputs).
        factor: One number a group, at least 0.
        structure: How the kernel is cut into groups.
        shape: Extent of `kernel`.
        xp: numpy or keras.ops.
    """
    if structure.partition:
        return structure.spread(factor, shape, xp) * kernel
    # A product over a weight's groups is the exponential of a sum over them.
    logarithm = structure.spread(xp.log(xp.maximum(factor, 1e-30)), shape, xp)
    gone = structure.spread(xp.where(factor > 0, 0.0, 1.0), shape, xp) > 0
    return xp.where(gone, xp.zeros_like(kernel), xp.exp(logarithm) * kernel)


def group_lasso_penalty(
    kernel, alpha, structure: Structure, shape: KernelShape, xp: Any = np
):
    """sum_g n_g alpha_g rms_g, where rms_g is a group's root mean square.

    n_g rms_g = sqrt(n_g) ||W_g||_2: the group lasso with its usual size weight. The
    gradient in every weight is alpha_g w / rms_g, so that a unit of strength pulls each
    weight equally, whatever the size of its group, its layer or the model.

    Args:
        kernel: (positions, channels, outputs), float32.
        alpha: One weight a group, taken as constant; None stands for 1.
        structure: How the kernel is cut into groups.
        shape: Extent of `kernel`.
        xp: numpy or keras.ops.
    """
    sizes = structure.group_sizes(shape).astype(np.float32)
    uniform = bool((sizes == sizes.flat[0]).all())

    def value_of(rms):
        weighted = rms if alpha is None else alpha * rms
        if uniform:
            return xp.sum(weighted) * float(sizes.flat[0])
        return xp.sum(weighted * xp.array(sizes))

    if not hasattr(xp, "custom_gradient"):
        return value_of(structure.rms(kernel, shape, xp))

    # Written out because what automatic differentiation makes of square, slice, sum
    # and concatenate takes twice the time: 12 % instead of 4 % of a LeNet-5 step.
    @xp.custom_gradient
    def penalty(kernel):
        rms = structure.rms(kernel, shape, xp)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            pull = upstream / rms if alpha is None else upstream * alpha / rms
            return structure.spread(pull, shape, xp) * kernel

        return value_of(rms), gradient

    return penalty(kernel)
