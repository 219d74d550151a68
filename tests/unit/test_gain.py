# SPDX-License-Identifier: Apache-2.0
"""The gain promised before training is the gain the packer then finds."""

import subprocess
import sys

import numpy as np
import pytest

from tfrewprune.payload.cost import LayerShape, default_cost_model
from tfrewprune.payload.gain import joint_gain, predicted_gain
from tfrewprune.payload.packer import pack_layer
from tfrewprune.structures import (
    Block,
    Column,
    KernelShape,
    Structure,
    Unstructured,
)

CONV = LayerShape(64, 9 * 64, 28 * 28, taps=9)


def gain_when_packed(shape: LayerShape, rate: float, structure: Structure) -> float:
    """What `convert` predicts for random weights pruned to the rate."""
    kernel = KernelShape(shape.taps, shape.channels, shape.rows)
    weights = np.random.default_rng(0).normal(size=tuple(kernel)).astype(np.float32)
    kept = structure.project(weights, kernel.weights / rate)
    matrix = np.ascontiguousarray(kept.reshape(shape.columns, shape.rows).T)
    packing = pack_layer(matrix, shape)
    return default_cost_model().dense(shape) / packing.predict(shape)


@pytest.mark.parametrize("rate", [2, 8])
@pytest.mark.parametrize(
    ("shape", "structure"),
    [
        (CONV, Block(16, 1)),
        (CONV, Block(8, 1)),
        (CONV, Block(64, 1)),
        (CONV, Column()),
        (CONV, Unstructured()),
        (LayerShape(40, 9 * 16, 100, taps=9), Block(16, 1)),
        (LayerShape(48, 256, 49), Block(24, 1)),
        (LayerShape(10, 512, 1), Block(16, 1)),
        (LayerShape(1000, 2048, 1), Block(16, 1)),
        (LayerShape(256, 1024, 1), Unstructured()),
    ],
    ids=str,
)
def test_promise_is_what_the_packer_finds(shape, structure, rate) -> None:
    kernel = KernelShape(shape.taps, shape.channels, shape.rows)
    rows = structure.rows_alike(kernel)
    promised = predicted_gain(shape, rate, rows)
    assert promised == pytest.approx(gain_when_packed(shape, rate, structure), rel=0.1)


def test_gain_grows_with_rate_and_with_rows_that_agree() -> None:
    gains = [predicted_gain(CONV, rate) for rate in (1, 2, 4, 8, 16)]
    assert gains == sorted(gains) and gains[0] < 1.5 and gains[3] > 5
    assert predicted_gain(CONV, 8, rows=16) > predicted_gain(CONV, 8, rows=1)


def test_a_small_layer_has_nothing_to_gain() -> None:
    assert predicted_gain(LayerShape(8, 9, 28 * 28, taps=9), 8) < 1


@pytest.mark.parametrize("arguments", [{"rate": 0.5}, {"rate": 8, "rows": 0}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="at least 1. Received"):
        predicted_gain(CONV, **arguments)


def test_needs_numpy_only() -> None:
    program = (
        "import sys, tfrewprune.payload.gain\n"
        "print(sorted({'keras', 'tensorflow', 'tfrewprune.wrappers'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_all_runs_of_a_matrix_gain_together():
    small = LayerShape(CONV.rows, CONV.columns, 4, CONV.taps)
    model = default_cost_model()
    alone = {size: predicted_gain(size, 8) for size in (CONV, small)}
    for size, gain in alone.items():
        assert joint_gain({size: 3}, 8) == pytest.approx(gain)
    dense = {CONV: model.dense(CONV), small: 50 * model.dense(small)}
    after = sum(dense[size] / alone[size] for size in dense)
    together = joint_gain({CONV: 1, small: 50}, 8)
    assert together == pytest.approx(sum(dense.values()) / after)
    assert joint_gain({CONV: 0}, 8) == joint_gain({}, 8) == 1


def test_calls_that_packing_slows_down_stay_dense():
    slow, model = LayerShape(8, 9, 28 * 28, taps=9), default_cost_model()
    assert joint_gain({slow: 2}, 8) == pytest.approx(predicted_gain(slow, 8))
    dense = model.dense(CONV) + model.dense(slow)
    after = model.dense(CONV) / predicted_gain(CONV, 8) + model.dense(slow)
    assert joint_gain({CONV: 1, slow: 1}, 8) == pytest.approx(dense / after)
