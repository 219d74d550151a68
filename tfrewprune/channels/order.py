# SPDX-License-Identifier: Apache-2.0
"""Another order for channels: what makes them and what reads them has to follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from tfrewprune.channels.units import Units

Writer = TypeVar("Writer")


class Order:
    """An order for the channels of every tensor of a model.

    Args:
        units: The numbers of all channels.
        place: Where each comes among those that are made with it.
    """

    def __init__(self, units: Units, place: np.ndarray):
        self._units, self._place = units, place

    def of(self, channels: np.ndarray) -> np.ndarray:
        """Which channel of a tensor comes first, second and so on.

        Args:
            channels: Their units, as they come now.
        """
        roots = self._units.roots(channels)
        # Channels of one layer may come in several runs, as after Flatten.
        run = np.cumsum(np.diff(roots, prepend=roots[:1]) < 0)
        return np.lexsort((self._place[roots], run))


def find_order(
    units: Units,
    tensors: Iterable[np.ndarray],
    writers: Sequence[tuple[np.ndarray, Writer]],
    choose: Callable[[list[Writer], int], np.ndarray],
) -> Order | None:
    """A new order for the channels of every tensor that is free to have one.

    It is not where units are pinned. Layers that write into one residual sum share one
    order.

    Args:
        units: The numbers of all channels.
        tensors: The channels of every tensor, also as layers see them that read a
            tensor in another shape.
        writers: The layers that make new channels, behind the channels they make.
        choose: Of the layers that make a tensor and the number of its channels, their
            new order.

    Returns:
        The order; None where everything stays.
    """
    place = np.arange(len(units))
    makers: dict[tuple[int, int], list[Writer]] = defaultdict(list)
    for channels, writer in writers:
        roots = units.roots(channels)
        first, count = int(roots[0]), len(roots)
        if np.array_equal(roots, np.arange(first, first + count)):
            makers[first, count].append(writer)
    pins, seen = units.pins(), [units.roots(channels) for channels in tensors]
    for (first, count), found in makers.items():
        own = range(first, first + count)
        if any(unit in pins for unit in own):
            continue
        if not all(_in_whole_runs(roots, own) for roots in seen):
            continue
        rows = choose(found, count)
        place[first + rows] = np.arange(first, first + count)
    moved = not np.array_equal(place, np.arange(len(units)))
    return Order(units, place) if moved else None


def _in_whole_runs(roots: np.ndarray, own: range) -> bool:
    """Whether channels hold a layer's units all together and in order, or none."""
    inside = (roots >= own.start) & (roots < own.stop)
    if not inside.any():
        return True
    # A run ends where other channels follow, and where the units begin again.
    starts = np.diff(inside.astype(int), prepend=0) == 1
    starts |= inside & (np.diff(roots, prepend=roots[:1]) < 0)
    runs = np.split(roots[inside], np.flatnonzero(starts[inside])[1:])
    return all(
        len(run) % len(own) == 0
        and np.array_equal(run, np.repeat(own, len(run) // len(own)))
        for run in runs
    )
