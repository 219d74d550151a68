# SPDX-License-Identifier: Apache-2.0
"""What `convert` did, layer by layer, and in one summary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tfrewprune.converter import options
from tfrewprune.converter.plan import Decision
from tfrewprune.converter.reasons import SkipReason
from tfrewprune.converter.sized import Shapes


@dataclass(frozen=True)
class LayerReport:
    """What became of one operator with weights.

    Attributes:
        name: Its name, from the output tensor.
        op: The operator it was, such as `CONV_2D`.
        packed: Whether it is packed in the result.
        skip: Why it was left dense; None when it is packed.
        reason: The same as a sentence that tells what was found.
        predicted_dense_ms: Predicted time of the dense layer on one thread; None for
            layers that cannot be packed and those that came packed.
        predicted_ms: Predicted time of the layer as it is in the result.
        measured_dense_ms: Time of the dense layer on one thread of this machine; None
            unless `convert(measure=True)` decided by it.
        measured_packed_ms: The same of the packed layer.
    """

    name: str
    op: str
    packed: bool
    skip: SkipReason | None = None
    reason: str | None = None
    predicted_dense_ms: float | None = None
    predicted_ms: float | None = None
    measured_dense_ms: float | None = None
    measured_packed_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict that `json.dumps` takes."""
        return asdict(self) | {"skip": self.skip and self.skip.name}


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did with a model.

    Attributes:
        layers: Every operator with weights, in execution order.
        bytes_before: Bytes of the model before, as a `.tflite` file.
        bytes_after: Bytes of the result.
        difference: Largest difference of outputs found, relative to the largest
            magnitude of an output; None if the models were not run.
        shapes: Shapes of the inputs that times are for, where sizes are open; None
            where they are not, or where one pixel or step was counted.

    Example:
        >>> print(trp.convert(model, "model.tflite").report)  # doctest: +SKIP
        12 of 14 layers packed; 1,204 kB before, 310 kB after: 3.88x smaller.
        predicted on one thread: 4.21 ms before, 1.30 ms after.
        left dense: 2 because none of their weights is 0 (stem, logits).
    """

    layers: tuple[LayerReport, ...]
    bytes_before: int
    bytes_after: int
    difference: float | None = None
    shapes: Shapes | None = None

    @property
    def packed(self) -> list[LayerReport]:
        """The layers that are packed in the result."""
        return [layer for layer in self.layers if layer.packed]

    @property
    def left_dense(self) -> dict[SkipReason, list[LayerReport]]:
        """The other layers by their reason, the commonest first."""
        found: dict[SkipReason, list[LayerReport]] = defaultdict(list)
        for layer in self.layers:
            if layer.skip is not None:
                found[layer.skip].append(layer)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    @property
    def why_dense(self) -> str:
        """How many layers are left dense for which reason, with some of their names."""
        parts = []
        for skip, layers in self.left_dense.items():
            names = ", ".join(layer.name for layer in layers[:3])
            more = ", ..." if len(layers) > 3 else ""
            parts.append(f"{len(layers)} because {skip.value} ({names}{more})")
        return "; ".join(parts)

    @property
    def predicted_dense_ms(self) -> float:
        """Predicted time of the layers whose time is known, before."""
        return sum(layer.predicted_dense_ms or 0 for layer in self.layers)

    @property
    def predicted_ms(self) -> float:
        """Predicted time of the same layers in the result."""
        return sum(layer.predicted_ms or 0 for layer in self.layers)

    @property
    def measured(self) -> str:
        """What measuring decided, in a sentence; empty where nothing was measured."""
        timed = [layer for layer in self.layers if layer.measured_dense_ms is not None]
        if not timed:
            return ""
        kept = [layer for layer in timed if layer.packed]
        dense = sum(layer.measured_dense_ms for layer in kept)
        packed = sum(layer.measured_packed_ms for layer in kept)
        return (
            f"decided by measuring here, one thread: {len(kept)} of {len(timed)} "
            f"layers run packed, {dense:.3g} ms before, {packed:.3g} ms after."
        )

    @property
    def _sizes(self) -> str:
        return f" for inputs of {describe_shapes(self.shapes)}" if self.shapes else ""

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict that `json.dumps` takes."""
        return {
            "layers": [layer.to_dict() for layer in self.layers],
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "predicted_dense_ms": self.predicted_dense_ms,
            "predicted_ms": self.predicted_ms,
            "difference": self.difference,
            "shapes": self.shapes and [list(shape) for shape in self.shapes],
        }

    def __str__(self) -> str:
        lines = [
            f"{len(self.packed)} of {len(self.layers)} layers packed; "
            f"{self.bytes_before / 1000:,.0f} kB before, "
            f"{self.bytes_after / 1000:,.0f} kB after: "
            f"{size_change(self.bytes_before, self.bytes_after)}.",
            f"predicted on one thread{self._sizes}: {self.predicted_dense_ms:.3g} ms "
            f"before, "
            f"{self.predicted_ms:.3g} ms after.",
        ]
        if self.measured:
            lines.append(self.measured)
        if self.left_dense:
            lines.append(f"left dense: {self.why_dense}.")
        return "\n".join(lines)


class Converted(bytes):
    """The bytes of a converted model, with the report of the conversion.

    Attributes:
        report: The `ConversionReport`.
    """

    report: ConversionReport

    def __new__(cls, content: bytes, report: ConversionReport) -> Converted:
        made = super().__new__(cls, content)
        made.report = report
        return made

    def __getnewargs__(self) -> tuple[bytes, ConversionReport]:
        return bytes(self), self.report

    def __repr__(self) -> str:
        # Not megabytes of escapes at the prompt.
        packed, layers = len(self.report.packed), len(self.report.layers)
        return f"<Converted: {len(self)} bytes, {packed} of {layers} layers packed>"

    __str__ = __repr__


def make_report(
    decisions: list[Decision],
    before: bytes,
    after: bytes,
    difference: float | None,
    shapes: Shapes | None = None,
) -> ConversionReport:
    """Returns the report of decisions that were carried out."""
    layers = tuple(map(_layer_report, decisions))
    return ConversionReport(layers, len(before), len(after), difference, shapes)


def _layer_report(decision: Decision) -> LayerReport:
    layer = decision.layer
    after = decision.packed_us if decision.packs else decision.dense_us
    measured = decision.measured_us or (None, None)
    return LayerReport(
        name=layer.name,
        op=options.BUILTIN_NAMES.get(layer.op, layer.op),
        packed=decision.packs or layer.packed,
        skip=decision.skip,
        reason=None if layer.packed else decision.reason,
        predicted_dense_ms=_ms(decision.dense_us),
        predicted_ms=_ms(after),
        measured_dense_ms=_ms(measured[0]),
        measured_packed_ms=_ms(measured[1]),
    )


def _ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def describe_shapes(shapes: Sequence[Sequence[int]]) -> str:
    """Returns "1x32x32x3, 1x8" of the shapes of two inputs."""
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def size_change(before: int, after: int) -> str:
    """Returns "4.00x smaller", or "1.60x larger" for a file that grew."""
    if after > before:
        return f"{after / before:.2f}x larger"
    return f"{before / after:.2f}x smaller"


def describe_nothing_packed(report: ConversionReport) -> str:
    """Returns the sentence for a result without packed layers."""
    left = report.left_dense
    if not left:
        return "convert packed no layer: the model has no operator with weights."
    # Operators that nobody can pack tell nothing about those that could have been.
    others = [skip for skip in left if skip is not SkipReason.OPERATOR]
    skip = others[0] if others else SkipReason.OPERATOR
    example = left[skip][0]
    return (
        f"convert packed none of {len(report.layers)} layers, {len(left[skip])} of "
        f"them because {skip.value} ({example.name}: {example.reason}). "
        "`tfrewprune inspect` and tfrewprune.inspect_model tell the reason of each."
    )
