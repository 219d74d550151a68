# SPDX-License-Identifier: Apache-2.0
"""A layer's input as the matrix that its kernel multiplies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How a layer walks over its input.

    Args:
        kernel: Extent of the kernel along each spatial axis; () for a dense layer,
            which multiplies the last axes of its input.
        strides: Step along each spatial axis.
        dilations: Distance of kernel positions along each spatial axis.
        padding: `"valid"`, `"same"` or `"causal"` (all of it in front).

    Example:

    >>> Geometry((3, 3), (2, 2), (1, 1), "same").columns(np.ones((1, 5, 5, 2))).shape
    (9, 18)
    """

    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    padding: str = "valid"

    def columns(
        self, inputs: np.ndarray, samples: Sequence[int] | None = None
    ) -> np.ndarray:
        """One row an output position, columns in OHWI order: position, channel.

        Args:
            inputs: (batch, spatial axes..., channels), or (..., channels) of a dense
                layer, whose channels may be several axes flattened before.
            samples: The output positions wanted, counted over batch and space; None
                for all of them.

        Returns:
            (rows, positions * channels), in the type of `inputs`.
        """
        if not self.kernel:
            rows = inputs.reshape(-1, inputs.shape[-1])
            return rows if samples is None else rows[samples]
        windows = self._windows(inputs)
        rank = len(self.kernel)
        shape = windows.shape[: 1 + rank]
        if samples is None:
            chosen = windows.reshape(math.prod(shape), *windows.shape[1 + rank :])
        else:  # only what is wanted is copied
            chosen = windows[np.unravel_index(samples, shape)]
        return chosen.reshape(len(chosen), -1)

    def positions(self, inputs: Sequence[int]) -> int:
        """Number of rows that `columns` gives for an input of this shape."""
        if not self.kernel:
            return math.prod(inputs[:-1])
        counts = [self._axis(axis, n)[0] for axis, n in enumerate(inputs[1:-1])]
        return inputs[0] * math.prod(counts)

    def _axis(self, axis: int, extent: int) -> tuple[int, int, int]:
        """Output positions along a spatial axis, zeros in front and behind."""
        reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        stride = self.strides[axis]
        if self.padding == "valid":
            return max(0, (extent - reach) // stride + 1), 0, 0
        if self.padding == "causal":
            return -(-extent // stride), reach - 1, 0
        count = -(-extent // stride)
        missing = max(0, (count - 1) * stride + reach - extent)
        return count, missing // 2, missing - missing // 2

    def _windows(self, inputs: np.ndarray) -> np.ndarray:
        """View (batch, output positions..., kernel positions..., channels)."""
        rank = len(self.kernel)
        axes = [self._axis(axis, n) for axis, n in enumerate(inputs.shape[1:-1])]
        edges = [(before, after) for _, before, after in axes]
        padded = np.pad(inputs, [(0, 0), *edges, (0, 0)])
        spatial = tuple(range(1, rank + 1))
        reach = [
            (k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)
        ]
        views = np.lib.stride_tricks.sliding_window_view(padded, reach, spatial)
        outer = [
            slice(0, count * stride, stride)
            for (count, _, _), stride in zip(axes, self.strides, strict=True)
        ]
        inner = [slice(None, None, step) for step in self.dilations]
        views = views[(slice(None), *outer, slice(None), *inner)]
        return np.moveaxis(views, rank + 1, -1)
