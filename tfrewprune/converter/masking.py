# SPDX-License-Identifier: Apache-2.0
"""Notices masks that the training did not see, before their weights are packed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrewprune.converter.caller import warn_caller


def warn_of_revived_weights(model: Any) -> None:
    """Warns if weights that a mask removed are not zero; changes nothing.

    Args:
        model: A Keras model, with or without masks.

    Warns:
        UserWarning: With the number of such weights and what to do.
    """
    revived = _count_revived(model)
    if revived:
        warn_caller(
            f"{revived} weight{'' if revived == 1 else 's'} that the mask removed are "
            "not zero: the step that trained them did not see the mask. convert packs "
            "what is there. Call hard_prune again, or train with model.fit after "
            "hard_prune, and convert again."
        )


def _count_revived(model: Any) -> int:
    import keras

    from tfrewprune.wrappers.targets import hooked_kernels

    count = 0
    for target in hooked_kernels(model):
        if target.mask is not None:
            weights = keras.ops.convert_to_numpy(target.variable.value)
            mask = target.mask.weight_mask(target.variable.shape)
            count += int(np.count_nonzero(weights[~mask]))
    return count
