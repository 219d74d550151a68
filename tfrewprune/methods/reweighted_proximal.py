# SPDX-License-Identifier: Apache-2.0
"""Reweighted penalty as a proximal step: exact zeros that may come back."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tfrewprune.methods.method import shrunk
from tfrewprune.methods.reweighted import Reweighted
from tfrewprune.structures import KernelShape, Structure

#: Groups of a smaller rms are zero: far above `TINY`'s root, far below any weight.
ZERO = 1e-8


@dataclasses.dataclass(frozen=True)
class ReweightedProximal(Reweighted):
    """Weights are shrunk after every step of the optimizer, by its own measure.

    The penalty is that of `Reweighted`, sum_g n_g alpha_g rms_g, but no part of the
    loss. After the optimizer has moved the weights, its proximal operator does:

        w_g <- max(0, 1 - lr lambda alpha_g / rms(d w_g)) w_g

    where d is what the optimizer divides a gradient by: the root of Adam's second
    moment, 1 - momentum for SGD. A group becomes exactly zero when the root of its mean
    w^2 v, the first-order cost of removing it, falls below lr lambda alpha_g, and comes
    back when its gradient outgrows that. For single weights this is the soft threshold
    by lr lambda alpha / d; for larger groups the proximal operator in the measure d has
    no closed form, and this one agrees with it in which groups are zero.

    Dividing by d matters: weights of noisy gradients are otherwise penalised most, as
    in AdamW's decay. With it, penalty in the loss and proximal step pull alike.
    Formula: ours, from Parikh and Boyd, "Proximal Algorithms", 2014, section 6.5.

    Where weights belong to several groups (rows and columns at once) they are shrunk by
    the product of their groups' factors.

    Args:
        epsilon: Added to the rms; caps alpha at 1 / epsilon. In units of the weights.
    """

    in_loss: ClassVar[bool] = False

    def emptied_below(self, step: float) -> float:
        return ZERO

    def after_step(
        self,
        kernel,
        structure: Structure,
        shape: KernelShape,
        state,
        step,
        measure=1.0,
        xp=np,
    ):
        rms = structure.rms(measure * kernel, shape, xp)
        factor = xp.maximum(1 - step * state["alpha"] / rms, 0)
        return shrunk(kernel, factor, structure, shape, xp)
