# SPDX-License-Identifier: Apache-2.0
"""LeNet-5 on levels: all layers binary, and pruned and quantized for size.

The network, the data, their shifts and the dense start are those of
:mod:`tfrewprune.experiments.lenet5`. A row of a rate first prunes single weights by
``gradual-fisher``, as a row does there, then quantizes what is left; the pruned model
is kept and shared by the rows of its rate and length.

Sizes are those of the 430,500 weights alone, without biases, over 32 bits each:
``size_ratio`` counts the bits of the weights that are left, ceil(log2(2 M + 1)) for M
levels of each sign, and nothing else, as ADMM-NN (arXiv 1812.11677) does for its
1,910x. ``size_ratio_with_index`` adds a relative index (the gap to the weight before,
with filler weights where it is too large, in the number of bits that is best for the
layer) and 32 bits for each scale.

Choices were made on the last 5,000 training images. The test set is read only by the
stage ``measure``. Run ``python -m tfrewprune.experiments.quantized``; ``--quick`` for a
trial of a minute.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfrewprune.experiments import datasets, precision, training
from tfrewprune.experiments.experiment import count_weights
from tfrewprune.experiments.lenet5 import LAYERS, QUICK, WEIGHTS, LeNet5, Plan
from tfrewprune.experiments.rows import Row
from tfrewprune.experiments.tables import Summary
from tfrewprune.storage.schemes import gap_codings


@dataclasses.dataclass(frozen=True)
class QuantizedRow:
    """One row of the table.

    Attributes:
        levels: Of all layers: bits, or the name of a set.
        method: Of :class:`tfrewprune.Quantization`; ``rounds`` are those of ``admm``
            without the phase before them.
        rate: What pruning is asked for before; None for the dense model.
        length: Of the pruning, as in :class:`tfrewprune.experiments.rows.Row`.
    """

    levels: int | str
    method: str
    rate: float | None = None
    length: str = "short"

    @property
    def name(self) -> str:
        levels = f"{self.levels}-bit" if isinstance(self.levels, int) else self.levels
        pruned = () if self.rate is None else (f"{self.rate:g}x",)
        longer = () if self.length == "short" else (self.length,)
        return "_".join((levels, self.method, *pruned, *longer))


ROWS = (
    QuantizedRow("binary", "straight-through"),
    QuantizedRow("binary", "admm"),
    *(
        QuantizedRow(3, method, 180)
        for method in ("straight-through", "admm", "rounds")
    ),
    QuantizedRow(3, "rounds", 180, "long"),
    QuantizedRow("ternary", "rounds", 120),
    QuantizedRow(4, "rounds", 240),
)


@dataclasses.dataclass(frozen=True)
class QuantizedPlan(Plan):
    """As :class:`tfrewprune.experiments.lenet5.Plan`.

    Attributes:
        quantization_epochs: All phases of a quantization together.
    """

    quantization_epochs: int = 12


class Quantized(LeNet5):
    """The experiment; see the module."""

    name = "quantized"
    title = "LeNet-5 on MNIST, weights on levels"
    methods = ("dense", *(row.name for row in ROWS))
    full_plan = QuantizedPlan()
    quick_plan = QuantizedPlan(**vars(QUICK), quantization_epochs=2)

    def train(
        self, method: str, seed: int, data: datasets.ImageData
    ) -> tuple[Any, dict]:
        if method == "dense":
            return super().train(method, seed, data)
        import tfrewprune

        (row,) = (row for row in ROWS if row.name == method)
        model = self._source(row, seed, data)
        whole = self.plan.quantization_epochs
        epochs, rounds = {
            "straight-through": (whole, 0),
            "admm": (whole // 2, whole // 2),
            "rounds": (0, whole),
        }[row.method]
        quantization = tfrewprune.Quantization(
            row.levels,
            method="admm" if rounds else row.method,
            epochs=epochs,
            freeze_epochs=rounds,
            refreshes=19,
            share=0.3,
            rounds=20,
        )
        model = precision.for_training(model)
        epochs = max(epochs, rounds)
        # The last weights that are free need the rate of the first to make up for all.
        constant = row.method == "rounds"
        steps = None if constant else training.step_count(data, epochs)
        training.compile_for(model, self.plan.learning_rate, steps)
        fit = self._fit(seed, data)
        result = tfrewprune.quantize(model, quantization, **fit)
        model = precision.for_deployment(result.model)
        return model, {
            "row": dataclasses.asdict(row),
            "quantization": quantization.get_config(),
            "scores": result.scores,
            "levels": [layer.to_dict() for layer in result.layers],
            **sizes(model, quantization.levels),
            "weights": WEIGHTS,
            "rate": WEIGHTS / count_weights(model)["kept"],
        }

    def _source(self, row: QuantizedRow, seed: int, data: datasets.ImageData):
        """The model that is quantized: dense, or pruned on first use."""
        if row.rate is None:
            return self.start(seed, data)
        pruning = Row("single-weights", "gradual-fisher", row.rate, row.length)
        return self.kept(
            pruning.name, seed, lambda: self.pruned(pruning, seed, data)[0]
        )

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        records = self.log.records()
        found = []
        for goal, least, smallest in (
            ("all layers binary: test accuracy >= 99.2%", 0.992, None),
            (
                "size ratio >= 1,910x (weights alone), test accuracy >= 99.0%",
                0.99,
                1910,
            ),
        ):
            rows = [row for row in ROWS if (row.rate is None) == (smallest is None)]
            reached = [
                summary.get(row.name, {}).get("test_accuracy", 0) >= least
                and all(
                    record["size_ratio"] >= (smallest or 0)
                    for record in records
                    if record["method"] == row.name and record["stage"] == "train"
                )
                for row in rows
                if "test_accuracy" in summary.get(row.name, {})
            ]
            found += [(goal, any(reached))] if reached else []
        return found


def sizes(model, levels) -> dict[str, float]:
    """How many times smaller the weights are than 430,500 of 32 bits.

    Args:
        model: A LeNet-5 on levels.
        levels: :class:`tfrewprune.Levels` of all layers.
    """
    import keras

    kernels = [
        keras.ops.convert_to_numpy(model.get_layer(name).kernel) for name in LAYERS
    ]
    bits = levels.bits
    if any((kernel == 0).any() for kernel in kernels):
        bits = levels.bits_beside_zero
    payload = bits * sum(map(np.count_nonzero, kernels))
    whole = sum(32 * levels.scale(kernel).size for kernel in kernels)
    whole += sum(indexed_bits(kernel, bits) for kernel in kernels)
    return {
        "payload_bits": int(payload),
        "size_ratio": 32 * WEIGHTS / payload,
        "size_ratio_with_index": 32 * WEIGHTS / whole,
    }


def indexed_bits(kernel: np.ndarray, bits: int) -> int:
    """Bits of a kernel stored as its non-zero weights, each behind its gap.

    A gap of k bits skips up to 2^k - 1 zeros; a longer one costs filler weights. The
    best k counts; without zeros no index is needed.

    Args:
        kernel: Weights of any shape.
        bits: Of a weight.
    """
    mask = kernel != 0
    if mask.all():
        return bits * kernel.size
    return min(
        coding.values * bits + coding.metadata_bits for coding in gap_codings(mask, 1)
    )


if __name__ == "__main__":
    Quantized.main()
