# SPDX-License-Identifier: Apache-2.0
"""The interface of a structure: which weights live or die together."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from tfrewprune.structures.layout import KernelShape

# Added under the square root so that its gradient is finite at an all-zero group
# (papers: TensorFlow's `norm` yields NaN there). Far below any float32 weight that
# matters: 1e-20 is an rms of 1e-10.
TINY = 1e-20


class Structure(abc.ABC):
    """A way to cut a kernel into groups of weights that are removed together.

    A kernel is a (positions, channels, outputs) tensor, see `KernelLayout`. A structure
    is a frozen dataclass, holds no state, and answers four questions:

    - `group_grid(shape)`: the shape of the array that holds one number a group;
    - `sums(values, shape, xp)`: the sum of `values` over every group;
    - `expand(groups, shape, xp)`: every weight gets its group's number;
    - `select(scores, shape, keep)`: which groups a mask may keep.

    Group sizes, norms, projection, penalty, reports and masks follow from these four
    and are written once. All array arguments may be numpy arrays (`xp=numpy`) or
    backend tensors (`xp=keras.ops`, differentiable).

    Structures that are more than a plain partition fit the same four questions:

    - *kernel*: `group_grid` is (channels, outputs), `sums` adds over the positions;
    - *block-punched*: the grid is (positions, channels / q, outputs / p);
    - *per-gate recurrent groups*: `outputs` is split into (gates, units), the inner
      structure answers for each gate, the grid gets a leading gate axis;
    - *pattern*: every weight is its own group (as in `Unstructured`), and `select`
      returns, instead of the largest scores, the best pattern of a library per kernel;
      *N:M* likewise keeps the N best of M neighbours.

    Subclasses are found by their class name when a configuration is read back; defining
    the class registers it.
    """

    _classes: ClassVar[dict[str, type[Structure]]] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Structure._classes[cls.__name__] = cls

    @abc.abstractmethod
    def group_grid(self, shape: KernelShape) -> tuple[int, ...]:
        """Shape of an array with one entry per group."""

    @abc.abstractmethod
    def sums(self, values, shape: KernelShape, xp: Any = np):
        """Sum of `values` (positions, channels, outputs) over each group."""

    @abc.abstractmethod
    def expand(self, groups, shape: KernelShape, xp: Any = np):
        """Array of `group_grid(shape)` -> (positions, channels, outputs)."""

    def select(self, scores: np.ndarray, shape: KernelShape, keep: int) -> np.ndarray:
        """Boolean group mask that keeps the `keep` groups of largest score.

        Ties are broken by position: of equal scores the first group in C order is
        kept, so that exactly `keep` groups survive (a percentile would not).
        """
        return keep_largest(scores, keep)

    def group_count(self, shape: KernelShape) -> int:
        """Number of groups."""
        return int(np.prod(self.group_grid(shape), dtype=np.int64))

    def group_sizes(self, shape: KernelShape) -> np.ndarray:
        """Number of weights of every group: int64 array of `group_grid(shape)`.

        Only the groups at a ragged edge differ from the others.
        """
        return _group_sizes(self, shape)

    def rms(self, kernel, shape: KernelShape, xp: Any = np):
        """Root mean square of every group; differentiable, also at zero.

        The mean, not the sum, makes groups of different size comparable: ragged edge
        blocks with one another, and layers with one another.
        """
        inverse = (1.0 / self.group_sizes(shape)).astype(np.float32)
        if inverse.size and (inverse == inverse.flat[0]).all():
            inverse = inverse.flat[0]
        else:
            inverse = xp.array(inverse)
        return xp.sqrt(self.sums(xp.square(kernel), shape, xp) * inverse + TINY)

    def project(self, kernel: np.ndarray, keep: int) -> np.ndarray:
        """Nearest kernel (Euclidean) with at most `keep` non-zero groups of equal size.

        With ragged edges the groups are ranked by rms instead, as penalty and pruning
        do, because small edge groups would otherwise always go first.
        """
        shape = KernelShape(*kernel.shape)
        mask = self.select(self.rms(kernel, shape), shape, keep)
        return np.where(self.expand(mask, shape), kernel, 0).astype(kernel.dtype)

    def surviving_groups(self, kernel: np.ndarray) -> np.ndarray:
        """Boolean array of `group_grid`: groups with a non-zero weight."""
        shape = KernelShape(*kernel.shape)
        return self.sums((kernel != 0).astype(np.float32), shape) > 0

    def get_config(self) -> dict:
        """JSON-serializable: `{"structure": class name, **fields}`."""
        return {"structure": type(self).__name__, **dataclasses.asdict(self)}

    @staticmethod
    def get(value: Structure | dict | str) -> Structure:
        """Structure from a structure, its config, or its class name.

        Raises:
            ValueError: No such structure, or arguments it does not take.
        """
        if isinstance(value, Structure):
            return value
        if isinstance(value, str):
            value = {"structure": value}
        if not isinstance(value, dict) or "structure" not in value:
            raise ValueError(
                "A structure must be a tfrewprune structure such as Block(16, 1), its "
                f"config or its name. Received: {value!r}"
            )
        arguments = dict(value)
        name = arguments.pop("structure")
        if name not in Structure._classes:
            raise ValueError(
                f"Unknown structure {name!r}. Expected one of "
                f"{sorted(Structure._classes)}."
            )
        try:
            return Structure._classes[name](**arguments)
        except TypeError as error:
            raise ValueError(
                f"Structure {name!r} cannot be built from {arguments!r}: {error}"
            ) from error


@functools.lru_cache(maxsize=1024)
def _group_sizes(structure: Structure, shape: KernelShape) -> np.ndarray:
    ones = np.broadcast_to(np.float64(1.0), tuple(shape))
    sizes = np.rint(structure.sums(ones, shape)).astype(np.int64)
    sizes.flags.writeable = False  # shared by everybody who asks
    return sizes


def keep_largest(scores: np.ndarray, keep: int) -> np.ndarray:
    """Boolean mask with exactly `keep` entries: the largest scores, first come first.

    Raises:
        ValueError: `keep` is negative or larger than the number of scores.
    """
    scores = np.asarray(scores)
    if not 0 <= keep <= scores.size:
        raise ValueError(
            f"Argument `keep` must lie between 0 and the number of groups "
            f"({scores.size}). Received: keep={keep}"
        )
    order = np.argsort(-scores, axis=None, kind="stable")
    mask = np.zeros(scores.size, dtype=bool)
    mask[order[:keep]] = True
    return mask.reshape(scores.shape)
