# SPDX-License-Identifier: Apache-2.0
"""Measured times of layers, and that constraints are met by them."""

import keras
import numpy as np
import pytest
from keras import layers

import tfrewprune as trp


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 32))
    x = layers.Conv2D(64, 3, activation="relu", name="wide")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    shared = layers.Conv2D(64, 1, name="shared")
    x = shared(shared(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(512, name="fully")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def test_measured_layers_meet_a_latency(model):
    recipe = trp.Recipe(
        [trp.Rule("wide"), trp.Rule("fully")], constraints={"latency_ms": "50%"}
    )
    before = model.get_weights()
    times = trp.measure_layers(model, recipe, (4, 16), seconds=0.02, verbose=False)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # What has no packed operator is left to the cost model.
    assert set(times) == {"wide", "shared", "fully", "head"}
    assert set(times["head"]) == {1} and set(times["fully"]) == {1, 4, 16}
    assert 0 < times["wide"][16] < times["wide"][1] < 50
    model.compile("adam", "mse")
    recipe = recipe.replace(layer_ms=times, method="Magnitude", retrain_epochs=0)
    cost = trp.compress(model, recipe).costs["latency_ms"]
    assert cost["reached"] <= cost["limit"]
    measured = sum(by_rate[1] for by_rate in times.values())
    assert cost["limit"] == pytest.approx(measured / 2)  # half of these


def test_what_cannot_be_timed(model):
    with pytest.raises(ValueError, match="expected rates above 1. Received: rates=.1,"):
        trp.measure_layers(model, trp.Recipe(rate=2), (1, 4))
    open_size = keras.Sequential(
        [keras.Input((None, None, 8)), layers.Conv2D(16, 3, name="conv")]
    )
    with pytest.raises(ValueError, match="no layer that can be timed by itself"):
        trp.measure_layers(open_size, trp.Recipe("conv", rate=2))


def test_the_times_of_all_calls_are_added_up(monkeypatch):
    sizes = [keras.Input((n, n, 32)) for n in (8, 4, 4)]
    head = layers.Conv2D(32, 3, padding="same", name="head")
    model = keras.Model(sizes, [head(size) for size in sizes])

    def timed(target, shape, rate, seconds):
        return 10.0 * shape[1], (9.0 if rate > 1 else 11.0) * shape[1]

    monkeypatch.setattr("tfrewprune.layer_times._measured_call", timed)
    recipe = trp.Recipe("head", rate=4)
    assert trp.measure_layers(model, recipe, (4,), verbose=False) == {
        "head": {1: 160.0, 4: 144.0}
    }
