# SPDX-License-Identifier: Apache-2.0
"""How a Keras layer carries penalty and mask, and the callbacks of training."""

from tfrewprune.wrappers.attachment import (
    apply_masks,
    attach,
    detach_mask,
    detach_penalty,
)
from tfrewprune.wrappers.callbacks import Reweight, SparsityLogger
from tfrewprune.wrappers.cloning import strip, wrap
from tfrewprune.wrappers.constraint import MaskConstraint
from tfrewprune.wrappers.kernels import KernelSpec, register_prunable
from tfrewprune.wrappers.prunable import Prunable
from tfrewprune.wrappers.regularizer import (
    GroupLassoRegularizer,
    MethodRegularizer,
    ReweightedRegularizer,
)
from tfrewprune.wrappers.targets import Target, hooked_kernels, resolve

__all__ = [
    "GroupLassoRegularizer",
    "KernelSpec",
    "MaskConstraint",
    "MethodRegularizer",
    "Prunable",
    "Reweight",
    "ReweightedRegularizer",
    "SparsityLogger",
    "Target",
    "apply_masks",
    "attach",
    "detach_mask",
    "detach_penalty",
    "hooked_kernels",
    "register_prunable",
    "resolve",
    "strip",
    "wrap",
]
