# SPDX-License-Identifier: Apache-2.0
"""Filters that are alike come side by side, and the model computes the same."""

import keras
import numpy as np
import pytest

import tfrewprune as trp

layers = keras.layers


def planted(names, seed=0, groups=3):
    """Gives every kernel of (.., inputs, 48) filters of `groups` kinds, mixed up."""
    random = np.random.default_rng(seed)

    def plant(model):
        for name in names:
            layer = model.get_layer(name)
            kernel, *bias = layer.get_weights()
            columns = kernel.reshape(-1, kernel.shape[-1])
            kind = random.permutation(np.repeat(np.arange(groups), 48 // groups))
            owner = random.permutation(len(columns)) % groups
            columns[:] = 0.01 * random.standard_normal(columns.shape)
            columns[owner[:, None] == kind] += 1
            layer.set_weights([columns.reshape(kernel.shape), *bias])
        return model

    return plant


def convolutional():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 6)),
            layers.Conv2D(48, 3, padding="same", use_bias=False, name="a"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Conv2D(48, 1, name="b"),
            layers.Flatten(),
            layers.Dense(48, activation="relu", name="c"),
            layers.Dense(3, name="last"),
        ]
    )


def residual():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 6))
    x = layers.Conv2D(48, 1, name="a")(inputs)
    y = layers.Conv2D(48, 3, padding="same", activation="relu", name="b")(x)
    x = layers.Add()([x, layers.Conv2D(48, 1, name="c")(y)])
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def recipe(structure=None, **more):
    rule = trp.Rule(list("abc"), structure=structure or trp.Block(16, 1), rate=3)
    return trp.Recipe(rule, method="magnitude", **more)


def same(model, x, expected):
    found = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def kept_energy(model, names):
    """Share of the squared weights that a cut in bands of neighbours leaves."""
    shares = []
    for name in names:
        kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
        kernel = kernel.reshape(-1, *kernel.shape[-2:])
        left = trp.Block(16, 1).project(kernel, kernel.size / 3)
        shares.append(np.square(left).sum() / np.square(kernel).sum())
    return np.array(shares)


@pytest.mark.backend
def test_planted_kinds_of_filters_become_bands():
    model = planted("abc")(convolutional())
    norm = model.get_layer("norm")
    norm.set_weights([np.random.default_rng(3).uniform(0.5, 2, 48) for _ in range(4)])
    x = np.random.default_rng(2).random((4, 6, 6, 6), np.float32)
    expected = keras.ops.convert_to_numpy(model(x))
    before = kept_energy(model, "abc")
    assert trp.arrange(model, recipe()) == ["a", "b", "c"]
    same(model, x, expected)
    assert (before < 0.6).all()
    np.testing.assert_array_less(0.99, kept_energy(model, "abc"))
    assert trp.arrange(model, recipe()) in ([], ["a"], ["b"], ["c"])  # ties at most


def test_a_residual_sum_has_one_order_for_the_layers_that_write_to_it():
    model = planted("abc")(residual())
    x = np.random.default_rng(2).random((4, 6, 6, 6), np.float32)
    expected = keras.ops.convert_to_numpy(model(x))
    before = kept_energy(model, "abc")
    moved = trp.arrange(model, recipe())
    assert set(moved) == {"a", "b", "c"}
    same(model, x, expected)
    after = kept_energy(model, "abc")
    assert after[1] > 0.99 > before[1]  # nobody else writes what `b` does
    assert after[[0, 2]].sum() > before[[0, 2]].sum() + 0.1


@pytest.mark.parametrize(
    "structure",
    [
        trp.Unstructured(),
        trp.Filter(),
        trp.Column(),
        trp.Block(16, 1, cluster=True),
        trp.Block(48, 1),
    ],
    ids=str,
)
def test_structures_whose_bands_are_no_neighbours_move_nothing(structure):
    model = planted("abc")(convolutional())
    weights = model.get_weights()
    assert trp.arrange(model, recipe(structure)) == []
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_is_masked_or_penalized_already_stays():
    model = planted("abc")(convolutional())
    trp.hard_prune(model, recipe())
    weights = model.get_weights()
    assert trp.arrange(model, recipe()) == []
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    model = planted("abc")(convolutional())
    trp.attach(model, trp.Recipe(recipe().rules, rate=None, strength=1e-5))
    assert trp.arrange(model, recipe()) == []


def test_bands_that_lost_columns_keep_them():
    model = planted("abc")(convolutional())
    kernel, bias = model.get_layer("b").get_weights()
    kernel[..., :5, 16:32] = 0  # of the second band
    model.get_layer("b").set_weights([kernel, bias])
    assert trp.arrange(model, recipe()) == ["a", "c"]
    zero = (model.get_layer("b").get_weights()[0] == 0).reshape(48, 48)
    np.testing.assert_array_equal(zero.sum(axis=0), 5 * (np.arange(48) // 16 == 1))


def test_subclassed_models_and_what_reads_in_order_stay():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.a = layers.Dense(48, name="a")
            self.b = layers.Dense(48, name="b")

        def call(self, x):
            return self.b(self.a(x))

    model = Own()
    model(np.zeros((1, 6)))
    rule = trp.Rule(["a", "b"], structure=trp.Block(16, 1), rate=3)
    assert trp.arrange(model, trp.Recipe(rule)) == []
    inputs = keras.Input((5, 6))
    x = layers.Dense(48, name="a")(inputs)
    model = keras.Model(inputs, layers.GRU(4, name="b")(x))
    rule = trp.Rule("a", structure=trp.Block(16, 1), rate=3)
    assert trp.arrange(model, trp.Recipe(rule)) == []


def test_models_inside_are_arranged_within_their_own_inputs_and_outputs():
    inner = planted("ab")(
        keras.Sequential(
            [
                keras.Input((12,)),
                layers.Dense(48, activation="relu", name="a"),
                layers.Dense(48, name="b"),
            ],
            name="inner",
        )
    )
    inputs = keras.Input((12,))
    model = keras.Model(inputs, layers.Dense(3, name="last")(inner(inputs)))
    x = np.random.default_rng(2).random((4, 12), np.float32)
    expected = keras.ops.convert_to_numpy(model(x))
    rule = trp.Rule(["a", "b"], structure=trp.Block(16, 1), rate=3)
    assert trp.arrange(model, trp.Recipe(rule)) == ["a"]
    same(model, x, expected)


@pytest.mark.backend
def test_compress_arranges_unless_told_not_to():
    x = np.random.default_rng(2).random((8, 6, 6, 6), np.float32)
    y = np.zeros((8, 3), np.float32)
    kept = {}
    for arranges in (True, False):
        model = planted("abc")(convolutional())
        model.compile("sgd", "mse")
        before = [np.square(layer.get_weights()[0]).sum() for layer in model.layers[:1]]
        still = recipe(retrain_epochs=0, reweighted_epochs=0, arrange=arranges)
        result = trp.compress(model, still, x, y, verbose=0)
        after = np.square(result.model.layers[0].get_weights()[0]).sum()
        kept[arranges] = after / before[0]
    assert kept[True] > 0.99 and kept[False] < 0.6
