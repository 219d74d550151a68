# SPDX-License-Identifier: Apache-2.0
"""What methods have in common that put weights on levels after every step."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tfrewprune.levels import Levels


@dataclasses.dataclass(frozen=True)
class OnLevels:
    """Mixed into a `Method` that acts after the step and empties no groups.

    Args:
        levels: What weights lie on.
    """

    in_loss: ClassVar[bool] = False
    controlled: ClassVar[bool] = False
    prunes: ClassVar[bool] = False
    default_strength: ClassVar[float] = 1.0

    levels: Levels

    def __post_init__(self):
        object.__setattr__(self, "levels", Levels.get(self.levels))

    def get_config(self) -> dict:
        return {**super().get_config(), "levels": self.levels.get_config()}
