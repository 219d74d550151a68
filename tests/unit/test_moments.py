# SPDX-License-Identifier: Apache-2.0
"""What each optimizer knows of a gradient, and how far it carries a weight."""

import keras
import numpy as np
import pytest

from tfrewprune.methods import GradualMagnitude, Reweighted, ReweightedProximal
from tfrewprune.pipeline import compress, hard_prune, reweighted_train
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.wrappers.moments import (
    gradient_scale,
    inner_optimizer,
    measure_of,
    reach,
    second_moment,
)

optimizers = keras.optimizers
generator = np.random.default_rng(0)
X = generator.standard_normal((256, 32)).astype(np.float32)
Y = (X[:, :8] @ generator.standard_normal((8, 4))).argmax(1)

#: Gradient of every weight in every step of `stepped`.
GRADIENT = 0.01

KEEP_SQUARES = {
    "Adam": {},
    "AdamW": {"weight_decay": 0.0},
    "Nadam": {},
    "Adamax": {},
    "Lamb": {},
    "RMSprop": {"rho": 0.5},
    "Adadelta": {"rho": 0.5},
    "Adafactor": {},
    "Adagrad": {},
    "Ftrl": {},
}
KEEP_DIRECTIONS = {"Lion": {}, "Muon": {"weight_decay": None}}


def stepped(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """A layer after fifty steps under one gradient; the last moved it by `moved`."""
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32, name="d")])
    model.compile(optimizer)
    kernel, bias = model.trainable_variables
    inner = inner_optimizer(model)
    inner.build(model.trainable_variables)
    for _ in range(50):
        before = keras.ops.convert_to_numpy(kernel.value)
        gradient = np.full((32, 32), GRADIENT, np.float32)
        pair = [keras.ops.array(gradient), keras.ops.zeros(bias.shape)]
        inner.apply(pair, model.trainable_variables)
    moved = keras.ops.convert_to_numpy(kernel.value) - before
    model.moved = float(np.sqrt(np.square(moved).mean()))
    return model


def made(name: str, options: dict) -> keras.optimizers.Optimizer:
    if not hasattr(optimizers, name):
        pytest.skip(f"this Keras has no {name}")
    return getattr(optimizers, name)(1e-3, **options)


@pytest.mark.parametrize("name", KEEP_SQUARES)
def test_every_kept_square_is_found(name):
    model = stepped(made(name, KEEP_SQUARES[name]))
    kernel = model.layers[0].kernel
    moment = keras.ops.convert_to_numpy(second_moment(model.optimizer, kernel))
    assert moment.shape == (32, 32)
    assert np.sqrt(moment) == pytest.approx(GRADIENT, rel=0.1)


@pytest.mark.parametrize("name", KEEP_DIRECTIONS)
def test_a_mean_gradient_tells_its_scale_alone(name):
    model = stepped(made(name, KEEP_DIRECTIONS[name]))
    kernel = model.layers[0].kernel
    assert second_moment(model.optimizer, kernel) is None
    scale = keras.ops.convert_to_numpy(gradient_scale(model.optimizer, kernel))
    assert scale == pytest.approx(GRADIENT, rel=0.1)


@pytest.mark.parametrize("name", [*KEEP_SQUARES, "Lion", "SGD"])
def test_reach_and_measure_are_those_of_the_step(name):
    model = stepped(made(name, KEEP_SQUARES.get(name, {})))
    kernel, optimizer = model.layers[0].kernel, model.optimizer
    assert reach(optimizer, kernel, GRADIENT) == pytest.approx(model.moved, rel=0.15)
    measure = measure_of(optimizer, kernel, kernel.value)
    step = 1e-3 * GRADIENT / np.mean(keras.ops.convert_to_numpy(measure))
    assert step == pytest.approx(model.moved, rel=0.15)


def test_reach_counts_momentum():
    model = stepped(made("SGD", {"momentum": 0.9}))
    kernel = model.layers[0].kernel
    assert reach(model.optimizer, kernel, 0.1) == pytest.approx(1e-3)
    model = stepped(made("RMSprop", {"rho": 0.5, "momentum": 0.8}))
    kernel = model.layers[0].kernel
    assert reach(model.optimizer, kernel, 0.1) == pytest.approx(5e-3, rel=0.01)


def test_the_inner_optimizer_counts():
    model = stepped(optimizers.LossScaleOptimizer(optimizers.Adamax(1e-3)))
    kernel = model.layers[0].kernel
    assert second_moment(inner_optimizer(model), kernel) is not None


def mlp(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32,)),
            keras.layers.Dense(32, activation="relu", name="d1"),
            keras.layers.Dense(32, activation="relu", name="d2"),
            keras.layers.Dense(4, activation="softmax", name="head"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def energy(model: keras.Model) -> float:
    kernels = [model.get_layer(name).kernel for name in ("d1", "d2")]
    return sum(np.square(keras.ops.convert_to_numpy(k)).sum() for k in kernels)


@pytest.mark.parametrize(
    "name, rate, method",
    [
        ("Adamax", 4e-3, Reweighted()),
        ("Lion", 2e-3, ReweightedProximal()),
        ("Muon", 2e-3, ReweightedProximal()),
        ("Adafactor", 2e-2, ReweightedProximal()),
        ("Adagrad", 5e-2, ReweightedProximal()),
    ],
)
def test_a_phase_empties_groups_under_every_optimizer(recwarn, name, rate, method):
    made(name, {})
    model = mlp(getattr(optimizers, name)(rate))
    recipe = Recipe(["d1", "d2"], rate=4, method=method, reweighted_epochs=20)
    reweighted_train(model, recipe, X, Y, batch_size=16, verbose=0)
    before = energy(model)
    rows = hard_prune(model, recipe)
    assert energy(model) > 0.9 * before
    assert not [row.note for row in rows if row.note]
    assert not [w for w in recwarn if "empty" in str(w.message)]


def test_a_phase_whose_steps_are_too_short_says_so():
    model = mlp(optimizers.Lion(1e-4))
    recipe = Recipe(["d1", "d2"], rate=4, reweighted_epochs=3)
    with pytest.warns(UserWarning, match="steps of Lion together carry a weight of"):
        reweighted_train(model, recipe, X, Y, batch_size=16, verbose=0)
    with pytest.warns(UserWarning, match="has not emptied what the rate removes"):
        rows = hard_prune(model, recipe)
    notes = [row.note for row in rows if row.layer in ("d1", "d2")]
    assert all("groups that were cut were not empty (" in note for note in notes)


@pytest.mark.parametrize("name, falls_back", [("Adagrad", False), ("Lion", True)])
def test_fisher_says_where_it_is_lamp(name, falls_back):
    rules = [Rule("d1"), Rule("d2")]
    method = GradualMagnitude(score="fisher")
    recipe = Recipe(rules, rate=4, method=method, reweighted_epochs=2, retrain_epochs=0)
    result = compress(mlp(made(name, {})), recipe, X, Y, verbose=0)
    notes = [str(row.note) for row in result.layers if row.reason is None]
    assert all(("Lion keeps no second moment" in n) == falls_back for n in notes)
