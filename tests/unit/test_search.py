# SPDX-License-Identifier: Apache-2.0
"""The largest rate within a loss: where the search ends, and that it goes on."""

import functools
import math
import types

import keras
import numpy as np
import pytest

from tfrewprune.pipeline import largest_rate, search
from tfrewprune.pipeline.search import RateSearch
from tfrewprune.recipe import Infeasible, Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import NofM, Unstructured

X = np.random.default_rng(0).standard_normal((256, 16)).astype(np.float32)
Y = (X[:, :4].sum(axis=1) > 0).astype(int)
DATA = {"x": X, "y": Y, "validation_data": (X, Y)}


def mlp():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    return model


@functools.cache
def trained_weights():
    model = mlp()
    model.fit(X, Y, epochs=5, verbose=0)
    return model.get_weights()


@pytest.fixture
def model():
    weights = trained_weights()  # before the seed
    model = mlp()
    model.set_weights(weights)
    return model


class Compressions:
    """Stands for `compress`: the score falls beyond a rate, weights tell which ran."""

    def __init__(self, monkeypatch, most, dense, infeasible=math.inf):
        self.most, self.dense, self.rates = most, dense, []
        self.infeasible, self.fail_at = infeasible, None
        monkeypatch.setattr(search, "compress", self)

    def __call__(self, model, recipe, x, y, **options):
        if recipe.constraints is None:
            rate = recipe.rate
        else:
            rate = 100 / float(recipe.constraints["macs"][:-1])
        self.rates.append(rate)
        if rate > self.infeasible:
            raise Infeasible("macs: at least 3")
        if len(self.rates) == self.fail_at:
            raise KeyboardInterrupt
        model.set_weights([np.full_like(w, rate) for w in model.get_weights()])
        lost = 0.004 if rate <= self.most else 0.02
        return types.SimpleNamespace(
            scores={"after": {"loss": 1.0, "accuracy": self.dense - lost}},
            model=model,
            collapsed={"hidden": 2} if rate > self.most else {},
            pruned_rate=rate,
            costs={"macs": {"limit": 500 / rate, "reached": 500 / rate}},
        )


def dense_accuracy(model):
    return model.evaluate(X, Y, verbose=0)[1]


@pytest.mark.parametrize("most", [1.3, 3, 4, 11, 100])
def test_the_search_brackets_the_largest_rate(model, monkeypatch, most):
    runs = Compressions(monkeypatch, most, dense_accuracy(model))
    found = largest_rate(model, within=0.5, precision=1.1, highest=64, **DATA)
    assert found.rate <= most and (found.rate * 1.1 >= most or found.rate == 64)
    assert found.metric == "accuracy" and len(found.trials) == len(runs.rates) < 12
    # The model is the one of that rate.
    np.testing.assert_allclose(model.get_weights()[0], found.rate)
    assert f"{found.rate:.3g}x is the most" in str(found)


def test_rates_below_the_first_cut_are_searched_too(model, monkeypatch):
    runs = Compressions(monkeypatch, 3, dense_accuracy(model))
    recipe = Recipe(rate=16, start_rate=8)
    found = largest_rate(model, recipe, within=0.5, first=16, **DATA)
    assert found.rate <= 3 and min(runs.rates) < 8


def test_without_any_rate_the_model_stays_dense(model, monkeypatch):
    before = model.get_weights()
    Compressions(monkeypatch, 0, dense_accuracy(model))
    found = largest_rate(model, within=0.5, **DATA)
    assert found.rate == 1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert "hidden collapsed in epoch 2" in str(found)


def test_a_search_goes_on_where_it_was_interrupted(model, monkeypatch, tmp_path):
    weights, dense = model.get_weights(), dense_accuracy(model)
    options = {"within": 0.5, "state": tmp_path / "search", **DATA}
    runs = Compressions(monkeypatch, 11, dense)
    runs.fail_at = 4
    with pytest.raises(KeyboardInterrupt):
        largest_rate(model, **options)
    first = runs.rates
    # The dense model is back, for a notebook that calls it again.
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    runs = Compressions(monkeypatch, 11, dense)
    found = largest_rate(model, **options)
    assert runs.rates[0] == first[-1] and not set(runs.rates[1:]) & set(first)
    assert [trial.rate for trial in found.trials] == first[:-1] + runs.rates
    # And when all is done, nothing is tried again.
    model.set_weights(weights)
    runs = Compressions(monkeypatch, 11, dense)
    again = largest_rate(model, **options)
    assert runs.rates == [] and again.rate == found.rate
    np.testing.assert_allclose(model.get_weights()[0], found.rate)
    with pytest.raises(ValueError, match="holds another search"):
        model.set_weights(weights)
        largest_rate(model, **{**options, "within": 1.0})


def test_constraints_that_cannot_be_met_end_the_search_from_above(model, monkeypatch):
    Compressions(monkeypatch, 100, dense_accuracy(model), infeasible=6)
    found = largest_rate(model, within=0.5, of="macs", **DATA)
    assert 5 < found.rate <= 6
    assert "8x: cannot be reached" in str(found)
    assert "x was refused: macs: at least 3" in str(found).splitlines()[-1]


def test_of_a_falling_metric_percent_are_counted(model, monkeypatch):
    Compressions(monkeypatch, 100, dense_accuracy(model))
    loss = model.evaluate(X, Y, verbose=0)[0]
    needed = 100 * (1.0 - loss) / loss
    weights = model.get_weights()
    for within, expected in ((needed + 1, 8), (needed - 1, 1)):
        model.set_weights(weights)
        found = largest_rate(model, within=within, metric="loss", highest=8, **DATA)
        assert found.rate == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"of": "joules"}, "`of` must be 'rate' or one of"),
        ({"validation_data": None}, "expected validation_data"),
        ({"precision": 1.0}, "precision > 1"),
        ({"metric": "auc"}, "Unknown metric 'auc'. Expected one of"),
        ({"recipe": Recipe(rate=2, then=Recipe(rate=4))}, "a recipe of one step"),
        ({"recipe": Recipe(rate=2, shrink=True)}, "a recipe without `shrink`"),
        ({"recipe": Recipe(Rule("hidden", rate=2))}, "without a `rate` of its own"),
    ],
)
def test_impossible_searches_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        largest_rate(model, **{"within": 0.5, **DATA, **arguments})


def test_a_real_search(model, tmp_path):
    recipe = Recipe(
        Rule("hidden", structure=Unstructured()),
        rate=4,
        reweighted_epochs=1,
        retrain_epochs=1,
    )
    found = largest_rate(
        model,
        recipe,
        **DATA,
        within=5,
        precision=3,
        highest=8,
        state=tmp_path,
        verbose=0,
    )
    assert isinstance(found, RateSearch) and found.rate >= 2
    kernel = found.model.get_layer("hidden").kernel
    zeros = float(np.mean(keras.ops.convert_to_numpy(kernel) == 0))
    assert zeros == pytest.approx(1 - 1 / found.rate, abs=0.01)


def test_a_collapse_is_told_when_it_happens(model):
    from tfrewprune.pipeline import compress

    recipe = Recipe(
        Rule("hidden", structure=Unstructured()),
        strength=0.1,
        threshold=1e-3,
        reweighted_epochs=12,
        retrain_epochs=0,
        method="reweighted_proximal",
    )
    told = "Layer 'hidden' collapsed in epoch"
    with pytest.warns(UserWarning, match=told) as caught:
        result = compress(model, recipe, X, Y, verbose=0)
    # At this line, though Keras calls what tells.
    assert [w.filename for w in caught if told in str(w.message)] == [__file__]
    epoch = result.collapsed["hidden"]
    logs = result.history["reweighted"]["collapsed"]
    assert logs[epoch - 1] == 1 and not any(logs[: epoch - 1])
    assert f"hidden collapsed in epoch {epoch}" in str(result)


def test_rates_that_structures_end_are_told_as_they_are(model):
    """Two of four is two of four, whatever rate is asked for."""
    recipe = Recipe(
        Rule("hidden", structure=NofM(2, 4)),
        rate=2,
        method="GradualMagnitude",
        reweighted_epochs=1,
        retrain_epochs=0,
    )
    found = largest_rate(model, recipe, **DATA, within=90, highest=64, verbose=0)
    assert found.rate == pytest.approx(2)
    assert [trial.rate for trial in found.trials] == [4, 8]
    assert "8x: " in str(found) and "(at 2x, what was reached)" in str(found)


def test_a_search_that_fails_leaves_the_dense_model(model, tmp_path):
    weights = model.get_weights()

    class Failing(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("disk full")

    recipe = Recipe("hidden", rate=4, reweighted_epochs=1, retrain_epochs=1)
    options = {**DATA, "within": 5, "state": tmp_path, "verbose": 0}
    with pytest.raises(RuntimeError, match="disk full"):
        largest_rate(model, recipe, **options, callbacks=[Failing()])
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.losses == [] and model.get_layer("hidden").kernel.constraint is None
    # Other weights are another search, before any trial is done too.
    model.set_weights([-w for w in weights])
    with pytest.raises(ValueError, match="holds another search"):
        largest_rate(model, recipe, **options)
