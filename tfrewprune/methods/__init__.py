# SPDX-License-Identifier: Apache-2.0
"""Methods: how training empties groups, or leads weights to levels. Numpy only."""

from tfrewprune.methods.admm import ADMM
from tfrewprune.methods.gradual_magnitude import GradualMagnitude
from tfrewprune.methods.group_lasso import GroupLasso
from tfrewprune.methods.magnitude import Magnitude
from tfrewprune.methods.method import Method, group_lasso_penalty
from tfrewprune.methods.partial_freeze import PartialFreeze
from tfrewprune.methods.primal_proximal import PrimalProximal
from tfrewprune.methods.reweighted import Reweighted
from tfrewprune.methods.reweighted_proximal import ReweightedProximal
from tfrewprune.methods.straight_through import StraightThrough

__all__ = [
    "ADMM",
    "GradualMagnitude",
    "GroupLasso",
    "Magnitude",
    "Method",
    "PartialFreeze",
    "PrimalProximal",
    "Reweighted",
    "ReweightedProximal",
    "StraightThrough",
    "group_lasso_penalty",
]
