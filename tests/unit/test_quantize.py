# SPDX-License-Identifier: Apache-2.0
"""Quantization in training, on every backend: plain fit, files, pruned models."""

import functools

import keras
import numpy as np
import pytest

from tfrewprune.levels import Binary, EqualInterval, Ternary
from tfrewprune.pipeline import compress, hard_prune, quantize, strip
from tfrewprune.quantization import Quantization
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block
from tfrewprune.wrappers import (
    Reweight,
    attach_levels,
    hooked_kernels,
    snap_to_levels,
)

layers, ops = keras.layers, keras.ops
X = np.random.default_rng(0).standard_normal((256, 16)).astype(np.float32)
Y = np.digitize(X[:, :4] @ np.float32([1, 2, -1, 0.5]), [-1.5, 1.5])
NAMES = ("first", "middle", "last")
FIT = {"batch_size": 32, "verbose": 0}
BOTH = pytest.mark.parametrize("method", ["admm", "straight-through"])


def mlp(trained=True, **compiled):
    weights = trained_weights() if trained else None  # before the seed
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(24, activation="relu", name="first"),
            layers.BatchNormalization(name="normalization"),
            layers.Dense(24, activation="relu", name="middle"),
            layers.Dense(3, name="last"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(1e-2, **compiled)
    model.compile(optimizer, loss, metrics=["accuracy"])
    if trained:
        model.set_weights(weights)
    return model


@functools.cache
def trained_weights():
    model = mlp(trained=False)
    model.fit(X, Y, epochs=8, **FIT)
    return model.get_weights()


def kernel_of(model, name):
    return ops.convert_to_numpy(model.get_layer(name).kernel)


def on_levels(kernel, levels):
    """Whether weights are exactly a scale times integers of a set."""
    kernel = kernel[None]
    ratios = kernel / levels.scale(kernel)
    integers = np.rint(ratios)
    magnitudes = {*levels.magnitudes, 0}
    return set(np.abs(integers).ravel()) <= magnitudes and np.allclose(
        *(ratios, integers), atol=1e-4
    )


@pytest.mark.parametrize(
    "levels, method",
    [
        pytest.param(Binary(), "straight-through", marks=pytest.mark.backend),
        pytest.param(Ternary(), "admm", marks=pytest.mark.backend),
        (EqualInterval(3, per="channel"), "admm"),
    ],
    ids=str,
)
def test_weights_end_on_levels_and_training_makes_up_for_it(levels, method):
    model = mlp()
    quantization = Quantization(
        *(levels, {"last": 8}, method), epochs=6, freeze_epochs=6, refreshes=3
    )
    result = quantize(model, quantization, X, Y, validation_data=(X, Y), **FIT)
    for name in ("first", "middle"):
        assert on_levels(kernel_of(result.model, name), levels)
    assert on_levels(kernel_of(result.model, "last"), EqualInterval(8))
    scores = {name: each["accuracy"] for name, each in result.scores.items()}
    assert scores["after"] > 0.8 and scores["before"] > 0.9
    if levels.bits < 3:
        assert scores["after"] > scores["rounded"]
    assert not hooked_kernels(result.model)
    by_layer = {row.layer: row for row in result.layers}
    assert [by_layer[name].bits for name in NAMES] == [levels.bits, levels.bits, 8]
    assert by_layer["normalization"].reason == "no weight matrix"
    first = by_layer["first"]
    assert len(first.scale) == (24 if levels.per == "channel" else 1)
    assert 0 < first.rounding < first.moved
    text = str(result)
    assert str(levels) in text and "normalization: no weight matrix" in text
    assert result.to_dict()["layers"][0]["bits"] == levels.bits


@pytest.mark.backend
@BOTH
def test_zeros_stay_zero_and_masks_hold(method):
    model = mlp()
    rules = {name: {"structure": Block(4, 1), "rate": 4} for name in NAMES[:2]}
    hard_prune(model, Recipe(rules, method="magnitude"))
    zero = {name: kernel_of(model, name) == 0 for name in NAMES}
    seen = []

    class Zeros(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.extend(kernel_of(self.model, name)[zero[name]] for name in NAMES)

    quantization = Quantization("binary", {}, method, epochs=2, freeze_epochs=2)
    result = quantize(model, quantization, X, Y, callbacks=[Zeros()], **FIT)
    assert len(seen) == 3 * (4 if method == "admm" else 2)
    assert not any(values.any() for values in seen)
    for name in NAMES:
        kernel = kernel_of(result.model, name)
        np.testing.assert_array_equal(kernel == 0, zero[name])
        assert on_levels(kernel, Binary())


@pytest.mark.backend
def test_straight_through_shows_levels_at_every_step():
    model = mlp()
    attach_levels(model, Quantization("ternary", method="straight-through"))
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            seen.append([kernel_of(self.model, name) for name in NAMES])

    model.fit(X, Y, epochs=2, callbacks=[Reweight(2), Watch()], **FIT)
    assert all(on_levels(kernel, Ternary()) for kernels in seen for kernel in kernels)
    changes = [np.mean(a[1] != b[1]) for a, b in zip(seen, seen[1:], strict=False)]
    assert max(changes) > 0, "nothing was trained"


@pytest.mark.backend
def test_straight_through_is_sgd_on_latent_weights():
    """Against the algorithm written out: gradient at the levels, step on the latent."""
    x, y = X[:32], X[:32] @ np.ones((16, 2), np.float32)
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(2, use_bias=False, name="d")]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    latent = kernel_of(model, "d").astype(np.float64)
    attach_levels(model, Quantization("ternary", method="straight-through"))
    scale = float(Ternary().scale(latent[None]).item())
    for step in range(4):
        # The first step starts from the weights as they come.
        shown = Ternary().on_levels(latent[None], scale)[0] if step else latent
        gradient = 2 * x.T @ (x @ shown - y) / y.size
        latent = latent - 0.1 * gradient
        model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
        expected = Ternary().on_levels(latent[None], scale)[0]
        np.testing.assert_allclose(kernel_of(model, "d"), expected, atol=1e-5)


@pytest.mark.backend
def test_accumulated_steps_move_latent_weights_once():
    model = mlp(gradient_accumulation_steps=4)
    before = kernel_of(model, "middle")
    attach_levels(model, Quantization("binary", method="straight-through"))
    three = (X[:96], Y[:96])
    model.fit(*three, epochs=1, shuffle=False, **FIT)
    np.testing.assert_array_equal(kernel_of(model, "middle"), before)
    model.fit(X[96:128], Y[96:128], epochs=1, shuffle=False, **FIT)
    assert on_levels(kernel_of(model, "middle"), Binary())


@BOTH
def test_first_and_last_come_last(method):
    seen = {}

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch] = {name: kernel_of(self.model, name) for name in NAMES}

    quantization = Quantization(
        *("binary", {}, method), ends_last=True, epochs=1, freeze_epochs=2, rounds=2
    )
    result = quantize(mlp(), quantization, X, Y, callbacks=[Watch()], **FIT)
    middle = 1 + 2 * (method == "admm")  # epochs until the middle is on its levels
    assert on_levels(seen[middle - 1]["middle"], Binary())
    for name in ("first", "last"):
        assert not on_levels(seen[middle - 1][name], Binary())
        assert on_levels(kernel_of(result.model, name), Binary())
    held = [each["middle"] for epoch, each in seen.items() if epoch >= middle]
    for kernel in (*held, kernel_of(result.model, "middle")):
        np.testing.assert_allclose(kernel, seen[middle - 1]["middle"], rtol=1e-5)


@pytest.mark.backend
@BOTH
def test_a_model_saved_in_between_trains_on_as_it_was(method, tmp_path):
    model = mlp()
    stage = Quantization(3, method=method).stages[-1]
    attach_levels(model, stage)
    model.fit(X, Y, epochs=2, callbacks=[Reweight(3)], shuffle=False, **FIT)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(hooked_kernels(model), hooked_kernels(loaded), strict=True):
        assert (
            one.penalty.method
            == other.penalty.method
            == stage.method(EqualInterval(3), 0)
        )
    both = [model, loaded]
    attach_levels(loaded, stage)
    loaded.load_weights(tmp_path / "model.keras")
    for each in both:
        each.compile(keras.optimizers.SGD(1e-2), model.loss)
        attach_levels(each, stage)
        each.fit(X, Y, epochs=1, shuffle=False, **FIT)
    for name in NAMES:
        np.testing.assert_allclose(
            *(kernel_of(each, name) for each in both), rtol=1e-4, atol=1e-5
        )


@pytest.mark.backend
def test_compress_prunes_and_quantizes():
    recipe = Recipe(
        Rule(["first", "middle"], structure=Block(4, 1), rate=3),
        reweighted_epochs=1,
        retrain_epochs=1,
        quantization=Quantization("ternary", epochs=2, freeze_epochs=2),
    )
    result = compress(mlp(), recipe, X, Y, validation_data=(X, Y), **FIT)
    assert list(result.history) == ["reweighted", "retrain", "levels", "freeze"]
    assert list(result.scores) == ["before", "pruned", "retrained", "after"]
    for name in NAMES:
        assert on_levels(kernel_of(result.model, name), Ternary())
    assert np.mean(kernel_of(result.model, "first") == 0) >= 2 / 3
    assert [row.layer for row in result.levels if row.levels] == list(NAMES)
    assert "Ternary" in str(result) and result.to_dict()["levels"][0]["bits"] == 2


def test_stopping_early_is_for_models_on_levels():
    stop = keras.callbacks.EarlyStopping("loss", mode="max", restore_best_weights=True)
    quantization = Quantization("binary", method="straight-through", epochs=4)
    result = quantize(mlp(), quantization, X, Y, callbacks=[stop], **FIT)
    assert len(result.history["levels"]["loss"]) == 2
    assert on_levels(kernel_of(result.model, "first"), Binary())
    with pytest.warns(UserWarning, match="not on their levels, yet"):
        quantization = Quantization("binary", epochs=1, freeze_epochs=0)
        quantize(mlp(), quantization, X, Y, callbacks=[stop], **FIT)


def test_rounding_without_training():
    model = mlp()
    snap_to_levels(model, EqualInterval(4))
    assert all(on_levels(kernel_of(model, name), EqualInterval(4)) for name in NAMES)
    snapped = kernel_of(model, "middle")
    snap_to_levels(model, EqualInterval(4))
    np.testing.assert_allclose(kernel_of(model, "middle"), snapped, rtol=1e-5)


@pytest.mark.backend
def test_gates_of_recurrent_layers_have_their_own_scales():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4, 4)), layers.GRU(8, name="gru"), layers.Dense(3, name="head")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    quantization = Quantization(2, method="straight-through", epochs=1)
    result = quantize(model, quantization, X.reshape(-1, 4, 4), Y, **FIT)
    names = [row.layer for row in result.layers if row.levels]
    assert len(names) == 7 and names[0] == "gru/kernel/z"
    kernel = ops.convert_to_numpy(result.model.get_layer("gru").cell.kernel)
    for gate in np.split(kernel, 3, axis=1):
        assert on_levels(gate, EqualInterval(2))


def test_clear_errors():
    model = mlp()
    with pytest.raises(ValueError, match="names 'conv', but no layer.*first, normal"):
        attach_levels(model, Quantization(4, {"conv": 8}))
    with pytest.raises(ValueError, match="cannot quantize 'norm.*no weight matrix"):
        attach_levels(model, Quantization(4, {"normalization": 8}))
    with pytest.raises(ValueError, match="leaves no layer"):
        attach_levels(
            model,
            Quantization(None, {"normal*": None, "last": 4}).replace(
                levels=4, layers={"*": None}
            ),
        )
    with pytest.raises(ValueError, match="quantize: no training data"):
        quantize(model, 4)
    with pytest.raises(ValueError, match="holds the epochs.*epochs=3"):
        quantize(model, 4, X, Y, epochs=3)
    with pytest.raises(ValueError, match="is not compiled"):
        quantize(keras.Sequential([keras.Input((2,)), layers.Dense(2)]), 4, X, Y)
    kernel = kernel_of(model, "first").copy()
    kernel[0, 0] = np.nan
    model.get_layer("first").kernel.assign(kernel)
    with pytest.raises(ValueError, match="NaN or infinite.*first"):
        quantize(model, 4, X, Y, **FIT)
    with pytest.raises(ValueError, match="'first' has 1 NaN or infinite"):
        attach_levels(model, 4)


def test_what_cannot_lie_on_levels_is_told():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(2, kernel_initializer="zeros", name="empty"),
        ]
    )
    model.compile("adam", "mse")
    reasons = {e.target.path: e.target.reason for e in snap_to_levels(model, 4)}
    assert reasons["conv"] is None
    assert reasons["depthwise"].startswith("depthwise")
    assert reasons["empty"] == "all its weights are zero"
    assert strip(model) is model
