# SPDX-License-Identifier: Apache-2.0
"""prune_one_shot on Keras models, and hard_prune that makes up for its cut."""

import keras
import numpy as np
import pytest

from tfrewprune.calibration.keras_network import KerasNetwork
from tfrewprune.oneshot import Infeasible, prune_one_shot
from tfrewprune.oneshot.keras_model import KerasSource
from tfrewprune.pipeline import hard_prune, mask_zeros, masked_retrain, strip
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Filter, KernelShape, Pattern, RowColumn
from tfrewprune.wrappers.budget import Budget
from tfrewprune.wrappers.kernels import walk_layers
from tfrewprune.wrappers.resolving import resolve

layers = keras.layers
X = np.random.default_rng(0).standard_normal((96, 8, 8, 3)).astype(np.float32)
X = X + np.roll(X, 1, 1) + np.roll(X, 1, 2)  # neighbours are alike, as in images
EACH = Recipe(Rule(["wide", "deep", "hidden"]), method="magnitude", rate=2)


def model_of(head: str = "softmax") -> keras.Model:
    """A residual block with batch normalizations, some convolutions without bias."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", name="stem", activation="relu")(inputs)
    y = layers.Conv2D(16, 3, padding="same", use_bias=False, name="wide")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    y = layers.Conv2D(16, 3, padding="same", name="deep")(y)
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.Add()([x, y])))
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, layers.Dense(4, activation=head, name="head")(x))
    random = np.random.default_rng(1)
    for weight in model.get_layer("norm").weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return model


def error(dense: keras.Model, pruned: keras.Model) -> float:
    a, b = (m.predict(X, verbose=0) for m in (dense, pruned))
    return float(np.square(a - b).sum() / np.square(a - a.mean(0)).sum())


class Doubled(layers.Layer):
    """A layer that Keras does not make from its config."""

    def __init__(self, width):
        super().__init__(name="doubled")
        self.dense = layers.Dense(width)

    def call(self, x):
        return 2 * self.dense(x)


def test_models_with_functions_and_layers_of_the_users():
    factor = 3.0

    def of(*more):
        last = [layers.Dense(32, name="hidden"), layers.Dense(2)]
        return keras.Sequential([keras.Input((16,)), *more, *last])

    x, recipe = X.reshape(-1, 16)[:64], EACH.replace(rules=[Rule("hidden")], rate=2)
    model = of(layers.Lambda(lambda x: x * factor + np.pi, name="scaled"))
    result = prune_one_shot(model, x, recipe=recipe)
    assert result.model.get_layer("scaled") is not model.get_layer("scaled")
    assert 0 < result.output_error < 1
    model = of(Doubled(16))
    expected = "prune_one_shot: layer 'doubled' .* Doubled.get_config .*in_place=True"
    with pytest.raises(ValueError, match=expected):
        prune_one_shot(model, x, recipe=recipe)
    result = prune_one_shot(model, x, recipe=recipe, in_place=True)
    assert result.model is model and result.pruned_rate == pytest.approx(2, rel=0.1)


def test_it_beats_magnitude_and_leaves_the_source_alone():
    model = model_of()
    before = model.get_weights()
    lines = []
    result = prune_one_shot(model, X, recipe=EACH, verbose=lines.append)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert result.pruned_rate == pytest.approx(2, rel=0.03)
    assert result.output_error == pytest.approx(error(model, result.model), rel=1e-3)
    by_size = model_of()
    hard_prune(by_size, EACH)
    refitted = model_of()
    hard_prune(refitted, EACH, data=X)
    assert result.output_error < error(model, refitted) < error(model, by_size) / 2
    for row in result.layers:
        if row.layer in ("wide", "deep", "hidden"):
            kernel = np.asarray(result.model.get_layer(row.layer).kernel)
            kernel = kernel.reshape(1, -1, kernel.shape[-1])
            alive = row.structure.surviving_groups(kernel)
            assert row.kept == row.structure.kept(alive, KernelShape(*kernel.shape))
        else:
            assert row.reason
    assert any("wide" in line for line in lines)
    assert "outputs differ by" in str(result)
    assert set(result.to_dict()["losses"]) >= {"wide", "deep", "hidden", "head"}
    # Plain: nothing of this package stays on it.
    assert not any(hasattr(w.constraint, "groups") for w in result.model.weights)


def test_like_filters_come_side_by_side_first_unless_told_not_to():
    """Two kinds of filters, in turn: as bands of one kind each they lose nothing."""

    def make():
        model = model_of()
        kernel = np.zeros((256, 32), np.float32)
        random = np.random.default_rng(3)
        for kind in range(2):
            kernel[kind::2, kind::2] = random.standard_normal((128, 16))
        model.get_layer("hidden").kernel.assign(kernel)
        return model

    recipe = Recipe(Rule("hidden", rate=2), method="magnitude")
    results = {}
    for arranges in (True, False):
        results[arranges] = prune_one_shot(
            make(), X, recipe=recipe.replace(arrange=arranges)
        )
    moved, still = results[True], results[False]
    assert moved.output_error < 1e-3 < 0.01 < still.output_error
    assert error(make(), moved.model) == pytest.approx(moved.output_error, abs=1e-4)
    assert [(row.layer, row.kept) for row in moved.layers] == [
        (row.layer, row.kept) for row in still.layers
    ]


@pytest.mark.parametrize("structure", [Filter(), RowColumn(), Pattern(4)], ids=str)
def test_other_structures(structure):
    recipe = Recipe(Rule(["deep", "hidden"], structure=structure, rate=3))
    result = prune_one_shot(model_of(), X, recipe=recipe)
    rows = {row.layer: row for row in result.layers}
    assert rows["deep"].rate >= 2.9
    assert rows["hidden"].rate >= 2.9
    assert not result.tables  # rules gave the rates


def test_a_constant_that_a_convolution_cannot_add_goes_into_the_normalization():
    model = model_of()
    data = [X]
    network = KerasNetwork(model, resolve(model, EACH), data)
    wide = next(site for site in network.sites if site.path == "wide")
    assert wide.centred
    norm = model.get_layer("norm")
    before = np.asarray(norm.moving_mean)
    network.assign(wide, network.kernel(wide), np.full(16, 0.5))
    np.testing.assert_allclose(np.asarray(norm.moving_mean), before - 0.5, rtol=1e-6)


@pytest.mark.parametrize("shown", [False, True])
def test_a_constant_that_an_output_shows_goes_nowhere(shown):
    inputs = keras.Input((4,))
    sums = keras.layers.Dense(6, use_bias=False, name="sums")(inputs)
    norm = keras.layers.BatchNormalization()
    scaled = norm(sums)
    # Another model's call, which is not this one's.
    keras.Model(inputs, keras.layers.Dense(2)(sums))
    model = keras.Model(inputs, [scaled, sums] if shown else scaled)
    data = np.zeros((2, 4), np.float32)
    targets = resolve(model, Recipe(Rule("sums", rate=2)))
    (site,) = KerasNetwork(model, targets, [data]).sites
    assert site.centred is not shown


@pytest.mark.parametrize("limits", [{"rate": 3}, {"constraints": {"macs": "60%"}}])
def test_its_rates_serve_another_method(limits):
    each = Recipe(Rule(["wide", "deep", "hidden"]))
    result = prune_one_shot(model_of(), X, recipe=each, **limits)
    rows = hard_prune(model_of(), result.rates)
    assert [(row.layer, row.kept, row.reason is None) for row in rows] == [
        (row.layer, row.kept, row.reason is None) for row in result.layers
    ]
    assert len({row.rate for row in rows if row.reason is None}) > 1


def test_constraints_are_met_together():
    model = model_of()
    limits = {"macs": "70%", "weights": 0.5}
    result = prune_one_shot(
        model, X, recipe=Recipe(Rule(["wide", "deep", "hidden"])), constraints=limits
    )
    kept = sum(int(np.count_nonzero(w)) for w in result.model.get_weights())
    assert kept <= 0.51 * model.count_params()
    assert result.rate >= 1.95
    table = result.tables[0]
    assert table.kept[0] > table.kept[-1]
    assert table.loss[0] < table.loss[-1]
    with pytest.raises(Infeasible, match="macs <= .* cannot be met"):
        prune_one_shot(model, X, constraints={"macs": 0.001}, recipe=EACH)
    with pytest.raises(Infeasible, match="macs <= .* cannot be met"):
        recipe = EACH.replace(rate=None, constraints={"macs": 0.001})
        prune_one_shot(model, X, recipe=recipe)


def test_limits_and_what_is_fixed_in_them_are_those_of_training():
    model = model_of()
    model.get_layer("stem").trainable = False  # takes its time all the same
    rules = [Rule("wide", rate=4), Rule(["deep", "hidden"])]
    shares = {"weights": "50%", "macs": 0.5, "bytes": "60%", "latency_ms": "70%"}
    recipe = Recipe(rules, constraints=shares)
    limits, fixed = KerasSource(model, recipe, [X]).limits(shares, "weights")
    budget = Budget.of(resolve(model, recipe), recipe)
    for limit in budget.limits:
        assert limits[limit.name] == pytest.approx(limit.limit), limit.name
        empty = sum(curve.empty for curve in limit.curves.values())
        assert fixed[limit.name] + empty == pytest.approx(limit.fixed, rel=1e-3)


def test_what_cannot_be_asked():
    model = model_of()
    with pytest.raises(ValueError, match="expected a rate, a recipe with one, or"):
        prune_one_shot(model, X)
    with pytest.raises(ValueError, match="must be a tfrewprune.Recipe"):
        prune_one_shot(model, X, recipe=2)
    with pytest.raises(ValueError, match="`threshold` is for weights"):
        prune_one_shot(model, X, recipe=Recipe(threshold=0.1))
    steps = EACH.replace(then=EACH.replace(rate=4))
    with pytest.raises(ValueError, match="a recipe of one step.*Received: 2 steps"):
        prune_one_shot(model, X, recipe=steps)
    for name, value in (("shrink", True), ("purify", 0.25)):
        with pytest.raises(ValueError, match=f"without `{name}`.*tfrewprune.{name} on"):
            prune_one_shot(model, X, recipe=EACH.replace(**{name: value}))
    with pytest.raises(ValueError, match=r"expected shape \(inputs, 8, 8, 3\)"):
        prune_one_shot(model, X[:, :4], rate=2)
    with pytest.raises(FileNotFoundError, match="no model at"):
        prune_one_shot("missing.keras", X, rate=2)


def test_a_model_of_which_nothing_can_be_pruned_says_why():
    inputs = keras.Input((10, 8))
    x = layers.GRU(32, name="gates")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    data = np.random.default_rng(0).standard_normal((40, 10, 8))
    for asked in (
        {"rate": 4},
        {"constraints": {"weights": "40%"}},
        {"recipe": Recipe([Rule("gates", rate=4), Rule("*", skip=True)])},
    ):
        with pytest.raises(ValueError, match="gates.*: layer class GRUCell: it"):
            prune_one_shot(model, data, **asked)
    with pytest.raises(ValueError, match=r"head: small: 96 weights"):
        prune_one_shot(model, data, recipe=Recipe(rate=4, skip_last=False))
    result = prune_one_shot(model, data, recipe=Recipe(Rule("head", rate=4)))
    assert result.pruned_rate >= 3.9


def test_a_subclassed_model_says_what_is_possible():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(64)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    model(np.zeros((1, 32)))
    with pytest.raises(ValueError, match="does not say what it takes"):
        prune_one_shot(model, np.zeros((4, 32)), rate=2)


def test_nan_activations_name_the_layer():
    model = model_of()
    bias = model.get_layer("deep").bias
    bias.assign(np.full(16, np.inf))
    with pytest.raises(ValueError, match="NaN or infinite outputs"):
        prune_one_shot(model, X, recipe=EACH)


def test_a_dead_layer_and_few_inputs_are_told():
    model = model_of()
    model.get_layer("stem").bias.assign(np.full(16, -1e3))  # ReLU gives 0 for ever
    model.get_layer("deep").bias.assign(np.zeros(16))
    with pytest.raises(ValueError, match="same output for every calibration input"):
        prune_one_shot(model, X, recipe=EACH)
    result = prune_one_shot(model_of(), X[:8], recipe=EACH)
    notes = {row.layer: row.note for row in result.layers}
    assert "8 samples for 256 columns" in notes["hidden"]
    for name in ("deep", "hidden"):  # positions are many, images are few
        assert "8 calibration inputs: 100 to 1,000" in notes[name]
    rows = hard_prune(model_of(), EACH, data=X[:8])
    assert all("8 calibration inputs" in r.note for r in rows if r.reason is None)


CONVOLUTIONS = Recipe(Rule(["wide", "deep"], rate=2), method="magnitude")


def bytes_of(data: np.ndarray) -> np.ndarray:
    low, high = data.min(), data.max()
    return np.round((data - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("how", ["one shot", "hard_prune"])
def test_a_range_that_is_not_that_of_training_is_told(how):
    def notes(model, data):
        if how == "hard_prune":
            rows = hard_prune(model, CONVOLUTIONS, data=data)
        else:
            rows = prune_one_shot(model, data, recipe=CONVOLUTIONS).layers
        return {row.note for row in rows if row.reason is None}

    with pytest.warns(UserWarning, match="range is probably wrong: the first batch"):
        (note,) = notes(model_of(), X * 255)
    assert "times the spread" in note
    plain = model_of()
    plain.get_layer("norm").moving_variance.assign(np.ones(16))  # never trained
    with pytest.warns(UserWarning, match="integers for float inputs"):
        (note,) = notes(plain, bytes_of(X))
    assert "layer 'stem' puts out" in note


@pytest.mark.filterwarnings("error:Calibration data")
def test_bytes_that_the_model_scales_itself_and_counts_are_fine():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, name="deep")(layers.Rescaling(1 / 255)(inputs))
    x = layers.Conv2D(16, 3, name="wide")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    result = prune_one_shot(model, bytes_of(X), recipe=CONVOLUTIONS)
    assert {row.note for row in result.layers} == {None}
    counts = np.random.default_rng(0).integers(0, 4, X.shape)
    result = prune_one_shot(model_of(), counts, recipe=CONVOLUTIONS)
    assert {row.note for row in result.layers} == {None}


def test_numbers_outside_a_table_are_refused():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(50, 16, name="words")(inputs)
    x = layers.Dense(32, name="hidden")(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    numbers = np.random.default_rng(0).integers(0, 50, (96, 6))
    recipe = Recipe(Rule("hidden", rate=2))
    assert prune_one_shot(model, numbers, recipe=recipe).pruned_rate > 1.9
    numbers[90, 3] = 50
    with pytest.raises(ValueError, match=r"'words' looks up .*49. Received: \d+ to 50"):
        prune_one_shot(model, numbers, recipe=recipe)


def test_in_place_keeps_the_object():
    model = model_of()
    result = prune_one_shot(model, X, recipe=EACH, in_place=True)
    assert result.model is model


def test_retraining_starts_from_the_zeros_that_are_there():
    result = prune_one_shot(model_of(), X, recipe=EACH)
    rows = mask_zeros(result.model, result.recipe)
    kept = {row.layer: row.kept for row in rows if row.reason is None}
    result.model.compile("adam", "sparse_categorical_crossentropy")
    y = np.arange(len(X)) % 4
    masked_retrain(result.model, result.recipe, X, y, epochs=2, verbose=0)
    plain = strip(result.model)
    for name, count in kept.items():
        kernel = np.asarray(plain.get_layer(name).kernel)
        assert np.count_nonzero(kernel) <= count
    total = sum(row.weights for row in rows if row.reason is None)
    assert sum(kept.values()) == pytest.approx(total / 2, rel=0.03)


def test_normalizations_follow_a_cut():
    """A cut that only scales a layer's outputs is undone by its normalization."""
    model, dense = model_of(), model_of()
    targets = resolve(model, EACH)
    network = KerasNetwork(model, targets, [X])
    state = network.state()
    kernel = model.get_layer("wide").kernel
    kernel.assign(np.asarray(kernel) * 0.5)
    assert error(dense, model) > 1e-3
    assert network.adapt_normalizations(state, [X]) == 1
    assert error(dense, model) < 1e-6


def test_masks_hold_after_a_refit_in_hard_prune():
    model = model_of()
    rows = hard_prune(model, EACH, data=X, batch_norm=True)
    for _, layer in walk_layers(model):
        mask = getattr(getattr(layer, "kernel", None), "constraint", None)
        if mask is not None:
            assert mask.revived(np.asarray(layer.kernel)) == 0
    assert sum(row.kept for row in rows if row.reason is None) > 0
    with pytest.raises(ValueError, match="expected shape"):
        hard_prune(model, EACH, data=X[..., :1])
    fresh = model_of()
    before = [1e15 * weights for weights in fresh.get_weights()]
    fresh.set_weights(before)
    with pytest.raises(ValueError, match="NaN or infinite outputs"):
        hard_prune(fresh, EACH, data=X)
    for old, new in zip(before, fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_layers_of_every_kind_are_refitted():
    """With nothing removed a refit finds the very weights again."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 6))
    x = layers.Conv1D(16, 3, padding="causal", name="causal")(inputs)
    x = layers.SeparableConv1D(16, 3, strides=2, name="separable")(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d", name="ein")(x)
    x = layers.MultiHeadAttention(2, 4, name="heads")(x, x)
    model = keras.Model(inputs, layers.Dense(8, name="last")(x))
    data = np.random.default_rng(0).standard_normal((64, 12, 6)).astype("float32")
    before = model.get_weights()
    recipe = Recipe(Rule("causal", rate=1.01))
    result = prune_one_shot(model, data, recipe=recipe)
    assert {"causal", "separable", "ein", "last"} <= set(result.losses)
    assert result.output_error < 0.05
    assert len(before) == len(result.model.get_weights())
