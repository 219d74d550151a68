# SPDX-License-Identifier: Apache-2.0
"""Walks a model layer by layer: measure, choose, refit, go on with what is left.

A layer is measured on the activations that the layers pruned before it give, against
what the dense model put out there: so it makes up for their errors as far as it can.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfrewprune.calibration.columns import Geometry
from tfrewprune.calibration.problem import Problem
from tfrewprune.structures import KernelShape

#: Output positions that a layer is measured at: at most so many, or so many a column.
SAMPLES, SAMPLES_A_COLUMN = 1 << 16, 32


@dataclasses.dataclass(frozen=True)
class Site:
    """A layer that can be measured and refitted.

    Attributes:
        path: Name of the layer.
        shape: Extent of its kernel.
        geometry: How it walks over its input.
        centred: Whether it can add a constant to each output.
        key: What its network finds it by.
    """

    path: str
    shape: KernelShape
    geometry: Geometry
    centred: bool
    key: Any = None


class Network(abc.ABC):
    """A model whose layers are measured and whose kernels are set.

    Attributes:
        sites: Layers in the order of execution.
    """

    sites: list[Site]

    @abc.abstractmethod
    def activations(self, site: Site, data: Any) -> Iterator[np.ndarray]:
        """Inputs of a layer, batch by batch: what `Geometry.columns` takes."""

    @abc.abstractmethod
    def batches(self, data: Any) -> int:
        """Number of batches that `activations` gives, at least."""

    @abc.abstractmethod
    def outputs(self, data: Any) -> list[np.ndarray]:
        """Outputs of the model, float32, all inputs in one array each."""

    def spread(self, data: Any) -> float | None:
        """How much values vary, over how much in training; None if that is unknown."""
        return None

    @abc.abstractmethod
    def kernel(self, site: Site) -> np.ndarray:
        """(positions, channels, outputs), float32."""

    @abc.abstractmethod
    def assign(self, site: Site, kernel: np.ndarray, shift: np.ndarray | None) -> None:
        """Sets a kernel, and adds `shift` to the constants of its outputs."""

    @abc.abstractmethod
    def state(self) -> Any:
        """All weights, for `restore`."""

    @abc.abstractmethod
    def restore(self, state: Any) -> None:
        """Sets all weights to what they were."""


class Walk:
    """Measures the layers of a network against its dense state.

    Args:
        network: The model; what it holds now is the dense state.
        data: Calibration inputs, as the network takes them.
        propagate: Measure each layer on the activations of the network as it is by
            then; else on those of the dense state.
        cut: Whether layers will have changed before `refit` is called.
    """

    def __init__(
        self, network: Network, data: Any, propagate: bool = True, cut: bool = False
    ):
        self.network = network
        self.data = data
        self.propagate = propagate
        self.dense = network.state()
        self._changed = cut

    def measure(self, site: Site) -> Problem:
        """The least-squares problem of a layer.

        Raises:
            ValueError: NaN or infinite activations; a layer that nothing reaches.
        """
        here = self.network.state()
        self.network.restore(self.dense)
        try:
            dense = self.network.kernel(site).reshape(-1, site.shape.outputs)
            inputs = self._rows(site)
            if self.propagate and self._changed:
                targets = [x @ dense for x in inputs]
                self.network.restore(here)
                pairs = zip(self._rows(site), targets, strict=True)
            else:
                pairs = ((x, x @ dense) for x in inputs)
            problem = Problem(dense, pairs, site.centred)
        except ValueError as error:
            raise ValueError(
                f"Layer {site.path!r}: {error} over the calibration data."
            ) from error
        finally:
            self.network.restore(here)
        if not problem.samples:
            raise ValueError(f"Layer {site.path!r} saw no input in calibration.")
        return problem

    def refit(self, site: Site, problem: Problem, keep: np.ndarray) -> float:
        """Sets the best kernel with these weights left; returns its loss.

        Args:
            site: The layer.
            problem: What `measure` returned for it.
            keep: Boolean, (columns, outputs).
        """
        weights = problem.solve(keep)
        self.network.assign(
            site,
            weights.reshape(site.shape).astype(np.float32),
            problem.shift(weights),
        )
        self._changed = True
        return problem.loss(weights)

    def _rows(self, site: Site) -> Iterator[np.ndarray]:
        """Rows of the layer's input matrix: the same positions in every state."""
        random = np.random.default_rng(0)
        share = None
        for batch in self.network.activations(site, self.data):
            count = site.geometry.positions(batch.shape)
            if share is None:
                batches = max(1, self.network.batches(self.data))
                limit = max(SAMPLES, SAMPLES_A_COLUMN * site.shape.columns)
                share = -(-limit // batches)
            chosen = None
            if count > share:
                chosen = np.sort(random.choice(count, share, replace=False))
            yield site.geometry.columns(batch, chosen)
