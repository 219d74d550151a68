# SPDX-License-Identifier: Apache-2.0
"""What the demo found out, and the report it becomes."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from tfrewprune.benchmark.compare import Comparison
from tfrewprune.report import Bar, Curve, Figure, Layer, Report


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers of one model.

    Attributes:
        validation: In Keras, on the part that chose the pruning rate.
        test: In Keras, on the part that chose nothing.
        test_litert: On the test part, as run by LiteRT from the file.
    """

    validation: float
    test: float
    test_litert: float


@dataclass(frozen=True)
class DemoResult:
    """Everything the demo measured.

    Attributes:
        dense: Accuracy of the baseline.
        pruned: Accuracy of the pruned model.
        mac_rate: Multiplications of the whole model, dense / kept.
        chosen_rate: The rate asked of the pruned layers, chosen on the validation part.
        weight_rate: Weights of the whole model, dense / kept.
        tried: Rate to validation accuracy, in the order tried.
        comparison: Files, times and memory.
        layers: The layers, with their times.
        accuracy_curves: Validation accuracy over epochs.
        sparsity_curve: Sparsity over epochs.
        phases: Name, first and last epoch of each phase.
        test_examples: Size of the test part.
        seconds: Wall time of the demo.
        facts: Machine and versions.
    """

    dense: Accuracy
    pruned: Accuracy
    mac_rate: float
    chosen_rate: float
    weight_rate: float
    tried: dict[float, float]
    comparison: Comparison
    layers: list[Layer]
    accuracy_curves: list[Curve]
    sparsity_curve: Curve
    phases: list[tuple[str, int, int]]
    test_examples: int
    seconds: float
    facts: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serializable; masks are left to the report."""
        document = dataclasses.asdict(self)
        document["comparison"] = self.comparison.to_dict()
        for layer in document["layers"]:
            survivors = layer.pop("survivors")
            if survivors is not None:
                layer["groups"] = int(survivors.size)
                layer["groups_kept"] = int(survivors.sum())
        return document

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows of the one table: what the dense and the pruned model do."""
        heads = [
            "model",
            "test accuracy",
            "as run by LiteRT",
            "weights",
            "file",
            "memory",
            "ms",
            "speed",
        ]
        comparison = self.comparison
        weights = sum(layer.weights for layer in self.layers)
        kept = sum(layer.kept for layer in self.layers)
        rows = []
        for name, accuracy, count, size, cost, timing, speed in (
            (
                "dense, XNNPACK",
                self.dense,
                weights,
                comparison.dense_bytes,
                comparison.dense_cost,
                comparison.dense,
                "1.00x",
            ),
            (
                "pruned, tfrewprune",
                self.pruned,
                kept,
                comparison.packed_bytes,
                comparison.packed_cost,
                comparison.packed,
                f"{comparison.ratio.median:.2f}x",
            ),
        ):
            rows.append(
                [
                    name,
                    f"{accuracy.test:.2%}",
                    f"{accuracy.test_litert:.2%}",
                    f"{count:,}",
                    f"{size / 1000:,.0f} kB",
                    "-" if cost is None else f"{cost.resident_bytes / 1e6:.1f} MB",
                    f"{timing.median * 1e3:.4f}",
                    speed,
                ]
            )
        return heads, rows

    def report(self) -> Report:
        """The content of the HTML page."""
        comparison, ratio = self.comparison, self.comparison.ratio
        heads, rows = self.rows()
        gained = 100 * (self.pruned.test_litert - self.dense.test_litert)
        change = f"{gained:+.1f} points" if abs(gained) >= 0.05 else "the same"
        plural = "" if comparison.threads == 1 else "s"
        return Report(
            title="A digit classifier, pruned in blocks and run in LiteRT",
            summary=(
                f"With {self.weight_rate:.1f} times fewer weights and "
                f"{self.mac_rate:.1f} times fewer multiplications it runs "
                f"{ratio.median:.1f} times faster than LiteRT's own dense kernels, on "
                f"{comparison.threads} thread{plural} of the same processor."
            ),
            figures=[
                Figure(
                    f"{ratio.median:.2f}x",
                    "faster",
                    f"{comparison.dense.median * 1e3:.3f} ms to "
                    f"{comparison.packed.median * 1e3:.3f} ms",
                ),
                Figure(
                    f"{comparison.dense_bytes / comparison.packed_bytes:.1f}x",
                    "smaller file",
                    f"{comparison.dense_bytes / 1000:,.0f} kB to "
                    f"{comparison.packed_bytes / 1000:,.0f} kB",
                ),
                Figure(
                    f"{self.pruned.test_litert:.1%}",
                    "test accuracy",
                    f"as run by LiteRT; dense {self.dense.test_litert:.1%}: {change}",
                ),
                Figure(
                    f"{self.weight_rate:.1f}x",
                    "fewer weights",
                    "all layers, those left dense included",
                ),
            ],
            columns=heads,
            rows=rows,
            latency=[
                _bar("dense, XNNPACK", comparison.dense, False),
                _bar("pruned, tfrewprune", comparison.packed, True),
            ],
            layers=self.layers,
            accuracy=self.accuracy_curves,
            sparsity=self.sparsity_curve,
            phases=self.phases,
            notes=self._notes(),
            facts=list(self.facts.items()),
        )

    def _notes(self) -> list[str]:
        comparison = self.comparison
        tried = ", ".join(
            f"{rate:g}x: {accuracy:.2%}" for rate, accuracy in self.tried.items()
        )
        return [
            "Data: the 1797 handwritten digits in scikit-learn, drawn out from 8x8 to "
            "16x16, split 60/20/20 with equal class balance. The pruning rate was "
            "chosen on the validation part (rates tried, with their validation "
            f"accuracy: {tried}; dense {self.dense.validation:.2%}). The "
            f"{self.test_examples} test digits were looked at once, at the end; one "
            f"digit is {1 / self.test_examples:.2%}.",
            "Training: baseline and pruned model start from the same weights and get "
            "the same number of epochs, batch size and optimizer. The pruned model "
            "spends its epochs on a warm-up, on training under the reweighted penalty, "
            "and on retraining under the fixed mask.",
            "Time: both models run in one process, in short blocks that alternate, "
            f"{comparison.rounds} rounds, one image at a time, after their outputs "
            f"were compared (largest difference {comparison.error:.1e} of the largest "
            "output between the packed model and the same weights run dense). The "
            "dense side is LiteRT's own XNNPACK. One thread is timed by the processor "
            "time it takes, so that other programs do not count; more threads by the "
            "wall clock. Memory is what a fresh process grows "
            "by until the end of its first inference.",
            "Each layer's own time is measured with the layer cut out into a model of "
            "its own.",
        ]


def _bar(label: str, timing, ours: bool) -> Bar:
    return Bar(label, timing.median, timing.p10, timing.p90, ours)
