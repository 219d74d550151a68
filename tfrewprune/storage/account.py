# SPDX-License-Identifier: Apache-2.0
"""Sizes of a model's weights under every storage scheme."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from tfrewprune.storage.plot import plot_sizes
from tfrewprune.storage.reading import Matrix, matrices
from tfrewprune.storage.schemes import SCHEMES, Coding, best, worth_keeping
from tfrewprune.text import aligned

COLUMNS = ("dense", "payload", *SCHEMES, "packed")


@dataclasses.dataclass(frozen=True)
class LayerAccount:
    """One weight matrix.

    Attributes:
        layer: Its name.
        shape: (outputs, kernel positions, channels).
        weights: Their number.
        kept: Those other than 0.
        stored_bits: Of a weight in the model.
        codings: By scheme the ways that can be the smallest; empty where it does not
            apply.
        packed_bytes: Of this package's payload, in the file or as it would be, header
            and alignment included, with `stored_bits` a weight.
        shared: How many operators of a `.tflite` file read it, such as the calls of a
            layer that is called several times; it is counted once.
    """

    layer: str
    shape: tuple[int, int, int]
    weights: int
    kept: int
    stored_bits: int
    codings: dict[str, tuple[Coding, ...]]
    packed_bytes: int | None = None
    shared: int = 1

    def bytes(self, scheme: str, bits: float | None = None) -> int | None:
        """Size under a scheme.

        Args:
            scheme: `"dense"`, `"payload"` (surviving weights alone, no index), one of
                `SCHEMES`, or `"packed"`.
            bits: Of a weight; None for `stored_bits`.

        Returns:
            Bytes; None where the scheme does not apply, or for packed weights of other
            bits than the model's.

        Raises:
            ValueError: There is no such scheme.
        """
        width = self.stored_bits if bits is None else bits
        if scheme == "dense":
            return Coding(self.weights, 0).bytes(width)
        if scheme == "payload":
            return Coding(self.kept, 0).bytes(width)
        if scheme == "packed":
            return self.packed_bytes if width == self.stored_bits else None
        if scheme not in SCHEMES:
            raise ValueError(
                f"Unknown storage scheme {scheme!r}. Expected one of {list(COLUMNS)}."
            )
        coding = best(self.codings[scheme], width)
        return None if coding is None else coding.bytes(width)

    def how(self, scheme: str, bits: float | None = None) -> str:
        """What the scheme chose for the layer, such as `4-bit gaps`."""
        width = self.stored_bits if bits is None else bits
        coding = best(self.codings[scheme], width)
        return "" if coding is None else coding.how


@dataclasses.dataclass(frozen=True)
class Account:
    """What `accounting` found.

    Attributes:
        layers: One a weight matrix.
        bits: Of a weight, as asked for; None for what the model stores.
    """

    layers: list[LayerAccount]
    bits: float | None = None

    @property
    def kept(self) -> int:
        """Weights other than 0."""
        return sum(layer.kept for layer in self.layers)

    @property
    def weights(self) -> int:
        """All weights of the matrices."""
        return sum(layer.weights for layer in self.layers)

    def total(self, scheme: str, bits: float | None = None) -> int | None:
        """Bytes of all matrices; dense ones where the scheme would be larger.

        Args:
            scheme: As for `LayerAccount.bytes`.
            bits: Of a weight; None for the account's own.

        Returns:
            Bytes; None where the scheme applies to no matrix.
        """
        width = self.bits if bits is None else bits
        sizes = [
            (layer.bytes(scheme, width), layer.bytes("dense", width))
            for layer in self.layers
        ]
        if all(size is None for size, _ in sizes):
            return None
        return sum(dense if size is None else min(dense, size) for size, dense in sizes)

    def at(self, bits: float | None) -> Account:
        """The same weights with other bits a weight."""
        return dataclasses.replace(self, bits=_checked(bits))

    def plot(
        self, path: str | os.PathLike[str], bits: Sequence[float] = (32, 8, 4, 2)
    ) -> None:
        """Draws all schemes' sizes at several bits a weight; needs matplotlib.

        Args:
            path: `.svg`, `.png` or `.pdf` file to write.
            bits: Of a weight, one group of bars each.
        """
        dense = self.total("dense", 32)
        sizes = {
            scheme: [self.total(scheme, each) for each in bits]
            for scheme in ("payload", *SCHEMES)
        }
        shares = {
            scheme: [100 * size / dense for size in found]
            for scheme, found in sizes.items()
            if None not in found
        }
        title = f"{self.kept:,} of {self.weights:,} weights, indices counted"
        plot_sizes(shares, bits, title, path)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serializable."""
        return {
            "bits": self.bits,
            "weights": self.weights,
            "kept": self.kept,
            "bytes": {scheme: self.total(scheme) for scheme in COLUMNS},
            "layers": [
                {
                    "layer": layer.layer,
                    "shape": list(layer.shape),
                    "weights": layer.weights,
                    "kept": layer.kept,
                    "shared": layer.shared,
                    "bytes": {
                        scheme: layer.bytes(scheme, self.bits) for scheme in COLUMNS
                    },
                    "how": {scheme: layer.how(scheme, self.bits) for scheme in SCHEMES},
                }
                for layer in self.layers
            ],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table: a line a layer, totals, and bits a surviving weight."""
        lines = []
        for layer in self.layers:
            sizes = (layer.bytes(scheme, self.bits) for scheme in COLUMNS)
            name = layer.layer + (f" ({layer.shared}x)" if layer.shared > 1 else "")
            lines.append((name, f"{layer.kept / layer.weights:.1%}", *sizes))
        totals = [self.total(scheme) for scheme in COLUMNS]
        share = self.kept / self.weights if self.weights else 1.0
        lines.append(("total", f"{share:.1%}", *totals))
        cells = [
            tuple(
                cell if isinstance(cell, str) else "-" if cell is None else f"{cell:,}"
                for cell in line
            )
            for line in lines
        ]
        each = (
            f"{8 * size / self.kept:.2f}" if size is not None and self.kept else "-"
            for size in totals
        )
        return [*cells, ("bits a kept weight", "", *each)]

    def __str__(self) -> str:
        table = [("layer", "kept", *COLUMNS), *self.rows()]
        return "\n".join(aligned(table, least=18))


def accounting(model: Any, bits: float | None = None) -> Account:
    """What a model's weights need in bytes under every storage scheme, indices counted.

    The check of "non-structured considered harmful" (Ma et al., arXiv 1907.02124) on a
    model of one's own: single weights need an index each, which with few bits a weight
    costs more than the weight. Schemes: gap indices, compressed sparse rows, a bitmap,
    blocks with surviving rows and columns, kernel patterns, each at its best for each
    layer; dense; the payload alone; and this package's packed payload as it is.

    Args:
        model: A Keras model, what `compress` returned, or a `.keras` file; or a
            `.tflite` file, dense or packed, as bytes or path.
        bits: Of a weight, after quantization; None for what the model stores.

    Returns:
        An `Account`. `print` it for a table, or `account.plot("sizes.svg")`. Vectors
        such as biases are not counted: they are the same under every scheme.

    Raises:
        ValueError: Bits that are not positive; no weight matrix; a damaged file.
        OSError: A file cannot be read.

    Example:

    >>> account = accounting("pruned.tflite", bits=4)  # doctest: +SKIP
    >>> account.total("block") / account.total("gap")  # doctest: +SKIP
    """
    checked = _checked(bits)
    layers = [_layer(matrix) for matrix in matrices(model)]
    if not layers:
        raise ValueError("The model has no weight matrix whose storage could be told.")
    return Account(layers, checked)


def _checked(bits: float | None) -> float | None:
    if bits is not None and not 0 < bits <= 64:
        raise ValueError(
            f"Bits of a weight must be above 0 and at most 64. Received: bits={bits!r}"
        )
    return bits


def _layer(matrix: Matrix) -> LayerAccount:
    rows, columns = matrix.mask.shape
    return LayerAccount(
        layer=matrix.name,
        shape=(rows, matrix.taps, columns // matrix.taps),
        weights=matrix.mask.size,
        kept=int(matrix.mask.sum()),
        stored_bits=matrix.bits,
        codings={
            name: worth_keeping(codings(matrix.mask, matrix.taps))
            for name, codings in SCHEMES.items()
        },
        packed_bytes=matrix.packed_bytes,
        shared=matrix.shared,
    )
