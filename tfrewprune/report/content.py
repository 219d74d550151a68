# SPDX-License-Identifier: Apache-2.0
"""What a report says, without how it looks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One number a reader should see first.

    Attributes:
        value: The number with its unit, as text.
        label: What it is.
        note: Where it comes from, in a few words.
    """

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """One time, with its spread.

    Attributes:
        label: What ran.
        seconds: Median.
        low: 10th percentile.
        high: 90th percentile.
        ours: Whether it is our side of the comparison.
    """

    label: str
    seconds: float
    low: float
    high: float
    ours: bool


@dataclass(frozen=True)
class Curve:
    """Something that was logged after every epoch.

    Attributes:
        label: What it is.
        values: One value an epoch.
        start: Epochs that came before the first value.
        dashed: Whether to draw it dashed (a baseline).
    """

    label: str
    values: Sequence[float]
    start: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Layer:
    """One layer with weights.

    Attributes:
        name: Its name.
        kind: Conv2D, Dense, ...
        shape: Shape of its weights.
        weights: Their number.
        kept: How many survived.
        structure: What was removed together, or "" for a dense layer.
        survivors: Boolean `[bands, columns]`: which groups survived; columns are
            (kernel position, input channel). None when dense.
        dense_seconds: Time of the layer by itself in dense, if measured.
        packed_seconds: Time of the packed layer by itself, if measured.
        note: Why it is dense, or something else a reader should know.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    structure: str = ""
    survivors: np.ndarray | None = None
    dense_seconds: float | None = None
    packed_seconds: float | None = None
    note: str = ""

    @property
    def rate(self) -> float:
        """Weights over surviving weights."""
        return self.weights / self.kept if self.kept else float("inf")

    @property
    def speed_up(self) -> float | None:
        """How many times faster packed is, if both were measured."""
        if self.dense_seconds is None or self.packed_seconds is None:
            return None
        return self.dense_seconds / self.packed_seconds


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
        title: Headline.
        summary: One or two sentences below it.
        figures: The numbers to see first.
        columns: Heads of the comparison table.
        rows: Its rows, as text.
        latency: Bars of the whole model.
        layers: Layers in the order of the model.
        accuracy: Curves of the validation accuracy over epochs.
        sparsity: Curve of the sparsity during training, or None.
        phases: (name, first epoch, last epoch + 1) of the pruned model's training.
        notes: How it was measured, one paragraph each.
        facts: (name, value) pairs about machine and versions.
    """

    title: str
    summary: str
    figures: Sequence[Figure]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    latency: Sequence[Bar]
    layers: Sequence[Layer]
    accuracy: Sequence[Curve] = ()
    sparsity: Curve | None = None
    phases: Sequence[tuple[str, int, int]] = ()
    notes: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
