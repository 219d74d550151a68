# SPDX-License-Identifier: Apache-2.0
"""What a payload stores weights as: floats, or integers with a scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLOAT32, FLOAT16, INT8 = np.dtype("<f4"), np.dtype("<f2"), np.dtype("i1")
VALUE_TYPES = (FLOAT32, FLOAT16, INT8)
"""What values are stored as, by value_type."""
VALUE_NAMES = "float32, float16 or int8"
LARGEST = 127
"""The largest integer of int8 weights; -128 has no opposite."""


class PayloadError(ValueError):
    """A payload, or a matrix to be packed, that the format does not allow."""


@dataclass(frozen=True, eq=False)
class ValueForm:
    """What weights are stored as.

    Attributes:
        dtype: float32, float16 or int8.
        scale: float32 ``[1]`` or ``[O]`` of int8 weights, which stand for themselves
            times the scale of all or of their output row; None otherwise.

    Example:
        >>> ValueForm(INT8, np.float32([0.5])).store(np.float32([[1.5]]), np.array([0]))
        array([[3]], dtype=int8)
    """

    dtype: np.dtype = FLOAT32
    scale: np.ndarray | None = None

    @property
    def scale_bytes(self) -> int:
        return 0 if self.scale is None else 4 * len(self.scale)

    def store(self, values: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Returns float32 weights as they are stored.

        Args:
            values: float32 weights that the form holds exactly.
            row: The output row of each, of a shape that broadcasts.
        """
        if self.scale is None:
            return values.astype(self.dtype)
        return np.rint(values / scale_of(self.scale, row)).astype(self.dtype)

    def check_exact(self, weights: np.ndarray) -> None:
        """Raises PayloadError unless the form holds weights ``[O, K]`` exactly."""
        row = np.arange(len(weights))[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            back = loaded(self.store(weights, row), self.scale, row)
        if not np.array_equal(back, weights):
            raise PayloadError(
                f"{self.dtype} does not hold the weights exactly; the largest "
                f"difference is {np.abs(back - weights).max():.3g}"
            )


AS_FLOAT32 = ValueForm()


def integer_form(weights: np.ndarray) -> ValueForm | None:
    """Returns the int8 form that holds float32 weights ``[O, K]`` bit for bit.

    None unless all of them, or those of each row, are a scale times integers of at most
    127: what training on levels leaves.
    """
    for rows in (weights.reshape(1, -1), weights):
        scales = [_scale_of_integers(row) for row in rows]
        if None not in scales:
            return ValueForm(INT8, np.array(scales, np.float32))
    return None


def _scale_of_integers(values: np.ndarray) -> np.float32 | None:
    """Returns the largest scale that float32 values are integers of; 1 for zeros."""
    sizes = np.unique(np.abs(values[values != 0]))
    if not len(sizes):
        return np.float32(1)
    if len(sizes) > LARGEST:
        return None
    for most in range(len(sizes), LARGEST + 1):
        near = np.float32(float(sizes[-1]) / most)
        # The product that was rounded to the largest value is known to an ulp.
        for scale in (near, *(np.nextafter(near, np.float32(s)) for s in (0, np.inf))):
            if scale > 0 and np.array_equal(np.rint(sizes / scale) * scale, sizes):
                return scale
    return None


def scale_of(scale: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns the scale of output rows, given one of each or one of all."""
    return scale[np.minimum(row, len(scale) - 1)]


def loaded(stored: np.ndarray, scale: np.ndarray | None, row: np.ndarray) -> np.ndarray:
    """Returns stored weights as float32.

    Args:
        stored: Values of one of `VALUE_TYPES`.
        scale: See `ValueForm`.
        row: The output row of each, of a shape that broadcasts.
    """
    values = stored.astype(np.float32)
    return values if scale is None else values * scale_of(scale, row)


def check_values(values: np.ndarray, scale: np.ndarray | None, rows: int) -> None:
    """Raises PayloadError unless type and scale of values fit together."""
    dtype = np.dtype(values.dtype).newbyteorder("<")
    if dtype not in VALUE_TYPES:
        raise PayloadError(f"values must be {VALUE_NAMES}, received {dtype}")
    if (scale is not None) != (dtype == INT8):
        raise PayloadError(
            "int8 values, and no others, have a scale, received "
            f"{dtype} with{'out' if scale is None else ''} one"
        )
    if scale is None:
        return
    if scale.shape not in ((1,), (rows,)):
        raise PayloadError(
            f"scale must be one number or one of each of {rows} rows, received "
            f"shape {scale.shape}"
        )
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise PayloadError("a scale must be finite and above 0")
