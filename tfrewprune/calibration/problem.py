# SPDX-License-Identifier: Apache-2.0
"""A layer as a least-squares problem: few columns shall give the dense outputs.

With X the layer's inputs as the pruned model has them (rows are samples) and Y the
outputs of the dense model before the activation, kernels W are judged by
||X W + b - Y||^2. Its minimum for any set of surviving weights follows from the second
moments X^T X and X^T Y alone. Source: Frantar and Alistarh, "Optimal Brain
Compression", arXiv 2208.11580 (layer by layer, second moments, exact updates); that X
comes from the pruned model is as in Li et al., "GPTAQ", arXiv 2504.02692.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

#: Added to the second moments' diagonal, of its mean: what GPTQ and SparseGPT take.
DAMPING = 0.01
#: The same for each column a sample, where samples are few: a refit of 196 columns on
#: 50 inputs fits those inputs alone otherwise. See `damping_for`.
SCARCE = 0.05


def damping_for(columns: int, samples: int) -> float:
    """How much a layer's solution is pulled to the dense weights.

    Measured on a net of dense layers (196 - 128 - 64 - 10, MNIST at half size,
    Block(16, 1)) on 5,000 images not seen: at 50 inputs 2 to 3 points more at 3x and 4
    to 9 at 6x than `DAMPING` alone, level from 200 on. Convolutions have thousands of
    samples and keep `DAMPING`.
    """
    return max(DAMPING, SCARCE * columns / max(1, samples))


class Problem:
    """Second moments of one layer.

    Args:
        weights: Dense kernel as a matrix, (columns, outputs).
        batches: (X, Y) pairs: (samples, columns), (samples, outputs).
        centred: Whether the layer can add a constant to each output. The moments are
            then about the mean, and `shift` says what the constant must change by.
        damping: Pulls the solution to the dense weights, in parts of the mean second
            moment of a column; None for `damping_for`.

    Attributes:
        samples: Rows of X.
        dead: Whether X (or what is left of it about its mean) is zero.

    Raises:
        ValueError: NaN or infinite inputs or outputs.
    """

    def __init__(
        self,
        weights: np.ndarray,
        batches: Iterable[tuple[np.ndarray, np.ndarray]],
        centred: bool = True,
        damping: float | None = None,
    ):
        columns, outputs = weights.shape
        self.weights = np.asarray(weights, np.float64)
        self.centred = centred
        self.samples = 0
        self._x, self._y = np.zeros(columns), np.zeros(outputs)
        self._xx = np.zeros((columns, columns))
        self._xy = np.zeros((columns, outputs))
        self._yy = np.zeros(outputs)
        for x, y in batches:
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                raise ValueError("NaN or infinite activations")
            self.samples += len(x)
            self._x += x.sum(axis=0, dtype=np.float64)
            self._y += y.sum(axis=0, dtype=np.float64)
            # float32 products, float64 sums: twice as fast, and a batch is small.
            self._xx += x.T @ x
            self._xy += x.T @ y
            self._yy += np.square(y, dtype=np.float64).sum(axis=0)
        count = max(1, self.samples)
        for name in ("_x", "_y", "_xx", "_xy", "_yy"):
            setattr(self, name, getattr(self, name) / count)
        if centred:
            self._xx -= np.outer(self._x, self._x)
            self._xy -= np.outer(self._x, self._y)
            self._yy -= np.square(self._y)
        if damping is None:
            damping = damping_for(columns, self.samples)
        mean = float(np.trace(self._xx)) / columns
        self.dead = not mean > 1e-12 * max(1.0, float(np.square(self._x).max()))
        strength = 1.0 if self.dead else damping * mean
        #: Damped second moments: H of the quadratic form, and its right side.
        self.hessian = self._xx + strength * np.eye(columns)
        self.target = self._xy + strength * self.weights

    @property
    def remark(self) -> str | None:
        """What the user should know about the samples; None if they were enough."""
        if self.dead:
            return "its inputs do not vary over the calibration data: cut by magnitude"
        columns = len(self.weights)
        if self.samples < columns:
            return (
                f"{self.samples:,} samples for {columns:,} columns: the refit leans on "
                "damping; more inputs would help"
            )
        return None

    def inverse(self, columns: np.ndarray) -> np.ndarray:
        """Inverse of the second moments of some columns."""
        return np.linalg.inv(self.hessian[np.ix_(columns, columns)])

    def solve(self, keep: np.ndarray) -> np.ndarray:
        """The best kernel whose weights outside `keep` (columns, outputs) are zero."""
        weights = np.zeros_like(self.weights)
        for rows, columns in alike(keep):
            if len(columns):
                place = np.ix_(columns, rows)
                weights[place] = np.linalg.solve(
                    self.hessian[np.ix_(columns, columns)], self.target[place]
                )
        return weights

    def loss(self, weights: np.ndarray) -> float:
        """Squared error of the outputs over their variance (energy, if not centred)."""
        energy = float(self._yy.sum())
        if not energy > 0:
            return 0.0
        error = self._yy - 2 * (weights * self._xy).sum(axis=0)
        error += (weights * (self._xx @ weights)).sum(axis=0)
        return max(0.0, float(error.sum()) / energy)

    def shift(self, weights: np.ndarray) -> np.ndarray | None:
        """What to add to the constants of the outputs; None if not centred."""
        return self._y - self._x @ weights if self.centred else None


def alike(keep: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Outputs that keep the same columns, and those columns: one inverse serves them.

    Args:
        keep: Boolean, (columns, outputs).
    """
    packed = np.packbits(keep, axis=0).T
    classes: dict[bytes, list[int]] = {}
    for row, bits in enumerate(np.ascontiguousarray(packed)):
        classes.setdefault(bits.tobytes(), []).append(row)
    return [
        (np.array(rows), np.flatnonzero(keep[:, rows[0]])) for rows in classes.values()
    ]
