# SPDX-License-Identifier: Apache-2.0
"""Which channels of a model can go, and what becomes of the constants they carry.

A channel is needed if an output of the model depends on it. It is not if all that
reads it multiplies it by 0, or takes it for a constant that its own bias can hold
(unused path removal of Ma et al., arXiv 1905.00136, made exact). A constant that a
padded convolution reads fits no bias, as the zeros at the edge differ from it; but one
such channel can carry those of all others, scaled.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrewprune.channels.units import Units
from tfrewprune.shrinking.passages import Passage
from tfrewprune.shrinking.products import Product, edge
from tfrewprune.shrinking.signals import Signal


@dataclasses.dataclass
class Selection:
    """What stays.

    Attributes:
        units: The numbers of all channels.
        stays: Boolean by unit.
        needed: Boolean by unit: whether an output depends on it.
        reasons: By unit, why it would stay even as a constant or unread.
    """

    units: Units
    stays: np.ndarray
    needed: np.ndarray
    reasons: dict[int, str]

    def kept(self, signal: Signal) -> np.ndarray:
        """The channels of a signal that stay, ascending."""
        return np.flatnonzero(self.stays[self.units.roots(signal.units)])


def select(
    passages: list[Passage],
    outputs: list[Signal],
    units: Units,
    merge: bool = True,
    least: int = 1,
) -> Selection:
    """Chooses the channels that stay, and gives each product its `folds`.

    Args:
        passages: The model's calls, as `read` returned them.
        outputs: Its outputs.
        units: The numbers of all channels.
        merge: Let one constant channel carry others.
        least: Channels that every tensor keeps; Keras has no empty layer.
    """
    products = [passage for passage in passages if isinstance(passage, Product)]
    pins = units.pins()
    reads = _reads(passages, outputs)
    needed = np.zeros(len(units), bool)
    needed[list(pins)] = True
    for product in products:
        needed[units.roots(product.signal.units[reads[id(product)]])] = True
    places, reasons = _places(products, units, reads)
    for passage in passages:
        for unit, why in passage.edges.items():
            reasons.setdefault(int(units.roots(np.array([unit]))[0]), why)
    stays = needed.copy()
    carriers: dict[int, int] = {}
    if merge:
        carriers = _carriers({u: p for u, p in places.items() if u not in pins})
        stays[list(carriers)] = False
    for passage in passages:
        for signal in (*passage.inputs, *passage.outputs):
            roots = units.roots(signal.units)
            if stays[roots].sum() < least:
                stays[roots[:least]] = True
                reasons[int(roots[0])] = "a layer keeps one channel"
    for product in products:
        _settle(product, units, stays, carriers)
    return Selection(units, stays, needed, {**reasons, **pins})


def _reads(passages: list[Passage], outputs: list[Signal]) -> dict[int, np.ndarray]:
    """By `id` of a product the channels that it must have, boolean.

    It must where one of its outputs matters, has a weight for the channel, and the
    channel is no constant that the bias can hold.
    """
    needed: dict[int, np.ndarray] = {}

    def need(signal: Signal, channels: np.ndarray) -> None:
        before = needed.get(id(signal), False)
        needed[id(signal)] = channels | before

    for signal in outputs:
        need(signal, np.ones(len(signal.units), bool))
    reads = {}
    for passage in reversed(passages):
        nothing = [np.zeros(len(signal.units), bool) for signal in passage.outputs]
        wanted = [
            needed.get(id(signal), none)
            for signal, none in zip(passage.outputs, nothing, strict=True)
        ]
        found = passage.needs(wanted)
        if isinstance(passage, Product):
            reads[id(passage)] = found[0]
        for signal, channels in zip(passage.inputs, found, strict=True):
            need(signal, channels)
    return reads


def _places(
    products: list[Product], units: Units, reads: dict[int, np.ndarray]
) -> tuple[dict[int, dict[int, float]], dict[int, str]]:
    """Where constants are read that fit no bias.

    Returns:
        By unit that is a constant in all such places, its values by number of the
        product; and by every unit that is one somewhere, what keeps it.
    """
    places: dict[int, dict[int, float]] = {}
    reasons: dict[int, str] = {}
    varying = set()
    for number, product in enumerate(products):
        roots = units.roots(product.signal.units).tolist()
        for channel in np.flatnonzero(reads[id(product)]):
            unit, value = roots[channel], product.signal.value[channel]
            if np.isfinite(value):
                reasons.setdefault(unit, edge(product.layer))
            twice = number in places.get(unit, {})
            if np.isnan(value) or twice or not product.merges:
                varying.add(unit)
            places.setdefault(unit, {})[number] = float(value)
    return {u: p for u, p in places.items() if u not in varying}, reasons


def _carriers(places: dict[int, dict[int, float]]) -> dict[int, int]:
    """Unit to the one that carries its constants from now on."""
    found: dict[int, int] = {}
    chosen: list[int] = []

    def weakest(unit: int) -> tuple[int, float]:
        return -len(places[unit]), -min(map(abs, places[unit].values()))

    # Those read in most places, and large ones, which scale with the least rounding.
    for unit in sorted(places, key=weakest):
        for carrier in chosen:
            if places[unit].keys() <= places[carrier].keys():
                found[unit] = carrier
                break
        else:
            chosen.append(unit)
    return found


def _settle(
    product: Product, units: Units, stays: np.ndarray, carriers: dict[int, int]
) -> None:
    """Notes where the product puts the constants of the channels that go."""
    roots = units.roots(product.signal.units)
    channel_of = {int(unit): channel for channel, unit in enumerate(roots)}
    for channel in np.flatnonzero(~stays[roots]):
        value = product.signal.value[channel]
        if not np.isfinite(value) or value == 0:
            continue  # multiplied by 0 everywhere, or 0 itself
        carrier = channel_of.get(carriers.get(int(roots[channel])))
        if product.even:
            product.folds.append((int(channel), None, float(value)))
        elif carrier is not None and np.isfinite(product.signal.value[carrier]):
            ratio = float(value / product.signal.value[carrier])
            product.folds.append((int(channel), carrier, ratio))
