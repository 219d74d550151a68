# SPDX-License-Identifier: Apache-2.0
"""Which channels of a model's tensors stand and fall together."""

from __future__ import annotations

import numpy as np


class Units:
    """Numbers of channels; what is joined has one number in the end."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)
        self._pins: dict[int, str] = {}

    def new(self, count: int) -> np.ndarray:
        """Numbers of channels that no other tensor has."""
        start = len(self._parent)
        fresh = np.arange(start, start + count)
        self._parent = np.concatenate([self._parent, fresh])
        return fresh

    def join(self, units: np.ndarray, others: np.ndarray) -> None:
        """Makes each unit and its partner one."""
        for a, b in zip(self.roots(units), self.roots(others), strict=True):
            a, b = self._root(a), self._root(b)
            self._parent[max(a, b)] = min(a, b)

    def pin(self, units: np.ndarray, reason: str) -> None:
        """Has units stay, and says why."""
        for unit in np.unique(units):
            self._pins.setdefault(int(unit), reason)

    def roots(self, units: np.ndarray) -> np.ndarray:
        """The one number of all that were joined."""
        while not np.array_equal(up := self._parent[units], units):
            units = up
        return units

    def pins(self) -> dict[int, str]:
        """Reason by unit that must stay."""
        found: dict[int, str] = {}
        for unit, reason in self._pins.items():
            found.setdefault(self._root(unit), reason)
        return found

    def __len__(self) -> int:
        return len(self._parent)

    def _root(self, unit: int) -> int:
        while self._parent[unit] != unit:
            unit = int(self._parent[unit])
        return int(unit)
