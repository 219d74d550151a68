# SPDX-License-Identifier: Apache-2.0
"""How a Keras layer carries penalty and mask, and the callbacks of training.

Three ways to the same training, all of them plain `model.fit`:

- `attach(model, recipe)`: in place, any model, names and optimizer stay. The usual way.
- `wrap(model, recipe)`: a clone with `Prunable` layers that own and save alpha too, so
  that an interrupted phase resumes exactly. Sequential and functional models.
- `Dense(64, kernel_regularizer=ReweightedRegularizer(Block(16, 1)))`: by hand, while
  writing a model.
"""

import tfrewprune.wrappers.declared  # noqa: F401  (makes Keras' layers known)
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
from tfrewprune.wrappers.leveled import attach_levels, snap_to_levels
from tfrewprune.wrappers.prunable import Prunable
from tfrewprune.wrappers.regularizer import (
    GroupLassoRegularizer,
    MethodRegularizer,
    ReweightedRegularizer,
)
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.targets import Target, hooked_kernels

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
    "attach_levels",
    "detach_mask",
    "detach_penalty",
    "hooked_kernels",
    "register_prunable",
    "resolve",
    "snap_to_levels",
    "strip",
    "wrap",
]
