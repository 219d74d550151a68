# SPDX-License-Identifier: Apache-2.0
"""Nearly empty filters and channels go, and dead paths are masked for training."""

import keras
import numpy as np
import pytest

import tfrewprune as trp
from tfrewprune.pipeline.purification import nearly_full

layers = keras.layers


def test_what_is_empty_and_small_goes_and_nothing_else():
    kernel = np.ones((4, 5, 6), np.float32)
    kernel[:3, 0] = 0  # three quarters of channel 0 are empty,
    kernel[3, 0] *= 0.01  # and the rest is small
    kernel[:3, 1] = 0  # channel 1 is as empty, not small
    kernel[:, 2] *= 0.01  # channel 2 is small, not empty
    kernel[:, 3:, 5] = kernel[:2, :3, 5] = 0
    kernel[2:, :3, 5] *= 0.01  # filter 5 is both
    keep = nearly_full(kernel, importance=0.1, emptiness=0.5)
    expected = np.ones(kernel.shape, bool)
    expected[:, 0] = expected[:, :, 5] = False
    np.testing.assert_array_equal(keep, expected)
    assert nearly_full(kernel, importance=0, emptiness=0.5).all()
    assert nearly_full(kernel, importance=0.1, emptiness=0.9).all()


def test_the_last_filter_and_channel_stay():
    kernel = np.zeros((1, 3, 3), np.float32)
    kernel[0, 0, 0] = 1e-3
    assert nearly_full(kernel, importance=1, emptiness=0)[0, 0, 0]


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((9, 9, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="a"),
            layers.Conv2D(10, 3, padding="same", use_bias=False, name="b"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.Conv2D(6, 1, name="c"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="d"),
        ]
    )
    model.compile("adam", "mse")
    weights = model.get_layer("a").get_weights()
    weights[1] = np.linspace(0.1, 0.8, 8)
    model.get_layer("a").set_weights(weights)
    return model


def cut(name, **where):
    """A network of which one layer has lost filters or channels."""
    model = network()
    weights = model.get_layer(name).get_weights()
    for axis, channels in where.items():
        place = (..., channels) if axis == "filters" else (..., channels, slice(None))
        weights[0][place] = 0
    model.get_layer(name).set_weights(weights)
    recipe = trp.Recipe(
        trp.Rule(["a", "b", "c"], structure=trp.Filter()),
        method="Magnitude",
        threshold=1e-9,
    )
    trp.hard_prune(model, recipe)
    return model, recipe


def test_a_channel_of_an_empty_filter_is_masked_and_its_constant_moves_on():
    model, recipe = cut("a", filters=[1, 4])
    inner = np.random.default_rng(0).normal(size=(1, 9, 9, 3)).astype("float32")
    part = keras.Model(model.inputs, model.get_layer("norm").output)
    expected = np.asarray(part(inner))
    rows = trp.purify(model, recipe, importance=0)
    kernel = model.get_layer("b").get_weights()[0]
    assert not kernel[:, :, [1, 4]].any() and kernel[:, :, 0].any()
    # All but the edges come out as before.
    found = np.asarray(part(inner))
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-5)
    assert not np.allclose(found, expected, atol=1e-5)
    kept = {row.layer: row.kept for row in rows}
    assert kept["b"] == 9 * 6 * 10
    model.fit(np.ones((4, 9, 9, 3)), np.ones((4, 2)), verbose=0)
    assert not model.get_layer("b").get_weights()[0][:, :, [1, 4]].any()
    assert {r.layer: r.channels_left for r in trp.shrink(model).layers}["a"] == 6


def test_a_dead_filter_in_front_of_a_depthwise_layer_can_go_afterwards():
    model, recipe = cut("b", filters=[0, 1, 2])
    weights = model.get_layer("norm").get_weights()
    model.get_layer("norm").set_weights([weights[0], np.ones(10), *weights[2:]])
    before = {r.layer: r.channels_left for r in trp.shrink(model).layers}
    trp.purify(model, recipe, importance=0)
    after = {r.layer: r.channels_left for r in trp.shrink(model).layers}
    assert before["depthwise"] == 10 and after["depthwise"] == after["b"] == 7


def test_filters_that_nobody_reads_are_masked():
    model, recipe = cut("c", channels=[2, 3])
    trp.purify(model, recipe, importance=0)
    assert not model.get_layer("b").get_weights()[0][..., [2, 3]].any()


def test_purification_is_a_step_of_compress_and_lowers_the_count():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 9, 9, 3)), rng.normal(size=(64, 2))
    rule = trp.Rule(["a", "b", "c"], structure=trp.Column(), rate=4)
    plain = trp.Recipe(rule, method="Magnitude", retrain_epochs=1)
    purified = plain.replace(purify=0.5, shrink=True)
    assert trp.Recipe.from_json(purified.to_json()) == purified
    results = [trp.compress(network(), r, x, y, verbose=0) for r in (plain, purified)]
    assert results[1].pruned_rate > results[0].pruned_rate
    assert results[1].model.count_params() < results[0].model.count_params()
    assert results[0].shrunk is None and results[1].shrunk.difference < 1e-4


@pytest.mark.parametrize("argument", ["importance", "emptiness"])
def test_shares_are_between_0_and_1(argument):
    model, recipe = cut("a", filters=[0])
    with pytest.raises(ValueError, match=f"`{argument}` must be between 0 and 1.*: 2"):
        trp.purify(model, recipe, **{argument: 2})
    with pytest.raises(ValueError, match="between 0 and 1. Received: purify=2"):
        recipe.replace(purify=2)
