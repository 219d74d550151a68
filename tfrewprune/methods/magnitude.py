# SPDX-License-Identifier: Apache-2.0
"""Magnitude pruning: no penalty, the groups of smallest rms are removed."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tfrewprune.methods.method import Method


@dataclasses.dataclass(frozen=True)
class Magnitude(Method):
    """No penalty: training is plain, `hard_prune` removes the smallest groups."""

    penalized: ClassVar[bool] = False
