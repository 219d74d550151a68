# SPDX-License-Identifier: Apache-2.0
"""Channels between Keras layers in another order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfrewprune.channels.order import Order, find_order
from tfrewprune.channels.units import Units
from tfrewprune.shrinking.passages import Passage
from tfrewprune.shrinking.products import Product
from tfrewprune.shrinking.selection import Selection
from tfrewprune.shrinking.signals import Signal


class Arrangement(Selection):
    """All channels stay, in a new order."""

    def __init__(self, units: Units, order: Order):
        everything = np.ones(len(units), bool)
        super().__init__(units, everything, everything, {})
        self.order = order

    def kept(self, signal: Signal) -> np.ndarray:
        return self.order.of(signal.units)

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
    passages: list[Passage],
    units: Units,
    choose: Callable[[list[Product], int], np.ndarray],
) -> Arrangement | None:
    """A new order for the channels of every tensor that is free to have one.

    It is not where channels are read as they are, by the model's outputs or by layers
    that are not understood.

    Args:
        passages: The model's calls, as `read` returned them.
        units: The numbers of all channels.
        choose: Gives the order, see `find_order`.

    Returns:
        The arrangement; None where everything stays.
    """
    tensors = [s.units for p in passages for s in (*p.inputs, *p.outputs)]
    writers = [(p.outputs[0].units, p) for p in passages if isinstance(p, Product)]
    order = find_order(units, tensors, writers, choose)
    return None if order is None else Arrangement(units, order)
