# SPDX-License-Identifier: Apache-2.0
"""A ResNet-20 trained here on CIFAR-10: accuracy over rate by method and structure.

The network of He et al., "Deep Residual Learning for Image Recognition" (arXiv
1512.03385), section 4.2, n = 3, with projections where the width doubles: 270,000
weights, 41 million multiplications. Everything else is as in
:mod:`tfrewprune.experiments.resnet8`, but that the dense model is trained first, on the
45,000 images that do not validate, one for each seed.

An epoch is about 2.5 minutes on a core with ``avx512_bf16``: the whole table is for
machines with an accelerator. Run ``python -m tfrewprune.experiments.resnet20``;
``--quick`` for a trial of some minutes.
"""

from __future__ import annotations

import dataclasses

from tfrewprune.experiments import datasets, precision, resnet8, training
from tfrewprune.experiments.rows import Row
from tfrewprune.experiments.tables import Summary

ROWS = tuple(
    Row(structure, method, rate)
    for rate in (2.0, 4.0, 8.0)
    for structure in (
        "block-16x1",
        "block-16x1-alike",
        "pattern-and-connectivity",
        "single-weights",
    )
    for method in ("reweighted", "admm", "group-lasso", "gradual-fisher")
)


@dataclasses.dataclass(frozen=True)
class Plan(resnet8.Plan):
    """As :class:`tfrewprune.experiments.resnet8.Plan`.

    Attributes:
        dense_epochs: Training of the dense model from scratch.
    """

    dense_epochs: int = 100


QUICK = Plan(**vars(resnet8.QUICK), dense_epochs=1)


def resnet20():
    """Returns an untrained ResNet-20 for 32 x 32 x 3 images of 0 to 255."""
    import keras
    from keras import layers

    def convolution(x, filters: int, size: int, stride: int, name: str):
        x = layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(1e-4),
            name=name,
        )(x)
        return layers.BatchNormalization(name=f"{name}_norm")(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 64, offset=-2, name="scale")(inputs)
    x = layers.ReLU()(convolution(x, 16, 3, 1, "first"))
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, 4):
            name, stride = f"stage{stage}_block{block}", 1 + (stage > 1 and block == 1)
            y = layers.ReLU()(convolution(x, filters, 3, stride, f"{name}_a"))
            y = convolution(y, filters, 3, 1, f"{name}_b")
            if stride > 1:
                x = convolution(x, filters, 1, stride, f"{name}_across")
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(10, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="resnet20")


class ResNet20(resnet8.ResNet8):
    """The experiment; see the module."""

    name = "resnet20"
    title = "ResNet-20 on CIFAR-10"
    rows = ROWS
    start_name = "trained"
    methods = (start_name, "dense", *(row.name for row in rows))
    full_plan = Plan()
    quick_plan = QUICK

    def start(self, seed: int, data: datasets.ImageData):
        """Returns the dense model of a seed, trained on first use."""
        epochs, rate = self.plan.dense_epochs, self.plan.learning_rate

        def make():
            model = precision.for_training(resnet20())
            steps = training.step_count(data, epochs)
            training.compile_for(model, rate, steps, from_logits=False)
            model.fit(epochs=epochs, **self.fit_arguments(seed, data))
            return precision.for_deployment(model)

        return self.kept("start", seed, make)

    def goals(self, summary: Summary) -> list[tuple[str, bool]]:
        found = []
        for row in ROWS:
            same = [
                r for r in ROWS if (r.structure, r.rate) == (row.structure, row.rate)
            ]
            reached = {
                r.method: summary[r.name]["test_accuracy"]
                for r in same
                if "test_accuracy" in summary.get(r.name, {})
            }
            if row.method == "reweighted" and len(reached) == len(same):
                spread = summary[row.name]["test_accuracy_spread"]
                goal = f"{row.structure}, {row.rate:g}x: reweighted level with the best"
                best = max(reached.values())
                found.append((goal, reached["reweighted"] >= best - spread))
        return found


if __name__ == "__main__":
    ResNet20.main()
