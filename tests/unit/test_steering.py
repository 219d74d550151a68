# SPDX-License-Identifier: Apache-2.0
"""Strength and masks over time lead to the rate that was asked for."""

import functools

import keras
import numpy as np
import pytest

from tfrewprune.methods import GradualMagnitude, Magnitude
from tfrewprune.pipeline import (
    GradualPrune,
    StrengthControl,
    compress,
    hard_prune,
    reweighted_train,
)
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Pattern, Unstructured
from tfrewprune.wrappers import Reweight, attach, hooked_kernels

layers = keras.layers
generator = np.random.default_rng(0)
X = generator.standard_normal((512, 32)).astype(np.float32)
Y = (X[:, :8] @ generator.standard_normal((8, 4))).argmax(1)


several_at_once = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras runs one step at a time on it"
)


def mlp(trained: bool = True, **compile_options) -> keras.Model:
    weights = trained_weights() if trained else None  # before the seed
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32,)),
            layers.Dense(64, activation="relu", name="d1"),
            layers.Dense(64, activation="relu", name="d2"),
            layers.Dense(4, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(2e-3)
    model.compile(optimizer, loss, metrics=["accuracy"], **compile_options)
    if trained:
        model.set_weights(weights)
    return model


@functools.cache
def trained_weights():
    model = mlp(trained=False)
    model.fit(X, Y, epochs=5, verbose=0)
    return model.get_weights()


def left(model: keras.Model) -> dict[str, float]:
    """Share of the weights in groups that the penalty has not emptied."""
    return {
        target.path: target.structure.kept(
            target.structure.rms(target.kernel(), target.shape)
            >= 4e-3,  # twice the learning rate
            target.shape,
        )
        / target.shape.weights
        for target in hooked_kernels(model)
        if target.penalty is not None
    }


@pytest.mark.parametrize("start", [pytest.param(1e-8, marks=pytest.mark.backend), 1e-4])
def test_strength_leads_to_each_rate_from_any_start(monkeypatch, start):
    monkeypatch.setattr("tfrewprune.methods.Method.default_strength", start)
    model = mlp()
    recipe = Recipe(
        [Rule("d1", rate=2), Rule("d2", structure=Unstructured(), rate=8)],
        reweighted_epochs=25,
    )
    logs = reweighted_train(model, recipe, X, Y, batch_size=32, verbose=0).history
    assert len(logs["strength"]) == 25
    found = left(model)
    assert found["d1"] == pytest.approx(1 / 2, rel=0.25)
    assert found["d2"] == pytest.approx(1 / 8, rel=0.5)
    assert np.isfinite(logs["loss"]).all()
    # What the cut removes is nearly nothing.
    kernels = {t.path: t.kernel() for t in hooked_kernels(model)}
    hard_prune(model, recipe)
    for target in hooked_kernels(model):
        removed = kernels[target.path] - target.kernel()
        assert np.square(removed).sum() < 0.05 * np.square(target.kernel()).sum()


def test_a_budget_is_met_by_all_layers_together():
    model = mlp()
    recipe = Recipe("d*", rate=4, reweighted_epochs=25)
    reweighted_train(model, recipe, X, Y, batch_size=32, verbose=0)
    found, sizes = left(model), {"d1": 32 * 64, "d2": 64 * 64}
    total = sum(found[name] * sizes[name] for name in sizes) / sum(sizes.values())
    assert total == pytest.approx(1 / 4, rel=0.3)


def test_no_gate_of_a_recurrent_layer_empties_before_the_others():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4, 8)), layers.GRU(32, name="gru"), layers.Dense(4, name="head")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    x = X.reshape(len(X), 4, 8)
    model.fit(x, Y, epochs=10, batch_size=32, verbose=0)
    recipe = Recipe("gru", rate=4, reweighted_epochs=25)
    reweighted_train(model, recipe, x, Y, batch_size=32, verbose=0)
    kernels = [t for t in hooked_kernels(model) if t.penalty is not None]
    assert len(kernels) == 6  # of one budget, each with a strength of its own
    wanted = {target.path_key: target.penalty.keep for target in kernels}
    total = sum(target.shape.weights for target in kernels)
    assert sum(wanted.values()) == pytest.approx(total / 4, rel=0.1)
    hard_prune(model, recipe)
    for target in kernels:
        kept = np.count_nonzero(target.kernel())
        assert 0.4 < kept / wanted[target.path_key] < 2.5


def test_a_penalty_is_felt_in_a_phase_that_hardly_lets_a_weight_reach_zero():
    model = mlp()  # an rms of 0.15, 96 steps of 0.002
    recipe = Recipe("d*", rate=4, reweighted_epochs=6)
    reweighted_train(model, recipe, X, Y, batch_size=32, verbose=0)
    assert np.mean(list(left(model).values())) < 0.9
    hard_prune(model, recipe)
    assert model.evaluate(X, Y, verbose=0)[1] > 0.8


@pytest.mark.parametrize(
    "optimizer, lost",
    [(keras.optimizers.Adam(2e-3), 0.05), (keras.optimizers.SGD(0.03, 0.9), 0.1)],
    ids=["adam", "sgd"],
)
def test_patterns_emerge_where_no_kernel_is_to_go(optimizer, lost):
    """Every kernel survives, and most of its weights go."""
    optimizer = type(optimizer).from_config(optimizer.get_config())
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 4, 1)),
            layers.Conv2D(16, 3, activation="relu", name="a"),
            layers.Conv2D(16, 2, activation="relu", name="b"),
            layers.Flatten(),
            layers.Dense(4, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    x = X.reshape(len(X), 8, 4, 1)
    model.fit(x, Y, epochs=10, verbose=0)
    rule = Rule("a", structure=Pattern(size=4), rate=9 / 4)
    recipe = Recipe(rule, reweighted_epochs=20)
    reweighted_train(model, recipe, x, Y, batch_size=32, verbose=0)
    (target,) = (t for t in hooked_kernels(model) if t.penalty is not None)
    before = target.kernel()
    hard_prune(model, recipe)
    after = model.get_layer("a").get_weights()[0].reshape(9, 1, 16)
    assert np.count_nonzero(after) == 4 * 16
    assert np.square(before - after).sum() < lost * np.square(before).sum()


def test_few_steps_do_not_drive_the_strength_beyond_what_weights_can_follow():
    model = mlp()
    recipe = Recipe("d*", rate=4, reweighted_epochs=6)
    logs = reweighted_train(model, recipe, X, Y, batch_size=64, verbose=0).history
    assert max(logs["strength"]) < 9e-3  # never at its bound
    assert logs["accuracy"][-1] > 0.6


def test_gates_that_are_alike_do_not_empty_all_at_once():
    """Nothing shows of a growing strength until groups of one size reach zero."""
    x = np.random.default_rng(0).standard_normal((1024, 10, 8)).astype(np.float32)
    y = (np.cumsum(x[..., 0], 1) > 0) + 2 * (x[..., 1] > 0)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((10, 8)),
            layers.GRU(32, return_sequences=True, name="gru"),
            layers.Dense(4),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=6, verbose=0)
    recipe = Recipe("gru", rate=8, reweighted_epochs=6, refreshes=60)
    logs = reweighted_train(model, recipe, x, y, verbose=0).history
    assert max(logs["strength"]) < 9e-4  # never at its bound
    targets = [t for t in hooked_kernels(model) if t.penalty is not None]
    kept = sum(
        t.structure.kept(t.structure.rms(t.kernel(), t.shape) >= 6e-3, t.shape)
        for t in targets
    )
    total = sum(t.shape.weights for t in targets)
    assert 0.1 < kept / total < 0.19  # about the eighth that is to stay
    assert logs["accuracy"][-1] > 0.9


def test_what_survives_among_groups_that_are_alike_does_not_shrink():
    random = np.random.default_rng(1)
    weights = random.standard_normal((64, 32)).astype(np.float32) / 8
    x = random.standard_normal((2048, 64)).astype(np.float32)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, name="d")])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.set_weights([weights, np.zeros(32, np.float32)])
    recipe = Recipe("d", rate=2, reweighted_epochs=20, refreshes=200)
    reweighted_train(model, recipe, x, x @ weights, verbose=0)
    (target,) = (t for t in hooked_kernels(model) if t.penalty is not None)
    rms = np.sort(target.structure.rms(target.kernel(), target.shape).ravel())
    assert np.median(rms[len(rms) // 2 :]) > 0.115  # it was 0.125


def test_a_strength_that_is_given_stays():
    model = mlp()
    recipe = Recipe(Rule("d1", rate=4), strength=1e-4, reweighted_epochs=2)
    logs = reweighted_train(model, recipe, X, Y, verbose=0).history
    assert {t.penalty.strength for t in hooked_kernels(model)} == {1e-4}
    assert logs["strength"] == pytest.approx([1e-4, 1e-4])


@pytest.mark.parametrize(
    "schedule, score",
    [
        ("geometric", "lamp"),
        ("cubic", "magnitude"),
        pytest.param("geometric", "fisher", marks=pytest.mark.backend),
    ],
)
def test_gradual_pruning_follows_its_schedule(schedule, score):
    method = GradualMagnitude(schedule, score)
    recipe = Recipe(
        {"d1": {"rate": 4, "structure": Block(8, 1)}, "d2": 8},
        method=method,
        reweighted_epochs=4,
        retrain_epochs=1,
    )
    seen = []

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            shares = [
                (np.asarray(self.model.get_layer(name).kernel) != 0).mean()
                for name in ("d1", "d2")
            ]
            seen.append(shares)

    callbacks = [Note()]
    result = compress(mlp(), recipe, X, Y, callbacks=callbacks, verbose=0)
    for epoch, shares in enumerate(seen[:4]):
        for share, rate in zip(shares, (4, 8), strict=True):
            expected = 1 / method.rate_at((epoch + 1) / 4, rate)
            assert share == pytest.approx(expected, rel=0.1)
    assert [row.rate for row in result.layers if row.reason is None] == [4, 8]
    assert result.history["retrain"]["accuracy"][-1] > 0.6


def test_cuts_may_be_epochs_apart():
    cuts = []

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            cuts.append((np.asarray(self.model.get_layer("d2").kernel) != 0).mean())

    recipe = Recipe({"d2": 16}, method=GradualMagnitude(every=2), reweighted_epochs=4)
    reweighted_train(mlp(), recipe, X, Y, callbacks=[Note()], verbose=0)
    assert cuts == [1, 1 / 4, 1 / 4, 1 / 16]


@pytest.mark.parametrize("schedule", ["geometric", "cubic"])
def test_gradual_pruning_goes_on_from_the_masks_in_place(schedule):
    model, rates = mlp(), []
    hard_prune(model, Recipe("d*", Magnitude(), rate=4))
    zeros = {t.path: t.kernel() == 0 for t in hooked_kernels(model)}

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernels = [t.kernel() for t in hooked_kernels(self.model)]
            total = sum(kernel.size for kernel in kernels)
            rates.append(total / sum(map(np.count_nonzero, kernels)))

    method = GradualMagnitude(schedule, "fisher")
    recipe = Recipe("d*", method, rate=16, reweighted_epochs=2)
    reweighted_train(model, recipe, X, Y, callbacks=[Note()], verbose=0)
    assert rates[0] == pytest.approx(method.rate_at(0.5, 16, 4), rel=0.05)
    assert 4 < rates[0] < rates[1] == pytest.approx(16, rel=0.05)
    for target in hooked_kernels(model):
        assert not target.kernel()[zeros[target.path]].any()


class Shares(keras.callbacks.Callback):
    """Share of non-zero weights of a kernel after each epoch."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.seen = layer, []

    def on_epoch_end(self, epoch, logs=None):
        kernel = keras.ops.convert_to_numpy(self.model.get_layer(self.layer).kernel)
        self.seen.append(float((kernel != 0).mean()))


def test_a_schedule_goes_on_from_the_first_cut():
    recipe = Recipe(
        {"d2": {"rate": 64, "structure": "Unstructured"}},
        method=GradualMagnitude(every=1),
        start_rate=4,
        reweighted_epochs=2,
    )
    shares = Shares("d2")
    reweighted_train(mlp(), recipe, X, Y, callbacks=[shares], verbose=0)
    assert shares.seen == [1 / 16, 1 / 64]


def test_the_strength_starts_from_the_first_cut():
    recipe = Recipe(
        Rule("d2", structure=Unstructured(), rate=16), start_rate=8, reweighted_epochs=1
    )
    shares = Shares("d2")
    reweighted_train(mlp(), recipe, X, Y, callbacks=[shares], verbose=0)
    assert 0 < shares.seen[0] <= 1 / 8


class PolynomialDecay:
    """As much of tfmot's schedule as is asked for."""

    def __init__(self, begin=8, end=24):
        self.config = {"initial_sparsity": 0.5, "final_sparsity": 0.875, "power": 1}
        self.config |= {"begin_step": begin, "end_step": end, "frequency": 8}

    def get_config(self):
        return {"class_name": "PolynomialDecay", "config": self.config}


@pytest.mark.parametrize(
    "together, begin",
    [
        (1, 8),
        pytest.param(5, 8, marks=several_at_once),
        pytest.param(5, 6, marks=several_at_once),
    ],
)
def test_a_schedule_of_tfmot_cuts_at_its_steps(together, begin):
    recipe = Recipe(
        Rule("d2", structure=Unstructured()),
        method=GradualMagnitude(PolynomialDecay(begin, begin + 16)),
        reweighted_epochs=4,
        retrain_epochs=0,
    )
    shares = Shares("d2")
    model = mlp(steps_per_execution=together)
    reweighted_train(model, recipe, X, Y, callbacks=[shares], verbose=0, batch_size=64)
    # 8 steps an epoch: a cut as the second, third and fourth begin.
    assert shares.seen == pytest.approx([1, 0.5, 0.3125, 0.125], abs=1e-3)
    (row,) = [r for r in hard_prune(model, recipe) if r.reason is None]
    assert row.rate == pytest.approx(8, rel=0.01)


def test_a_phase_that_ends_before_its_schedule_is_told():
    recipe = Recipe(
        Rule("d2", structure=Unstructured()),
        method=GradualMagnitude(PolynomialDecay()),
        reweighted_epochs=1,
    )
    message = "ended after 8 steps, its schedule ends at step 24"
    with pytest.warns(UserWarning, match=message):
        reweighted_train(mlp(), recipe, X, Y, verbose=0, batch_size=64)


@several_at_once
def test_a_cut_that_is_due_in_the_last_execution_is_made_in_the_phase():
    recipe = Recipe(
        Rule("d2", structure=Unstructured()),
        method=GradualMagnitude(PolynomialDecay(6, 22)),
        reweighted_epochs=3,
    )
    shares = Shares("d2")
    model = mlp(steps_per_execution=8)
    reweighted_train(model, recipe, X, Y, callbacks=[shares], verbose=0, batch_size=64)
    assert shares.seen == pytest.approx([1, 0.5, 0.125], abs=1e-3)


@several_at_once
def test_the_strength_knows_how_many_steps_lie_between_looks():
    found = []
    for together in (1, 4):
        model = mlp(steps_per_execution=together)
        recipe = Recipe("d2", rate=4)
        attach(model, recipe)
        control = StrengthControl(recipe, every=0.5)
        options = {"epochs": 2, "batch_size": 64, "shuffle": False, "verbose": 0}
        model.fit(X, Y, callbacks=[Reweight(), control], **options)
        (target,) = (t for t in hooked_kernels(model) if t.penalty is not None)
        found.append(target.penalty.strength)
    # The first look is after the first execution.
    assert found[0] == pytest.approx(found[1], rel=0.15)


def test_scores_of_different_layers_compare_as_asked():
    """A layer of tiny weights goes by magnitude, but not by its share of energy."""
    left = {}
    for score in ("lamp", "magnitude"):
        model = mlp()
        small = model.get_layer("d1")
        small.set_weights([weight * 1e-3 for weight in small.get_weights()])
        model.optimizer.learning_rate = 0.0
        recipe = Recipe(
            Rule("d*", structure=Unstructured()),
            rate=3,
            method=GradualMagnitude(score=score, every=1),
            reweighted_epochs=1,
        )
        shares = Shares("d1")
        reweighted_train(model, recipe, X, Y, callbacks=[shares], verbose=0)
        left[score] = shares.seen[0]
    assert left["magnitude"] < 0.01 and left["lamp"] > 0.2


def test_a_gradual_budget_is_shared():
    recipe = Recipe(
        "d*", rate=6, method="gradual_magnitude", reweighted_epochs=3, retrain_epochs=0
    )
    result = compress(mlp(), recipe, X, Y, verbose=0)
    assert result.pruned_rate == pytest.approx(6, rel=0.05)


def test_rates_on_the_way():
    geometric, cubic = GradualMagnitude(), GradualMagnitude("cubic")
    for method in (geometric, cubic):
        assert method.rate_at(0, 16) == 1 and method.rate_at(1, 16) == pytest.approx(16)
    assert geometric.rate_at(0.25, 16) == 2
    assert geometric.rate_at(0.5, 16, start=4) == 8
    for method in (geometric, cubic):
        assert method.rate_at(0, 16, 4) == 4 and method.rate_at(1, 16, 4) == 16
        assert method.rate_at(0.7, 2, start=4) == 2
    assert 1 / cubic.rate_at(0.5, 10) == pytest.approx(1 - 0.9 * 7 / 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"schedule": "linear", "score": "lamp"}, "`schedule`. Expected one of"),
        ({"score": "taylor"}, "`score`. Expected one of"),
        ({"every": 0}, "`every` must be above 0"),
    ],
)
def test_impossible_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradualMagnitude(**arguments)


def test_a_gradual_recipe_needs_a_rate():
    with pytest.raises(ValueError, match="has no rate: method GradualMagnitude"):
        Recipe("d*", method=GradualMagnitude())


@functools.cache
def weights_trained_on():
    """What the weights are without any penalty after as many epochs."""
    model = mlp()
    model.fit(X, Y, epochs=20, batch_size=32, verbose=0)
    return model.get_weights()


def cut_energy(model: keras.Model, recipe: Recipe) -> float:
    """Share of the kernels' energy that `hard_prune` removes."""
    before = {target.path: target.kernel() for target in hooked_kernels(model)}
    hard_prune(model, recipe)
    after = {target.path: target.kernel() for target in hooked_kernels(model)}
    removed = sum(np.square(before[name] - after[name]).sum() for name in before)
    return removed / sum(np.square(kernel).sum() for kernel in before.values())


@pytest.mark.parametrize(
    "budget", [pytest.param(False, marks=pytest.mark.backend), True]
)
def test_admm_trains_towards_the_rate(budget):
    rates = {"rules": "d*", "rate": 4} if budget else {"rules": {"d1": 2, "d2": 8}}
    recipe = Recipe(
        **rates, method="admm", strength=0.1, reweighted_epochs=20, refreshes=10
    )
    model, plain = mlp(), mlp()
    reweighted_train(model, recipe, X, Y, batch_size=32, verbose=0)
    for target in hooked_kernels(model):
        assert target.penalty.strength == pytest.approx(0.1 * 1.3**10)
    plain.set_weights(weights_trained_on())
    attach(plain, recipe)
    assert cut_energy(model, recipe) < 0.1 < cut_energy(plain, recipe)


@pytest.mark.backend
def test_the_rates_of_primal_proximal_emerge():
    model = mlp()
    method = {"method": "PrimalProximal", "shrink": 0.12}
    recipe = Recipe(
        "d*",
        method=method,
        threshold=0.02,
        strength=0.1,
        reweighted_epochs=12,
        refreshes=10,
    )
    reweighted_train(model, recipe, X, Y, batch_size=32, verbose=0)
    assert cut_energy(model, recipe) < 0.1
    rates = [1 / (t.kernel() != 0).mean() for t in hooked_kernels(model)]
    assert min(rates) > 1.05


def test_a_method_that_projects_needs_a_rate():
    with pytest.raises(ValueError, match="has no rate: method ADMM"):
        Recipe("d*", method="admm")


def test_a_gradual_recipe_takes_no_threshold():
    with pytest.raises(ValueError, match="recipe. Received: rate=None, threshold=0.01"):
        Recipe("d*", method=GradualMagnitude(), threshold=0.01)


@pytest.mark.parametrize(
    "callback, recipe",
    [
        (GradualPrune, Recipe("d*", rate=4)),
        (StrengthControl, Recipe("d*", rate=4, method="GradualMagnitude")),
        (StrengthControl, Recipe("d*", rate=4, strength=1e-4)),
    ],
)
def test_callbacks_say_which_recipe_they_expect(callback, recipe):
    with pytest.raises(ValueError, match=f"{callback.__name__}: expected a recipe"):
        callback(recipe)


def test_strength_control_needs_penalties():
    control = StrengthControl(Recipe("d*", rate=4))
    with pytest.raises(ValueError, match="'d1' carries no penalty. Call attach"):
        mlp().fit(X, Y, callbacks=[control], verbose=0)
