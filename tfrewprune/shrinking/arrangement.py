# SPDX-License-Identifier: Apache-2.0
"""Channels between layers in another order: what makes and what reads them follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from tfrewprune.shrinking.passages import Passage
from tfrewprune.shrinking.products import Product
from tfrewprune.shrinking.selection import Selection
from tfrewprune.shrinking.signals import Signal, Units

#: The layers that make a tensor and the number of its channels -> their new order.
Choice = Callable[[list[Product], int], np.ndarray]


class Arrangement(Selection):
    """All channels stay, in a new order."""

    def __init__(self, units: Units, order: np.ndarray):
        everything = np.ones(len(units), bool)
        super().__init__(units, everything, everything, {})
        self.order = order

    def kept(self, signal: Signal) -> np.ndarray:
        roots = self.units.roots(signal.units)
        # Channels of one layer may come in several runs, as after Flatten.
        run = np.cumsum(np.diff(roots, prepend=roots[:1]) < 0)
        return np.lexsort((self.order[roots], run))

    def move(self, passages: list[Passage]) -> list[str]:
        """Moves the weights of a model, in place.

        Args:
            passages: Its calls.

        Returns:
            Names of the layers whose outputs have moved.
        """
        names = []
        for passage in passages:
            found = None if passage.reason else passage.narrowed(self.kept)
            if found is None or not found[1]:
                continue
            passage.layer.set_weights(found[1])
            outputs = self.kept(passage.outputs[0])
            if isinstance(passage, Product) and (np.diff(outputs) < 0).any():
                names.append(passage.layer.name)
        return names


def find_arrangement(
    passages: list[Passage], units: Units, choose: Choice
) -> Arrangement | None:
    """A new order for the channels of every tensor that is free to have one.

    It is not where channels are read as they are, by the model's outputs or by layers
    that are not understood. Layers that write into one residual sum share one order.

    Args:
        passages: The model's calls, as `read` returned them.
        units: The numbers of all channels.
        choose: Gives the order.

    Returns:
        The arrangement; None where everything stays.
    """
    order = np.arange(len(units))
    signals = [s for p in passages for s in (*p.inputs, *p.outputs)]
    writers: dict[tuple[int, int], list[Product]] = defaultdict(list)
    for passage in passages:
        if isinstance(passage, Product):
            roots = units.roots(passage.outputs[0].units)
            first, count = int(roots[0]), len(roots)
            if np.array_equal(roots, np.arange(first, first + count)):
                writers[first, count].append(passage)
    pins = units.pins()
    for (first, count), products in writers.items():
        own = range(first, first + count)
        if any(unit in pins for unit in own):
            continue
        if not all(_in_whole_runs(units.roots(s.units), own) for s in signals):
            continue
        rows = choose(products, count)
        order[first + rows] = np.arange(first, first + count)
    moved = not np.array_equal(order, np.arange(len(units)))
    return Arrangement(units, order) if moved else None


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
