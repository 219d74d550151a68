# SPDX-License-Identifier: Apache-2.0
"""Static group lasso: every group is pulled with the same strength."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.methods.method import Method, group_lasso_penalty
from tfrewprune.structures import KernelShape, Structure


@dataclasses.dataclass(frozen=True)
class GroupLasso(Method):
    """Penalty sum_g n_g rms_g (Yuan and Lin 2006; Wen et al., arXiv 1608.03665).

    Equals `Reweighted` with all alpha = 1. Because it pulls large and small groups
    alike it also shrinks what should survive; it is here as the baseline.
    """

    def state(
        self,
        kernel,
        structure: Structure,
        shape: KernelShape,
        xp=np,
        previous=None,
        keep=None,
    ) -> dict:
        if xp is not np:
            return {}
        rms = structure.rms(kernel, shape)
        survivors = None if keep is None else structure.select(rms, shape, keep)
        pulled = structure.pulled(rms, shape, survivors)
        return {} if pulled is None else {"alpha": pulled}

    def penalty(self, kernel, structure: Structure, shape: KernelShape, state, xp=np):
        return group_lasso_penalty(kernel, state.get("alpha"), structure, shape, xp)
