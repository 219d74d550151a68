# SPDX-License-Identifier: Apache-2.0
"""Reweighted group penalty: small groups are pulled harder, large ones left alone."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.methods.method import Method, group_lasso_penalty, pulled_groups
from tfrewprune.structures import KernelShape, Structure


@dataclasses.dataclass(frozen=True)
class Reweighted(Method):
    """Penalty sum_g n_g alpha_g rms_g with alpha_g = 1 / (rms_g + epsilon).

    alpha is held fixed and recomputed a few times: the majorise-minimise algorithm for
    the penalty sum_g n_g log(rms_g + epsilon) (Candes, Wakin, Boyd, "Enhancing Sparsity
    by Reweighted l1 Minimization", 2008; for block-pruned networks Zhang et al.,
    arXiv 2004.05531, and Ma et al., arXiv 2001.08357). Norms are unsquared, as in the
    code those authors released, so groups reach zero in finite time. With groups of one
    weight this is reweighted l1.

    Args:
        epsilon: Added to the rms; caps alpha at 1 / epsilon. In units of the weights.
    """

    epsilon: float = 1e-3

    def __post_init__(self):
        if not self.epsilon > 0:
            raise ValueError(
                f"Argument `epsilon` must be positive. Received: {self.epsilon!r}"
            )

    @property
    def largest_pull(self) -> float:
        return 1 / self.epsilon

    @property
    def threshold(self) -> float:
        return self.epsilon

    @property
    def negligible(self) -> float:
        return 2 * self.epsilon  # pulled with more than a third of the largest force

    def state(
        self,
        kernel,
        structure: Structure,
        shape: KernelShape,
        xp=np,
        previous=None,
        keep=None,
    ) -> dict:
        rms = structure.rms(kernel, shape, xp)
        alpha = 1.0 / (rms + self.epsilon)
        pulled = pulled_groups(structure, rms, shape, keep) if xp is np else None
        return {"alpha": alpha if pulled is None else alpha * pulled}

    def penalty(self, kernel, structure: Structure, shape: KernelShape, state, xp=np):
        return group_lasso_penalty(kernel, state["alpha"], structure, shape, xp)
