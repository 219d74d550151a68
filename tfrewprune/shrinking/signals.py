# SPDX-License-Identifier: Apache-2.0
"""What is known of a tensor's channels."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Signal:
    """The channels of a tensor between two layers.

    Attributes:
        axis: Their axis, counted with the batch.
        units: A number a channel; equal numbers are removed together.
        value: float64, a channel's value where it is the same for all inputs and
            positions, else NaN.
    """

    axis: int
    units: np.ndarray
    value: np.ndarray
