# SPDX-License-Identifier: Apache-2.0
"""Quantization: which layer's weights lie on which levels, and how they get there.

Plain frozen data, without Keras.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrewprune.levels import EqualInterval, Levels
from tfrewprune.methods import ADMM, Method, PartialFreeze, StraightThrough

METHODS = ("admm", "straight-through")


@dataclasses.dataclass(frozen=True)
class Quantization:
    """Training at whose end all weights lie on levels; what is removed stays removed.

    By `"admm"` weights are pulled to their projection onto the levels while the pull
    grows, then, in rounds, the nearest are fixed and the others trained on, until all
    are. By `"straight-through"` the model computes with weights on levels from the
    first step on, and the optimizer moves latent weights behind them.

    Biases, normalizations and depthwise convolutions stay floats.

    Args:
        levels: Of all layers that `layers` does not name: `EqualInterval`,
            `PowerOfTwo`, `Ternary`, `Binary`, a config or a name; a number of bits is
            short for `EqualInterval`. `Binary(per="channel")` has a scale an output.
        layers: Levels of some layers by name or pattern, as in `Rule`; the first that
            matches counts. None leaves a layer as floats:
            `{"conv1": 8, "fc*": "ternary", "logits": None}`.
        method: `"admm"` or `"straight-through"`.
        ends_last: All layers but the first and the last get to their levels before
            these two begin (progressive; Ye et al., arXiv 1903.09769).
        epochs: Length of the phase under the method.
        freeze_epochs: Length of the rounds together; `"admm"` alone has them.
        strength: rho of ADMM at the start.
        growth: Factor of rho at each refresh.
        refreshes: How often ADMM projects, and the scale of straight-through is fitted,
            inside the phase.
        share: Of the free weights, which part a round fixes.
        rounds: Number of rounds; the last one fixes all that are left.

    Raises:
        ValueError: Impossible numbers or levels, an unknown method, or no levels.

    Example:

    >>> Quantization(4).levels
    EqualInterval(per='layer', bits=4)
    >>> quantization = Quantization("binary", method="straight-through", epochs=40)
    """

    levels: Levels | None = EqualInterval(8)
    layers: dict[str, Levels | None] = dataclasses.field(default_factory=dict)
    method: str = "admm"
    ends_last: bool = False
    epochs: int = 10
    freeze_epochs: int = 10
    strength: float = 1e-3
    growth: float = 1.3
    refreshes: int = 9
    share: float = 0.5
    rounds: int = 5

    def __post_init__(self):
        if not isinstance(self.layers, dict):
            raise ValueError(
                "Argument `layers` must be a dict of layer names or patterns and "
                f"levels. Received: layers={self.layers!r}"
            )
        object.__setattr__(self, "levels", _levels(self.levels))
        layers = {pattern: _levels(value) for pattern, value in self.layers.items()}
        object.__setattr__(self, "layers", layers)
        if not any([self.levels, *layers.values()]):
            raise ValueError("The quantization has levels for no layer.")
        if self.method not in METHODS:
            raise ValueError(
                f"Invalid value for argument `method`. Expected one of {METHODS}. "
                f"Received: method={self.method!r}"
            )
        for name, least in (
            *(("epochs", 0), ("freeze_epochs", 0)),
            *(("refreshes", 0), ("rounds", 1)),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"Argument `{name}` must be an integer of at least {least}. "
                    f"Received: {name}={value!r}"
                )
        if not 0 < self.strength < float("inf"):
            raise ValueError(
                "Argument `strength` must be a finite number above 0. "
                f"Received: strength={self.strength!r}"
            )
        for levels in {self.levels, *layers.values()} - {None}:  # checks their numbers
            self.training_method(levels), self.freezing_method(levels)

    @classmethod
    def get(cls, value: Quantization | Levels | dict | str | int) -> Quantization:
        """A quantization from one, its config, or the levels of all layers."""
        if isinstance(value, cls):
            return value
        known = {field.name for field in dataclasses.fields(cls)}
        whole = isinstance(value, dict) and not set(value) - known
        return cls(**value) if whole else cls(value)

    @property
    def straight_through(self) -> bool:
        return self.method == "straight-through"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is trained, one after the other; stages of no epochs are among them."""
        found = []
        for part in range(1 + self.ends_last):
            found.append(Stage(self, part, freezes=False))
            if not self.straight_through:
                found.append(Stage(self, part, freezes=True))
        return tuple(found)

    def training_method(self, levels: Levels) -> Method:
        """What leads weights to levels."""
        if self.straight_through:
            return StraightThrough(levels)
        return ADMM(self.growth, levels)

    def freezing_method(self, levels: Levels) -> Method:
        """What fixes them there in rounds."""
        return PartialFreeze(levels, self.share, self.rounds)

    def replace(self, **changes: Any) -> Quantization:
        """A copy with some arguments changed."""
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict:
        """JSON-serializable arguments of the constructor."""
        config = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        config["levels"] = _config(self.levels)
        config["layers"] = {name: _config(each) for name, each in self.layers.items()}
        return config


@dataclasses.dataclass(frozen=True)
class Stage:
    """One phase of a `Quantization`.

    Attributes:
        quantization: The whole.
        part: Which layers are led to their levels: 0: all, or all but the ends; 1: the
            ends. Those of part 0 then stay where they are.
        freezes: Whether it fixes weights in rounds.
    """

    quantization: Quantization
    part: int = 0
    freezes: bool = False

    @property
    def name(self) -> str:
        """What logs and reports call it."""
        return ("freeze" if self.freezes else "levels") + (" 2" if self.part else "")

    @property
    def epochs(self) -> int:
        whole = self.quantization
        return whole.freeze_epochs if self.freezes else whole.epochs

    @property
    def refreshes(self) -> int:
        """Refreshes inside the phase."""
        whole = self.quantization
        return whole.rounds - 1 if self.freezes else whole.refreshes

    @property
    def shows_levels(self) -> bool:
        """Whether all layers lie on their levels at every epoch."""
        whole = self.quantization
        return whole.straight_through and self == whole.stages[-1]

    @property
    def last_of_part(self) -> bool:
        """Whether its layers lie on their levels afterwards."""
        return self.freezes or self.quantization.straight_through

    def method(self, levels: Levels, part: int) -> Method | None:
        """What happens to a layer of a part meanwhile; None: it trains as it is."""
        if part > self.part:
            return None
        if part < self.part:
            return PartialFreeze(levels, share=1, rounds=1)
        whole = self.quantization
        if self.freezes:
            return whole.freezing_method(levels)
        return whole.training_method(levels)


def _levels(value) -> Levels | None:
    return None if value is None else Levels.get(value)


def _config(levels: Levels | None) -> dict | None:
    return None if levels is None else levels.get_config()
