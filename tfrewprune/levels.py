# SPDX-License-Identifier: Apache-2.0
"""Sets of levels that weights may take: a scale times a few integers.

Every weight of a layer, or of one of its outputs, that is left then is the scale times
an integer of the set. Weights that are exactly 0.0 are removed ones and stay so. Needs
numpy only.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from tfrewprune.registry import Registered

PER = ("layer", "channel")

#: Changes of level up to which the best scale is found exactly.
CHANGES = 1 << 12

#: Beyond: scales that are tried, in units of the one that reaches the largest weight;
#: weights they are tried on; rounds of nearest levels and least squares after that.
TRIED = np.geomspace(0.02, 1.05, 64)
SAMPLES = 1 << 10
POLISH = 8


@dataclasses.dataclass(frozen=True)
class Levels(Registered, abc.ABC, kind="levels", example="EqualInterval(8)"):
    """Symmetric integers that stand, times a scale, for weights.

    Args:
        per: `"layer"`: one scale a weight matrix; `"channel"`: one for each output.

    Raises:
        ValueError: Neither.
    """

    #: Bits that tell the levels apart.
    bits: ClassVar[int]

    per: str = dataclasses.field(default="layer", kw_only=True)

    def __post_init__(self):
        if self.per not in PER:
            raise ValueError(
                f"Argument `per` of {type(self).__name__} must be one of {PER}. "
                f"Received: per={self.per!r}"
            )

    @property
    @abc.abstractmethod
    def magnitudes(self) -> tuple[int, ...]:
        """The integers that are not negative, ascending."""

    @property
    def bits_beside_zero(self) -> int:
        """Bits of a weight where removed ones, 0, are told by the same code.

        ceil(log2(2 M + 1)) with M levels above 0, as ADMM-NN counts them.
        """
        return math.ceil(math.log2(2 * sum(m > 0 for m in self.magnitudes) + 1))

    def nearest(self, ratios, xp: Any = np):
        """The integers of the set that are nearest to `ratios`, as floats.

        Args:
            ratios: Weights in units of the scale.
            xp: numpy or keras.ops.
        """
        size = xp.abs(ratios)
        found = xp.full_like(size, self.magnitudes[0])
        for low, high in zip(self.magnitudes, self.magnitudes[1:], strict=False):
            found = xp.where(size > (low + high) / 2, xp.full_like(size, high), found)
        return xp.where(ratios < 0, -found, found)

    def scale(self, kernel: np.ndarray) -> np.ndarray:
        """The scale of least squared error over the weights that are not 0.0.

        Found exactly while weights times levels of a scale are few (4,096), nearly
        beyond.

        Args:
            kernel: (positions, channels, outputs).

        Returns:
            float32 (1, 1, 1), or (1, 1, outputs) per channel; 1 for zeros alone.

        Raises:
            ValueError: NaN or infinite weights.
        """
        broken = int(np.size(kernel) - np.isfinite(kernel).sum())
        if broken:
            raise ValueError(
                "Only finite weights can lie on levels. Received: "
                f"{broken} NaN or infinite of {np.size(kernel)}"
            )
        outputs = kernel.shape[-1] if self.per == "channel" else 1
        sizes = np.abs(np.asarray(kernel, np.float64)).reshape(-1, outputs)
        found = [self._scale_of(column[column > 0]) for column in sizes.T]
        return np.array(found, np.float32).reshape(1, 1, -1)

    def _scale_of(self, sizes: np.ndarray) -> float:
        if not sizes.size:
            return 1.0
        if len(sizes) * (len(self.magnitudes) - 1) <= CHANGES:
            return _least_squares(sizes, np.array(self.magnitudes, np.float64))
        samples = np.sort(sizes)[::-1][:: 1 + len(sizes) // SAMPLES]
        tried = TRIED * samples[0] / self.magnitudes[-1]
        levels = self.nearest(samples / tried[:, None]) * tried[:, None]
        scale = tried[np.square(levels - samples).sum(axis=1).argmin()]
        for _ in range(POLISH):
            integers = self.nearest(sizes / scale)
            scale = float(sizes @ integers / (integers @ integers))
        return scale

    def on_levels(self, kernel, scale, xp: Any = np):
        """The nearest weights on the levels of a scale; zeros stay zeros.

        Args:
            kernel: (positions, channels, outputs), float32.
            scale: What `scale` returned.
            xp: numpy or keras.ops.
        """
        nearest = self.nearest(kernel / scale, xp) * scale
        return xp.where(kernel == 0, xp.zeros_like(nearest), nearest)

    def project(self, kernel: np.ndarray) -> np.ndarray:
        """The nearest weights on levels, of the best scale."""
        return self.on_levels(kernel, self.scale(kernel))

    @classmethod
    def get(cls, value: Levels | dict | str | int) -> Levels:
        """As `Registered.get`; a number of bits stands for `EqualInterval`."""
        if isinstance(value, int):
            value = {"levels": "EqualInterval", "bits": value}
        return super().get(value)

    def __str__(self) -> str:
        """Short text such as `EqualInterval(4, per channel)`."""
        own = [f for f in dataclasses.fields(self) if f.name != "per"]
        texts = [str(getattr(self, field.name)) for field in own]
        texts += [f"per {self.per}"] if self.per != "layer" else []
        return type(self).__name__ + (f"({', '.join(texts)})" if texts else "")


@dataclasses.dataclass(frozen=True)
class EqualInterval(Levels):
    """Integers from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1: what int8 weights are.

    Source: Ren et al., "ADMM-NN", arXiv 1812.11677, whose code has as many levels.

    Args:
        bits: 2 to 16.
        per: `"layer"` or `"channel"`.

    Raises:
        ValueError: Another number of bits.
    """

    bits: int = 8

    def __post_init__(self):
        super().__post_init__()
        _check_bits(self, 2, 16, "; 1 bit is Binary()")

    @property
    def magnitudes(self) -> tuple[int, ...]:
        return tuple(range(1 << (self.bits - 1)))

    def nearest(self, ratios, xp: Any = np):
        most = float(self.magnitudes[-1])
        return xp.clip(xp.round(ratios), -most, most)


@dataclasses.dataclass(frozen=True)
class PowerOfTwo(Levels):
    """0 and both signs of 1, 2, 4, ...: products are shifts.

    2^(bits - 1) - 1 powers, so that with 0 all codes but one are levels.

    Args:
        bits: 2 to 5.
        per: `"layer"` or `"channel"`.

    Raises:
        ValueError: Another number of bits.
    """

    bits: int = 4

    def __post_init__(self):
        super().__post_init__()
        _check_bits(self, 2, 5, "")

    @property
    def magnitudes(self) -> tuple[int, ...]:
        return (0, *(1 << power for power in range((1 << (self.bits - 1)) - 1)))


@dataclasses.dataclass(frozen=True)
class Ternary(Levels):
    """-1, 0 and 1.

    Args:
        per: `"layer"` or `"channel"`.
    """

    bits: ClassVar[int] = 2

    @property
    def magnitudes(self) -> tuple[int, ...]:
        return (0, 1)


@dataclasses.dataclass(frozen=True)
class Binary(Levels):
    """-1 and 1; the scale is the mean magnitude.

    Args:
        per: `"layer"` or `"channel"`.
    """

    bits: ClassVar[int] = 1

    @property
    def magnitudes(self) -> tuple[int, ...]:
        return (1,)


def _check_bits(levels: Levels, least: int, most: int, hint: str) -> None:
    bits = levels.bits
    if isinstance(bits, bool) or not isinstance(bits, int) or not least <= bits <= most:
        raise ValueError(
            f"Argument `bits` of {type(levels).__name__} must be an integer from "
            f"{least} to {most}{hint}. Received: bits={bits!r}"
        )


def _least_squares(sizes: np.ndarray, magnitudes: np.ndarray) -> float:
    """The s with the least sum of (size - s m)^2, m the magnitude nearest to size / s.

    As s falls the magnitudes grow one change at a time, in an order that is known, and
    each state has a best s of its own: (sum of size m) / (sum of m^2). The best of all
    is the one that explains most, (sum of size m)^2 / (sum of m^2).
    """
    first, low, high = magnitudes[0], magnitudes[:-1], magnitudes[1:]
    order = np.argsort(-sizes[:, None] / (low + high), axis=None, kind="stable")
    products = (sizes[:, None] * (high - low)).ravel()[order]
    squares = np.tile(high**2 - low**2, len(sizes))[order]
    products = first * sizes.sum() + np.concatenate([[0.0], np.cumsum(products)])
    squares = first**2 * len(sizes) + np.concatenate([[0.0], np.cumsum(squares)])
    explained = np.divide(
        products**2, squares, out=np.zeros_like(squares), where=squares > 0
    )
    best = int(explained.argmax())
    return float(products[best] / squares[best])
