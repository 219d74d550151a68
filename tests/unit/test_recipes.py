# SPDX-License-Identifier: Apache-2.0
"""Named recipes: they load, say where they come from, and prune a real network."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import tfrewprune as trp
from tfrewprune.cli import main

layers = keras.layers
NAMES = trp.recipes.names()
TRAINED, RATE = 1300, 4
FIT = {"batch_size": 100, "verbose": 0}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_survives_json(name):
    recipe = trp.recipes.get(name, rate=6)
    assert trp.Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.steps[-1].rate == 6 and recipe.threshold is None
    rates = [step.rate for step in recipe.steps]
    assert rates == sorted(rates)


@pytest.mark.parametrize("name", NAMES)
def test_every_constant_has_an_origin(name):
    named = trp.recipes.describe(name)
    constants = {"structure", "method", "rate", "epochs"}
    if named.recipe.method.penalized:
        constants |= {"strength", "refreshes"}
    last = named.recipe.steps[-1]
    constants |= {field for field in ("purify", "shrink") if getattr(last, field)}
    if named.recipe.steps[-1].quantization is not None:
        constants |= {"levels"}
    assert set(named.origins) == constants
    assert all(origin.endswith(".") for origin in named.origins.values())
    assert named.title and named.source
    explained = {
        "rules",
        "method",
        "rate",
        "strength",
        "threshold",
        "refreshes",
        "then",
        "quantization",
    }
    explained |= {"reweighted_epochs", "retrain_epochs", "purify", "shrink"}
    for step in named.recipe.steps:
        assert len(step.rules) == 1
        for field in dataclasses.fields(trp.Recipe):
            if field.name not in explained:
                assert getattr(step, field.name) == field.default, field.name


def test_published_constants():
    """Against the papers and the code of their authors, as cited in `origins`."""
    get = trp.recipes.get
    assert get("unified-reweighted").method == trp.Reweighted(1e-3)
    assert get("unified-reweighted").refreshes == get("blk-rew").refreshes == 4
    assert get("yolobile-punched").rules[0].structure == trp.Punched(8, 4)
    # 4 runs of 25 epochs with rho = 1e-4 to 1e-1, an update every 6th, then 280.
    punched = get("yolobile-punched")
    last = punched.strength * punched.method.growth**punched.refreshes
    assert last == pytest.approx(1e-1)
    assert punched.refreshes + 1 == 4 * (25 // 6)
    assert punched.retrain_epochs / punched.reweighted_epochs == 280 / 100
    # rho 1e-3 times 1.3 every 20th of 200 epochs; the first target is at the start.
    patterns = get("patdnn")
    assert (patterns.strength, patterns.method.growth) == (1e-3, 1.3)
    assert patterns.refreshes + 1 == 200 // 20
    assert get("bert-block").rate == 5
    # Ye et al.: the second step at twice the rate of the first.
    first, second = get("progressive-admm").steps
    assert second.rate == 2 * first.rate == 11.5
    # rho from 1e-4 to 1e-1.
    single = get("admm-nn-s")
    assert single.strength * single.method.growth**single.refreshes == pytest.approx(
        0.1
    )
    columns, rows = get("rtmobile").steps
    assert columns.rules[0].kind == rows.rules[0].kind == "RNN"
    assert (columns.rate, rows.rate) == (5, 10)
    structures = [s.rules[0].structure for s in get("purified-structured").steps]
    assert structures == [trp.Column(), trp.Filter()]
    later = [name for name in NAMES if trp.recipes.describe(name).later]
    assert later == ["purified-structured"]
    # ADMM-NN: rounds that freeze 30 %; 4-bit cells; Ye et al.: the ends last.
    levels = {
        name: recipe.steps[-1].quantization
        for name in NAMES
        if (recipe := get(name)).steps[-1].quantization
    }
    assert {name: str(each.levels) for name, each in levels.items()} == {
        "sot-mram-pim": "EqualInterval(4)",
        "admm-nn-s": "EqualInterval(6)",
        "progressive-admm": "Binary",
    }
    assert all(each.share == 0.3 for each in levels.values())
    assert [name for name, each in levels.items() if each.ends_last] == [
        "progressive-admm"
    ]


def test_what_can_be_changed():
    recipe = trp.recipes.get(
        *("unified-reweighted", 8),
        match=["conv*", "head"],
        structure="Filter",
        retrain_epochs=3,
    )
    assert recipe.rules == (trp.Rule(["conv*", "head"], structure=trp.Filter()),)
    assert (recipe.rate, recipe.retrain_epochs, recipe.reweighted_epochs) == (8, 3, 10)
    recipe = trp.recipes.get("blk-rew", threshold=0.02)
    assert (recipe.rate, recipe.threshold) == (None, 0.02)
    automatic = trp.recipes.get("ss-auto")
    assert automatic.rate is None
    assert automatic.threshold is None
    assert automatic.method.threshold == automatic.method.shrink


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: trp.recipes.get("rew-blk"), "'rew-blk'. Expected.*'blk-rew', 'ss-au"),
        (lambda: trp.recipes.describe("x"), "Unknown recipe 'x'. Expected one of"),
        (lambda: trp.recipes.get("patdnn", epochs=3), "to recipe 'patdnn': .'epochs'"),
        (lambda: trp.recipes.get("patdnn", rules="*"), "Expected `match`, `structure`"),
        (lambda: trp.recipes.get("patdnn", rate=0.5), "`rate` is dense weights / kept"),
        (lambda: trp.recipes.get("patdnn", 2, threshold=0.1), "not both"),
        (lambda: trp.recipes.get("rtmobile", structure="Filter"), "has 2 steps"),
        (lambda: trp.recipes.get("progressive-admm", threshold=0.1), "has 2 steps"),
    ],
)
def test_impossible_requests_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    return images, data.target


@pytest.fixture(scope="module")
def dense(digits):
    """A small network for the digits, and its weights after training."""
    keras.utils.set_random_seed(0)
    options = {"activation": "relu", "use_bias": False}  # fewer variables to trace
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, **options, name="stem"),
            layers.Conv2D(32, 3, **options, name="conv"),
            layers.Flatten(),
            layers.Dense(64, **options, name="hidden"),
            layers.Dense(10, use_bias=False, name="classifier"),
        ]
    )
    compile_(model)
    images, labels = digits
    model.fit(images[:TRAINED], labels[:TRAINED], epochs=10, **FIT)
    return model, model.get_weights()


@pytest.fixture(scope="module")
def recurrent(digits):
    """A network that reads the digits row by row, and its weights after training."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Reshape((8, 8)),
            layers.GRU(32, name="gru"),
            layers.Dense(10, name="classifier"),
        ]
    )
    compile_(model)
    images, labels = digits
    model.fit(images[:TRAINED], labels[:TRAINED], epochs=20, **FIT)
    return model, model.get_weights()


def compile_(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)


def compressed(recipe, dense, digits):
    """The result, and its accuracy on digits that were not trained on."""
    keras.utils.set_random_seed(1)
    model, weights = dense
    model.set_weights(weights)
    compile_(model)
    images, labels = digits
    result = trp.compress(model, recipe, images[:TRAINED], labels[:TRAINED], **FIT)
    guesses = np.argmax(result.model(images[TRAINED:]), axis=1)
    return result, np.mean(guesses == labels[TRAINED:])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_prunes_digits(name, request, digits):
    of_gates = trp.recipes.get(name).rules[0].kind == "RNN"
    dense = request.getfixturevalue("recurrent" if of_gates else "dense")
    recipe = trp.recipes.get(name, RATE, reweighted_epochs=2, retrain_epochs=2)
    levels = None
    if (quantization := recipe.steps[-1].quantization) is not None:
        levels = quantization.levels
        short = quantization.replace(epochs=2, freeze_epochs=4)
        recipe = trp.recipes.get(
            *(name, RATE), reweighted_epochs=2, retrain_epochs=2, quantization=short
        )
    result, accuracy = compressed(recipe, dense, digits)
    # Whole columns and rows come a few hundred weights at a time.
    least = RATE / 1.05
    most = 3 * RATE if recipe.steps[-1].purify else 1.05 * RATE
    assert least < result.pruned_rate < most
    assert accuracy > 0.7, "chance is 0.1, dense 0.93"
    if levels is not None:
        model, _ = dense
        for kernel in model.get_weights():
            kernel = kernel.reshape(1, -1, 1)
            np.testing.assert_allclose(levels.project(kernel), kernel, rtol=1e-5)


def test_the_purified_recipe_ends_in_a_smaller_model(dense, digits):
    recipe = trp.recipes.get(
        *("purified-structured", RATE), reweighted_epochs=1, retrain_epochs=2
    )
    result, accuracy = compressed(recipe, dense, digits)
    images, _ = digits
    small = result.model
    assert result.shrunk.weights_left == small.count_params()
    assert small.count_params() < result.shrunk.weights / 2
    kept = sum(np.count_nonzero(array) for array in small.get_weights())
    assert result.rate == pytest.approx(result.shrunk.weights / kept, rel=1e-3)
    assert "shrunk:" in result.headline and accuracy > 0.6
    # Not one custom operator: LiteRT alone runs it.
    content = trp.convert(small, minimum_gain=1e9)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=bytes(content))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:1])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, small(images[:1]), atol=1e-4)


def test_the_rate_of_ss_auto_emerges(dense, digits):
    recipe = trp.recipes.get("ss-auto", reweighted_epochs=6, retrain_epochs=0)
    result, accuracy = compressed(recipe, dense, digits)
    assert result.pruned_rate > 1.5 and accuracy > 0.8


def test_the_list_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in NAMES:
        (line,) = [line for line in lines if line.startswith(name)]
        named = trp.recipes.describe(name)
        assert str(named.recipe.rules[0].structure) in line
        assert type(named.recipe.method).__name__ in line
        assert (named.arxiv or "our own") in line


def test_a_printed_recipe_can_be_saved_and_read(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipes", "patdnn"]) == 0
    out, err = capsys.readouterr()
    assert trp.Recipe.from_json(out) == trp.recipes.get("patdnn")
    assert "arXiv 2001.00138" in err and "strength: rho 1e-3" in err
    assert max(map(len, err.splitlines())) <= 80
    assert main(["recipes", "patdnn", "--json"]) == 0
    assert capsys.readouterr() == (out, "")


def test_the_list_as_json(capsys):
    assert main(["recipes", "--json"]) == 0
    documents = json.loads(capsys.readouterr().out)["recipes"]
    assert [document["name"] for document in documents] == list(NAMES)
    for document in documents:
        recipe = trp.Recipe.from_config(document["recipe"])
        assert recipe == trp.recipes.get(document["name"])
        assert document["origins"]["epochs"]


def test_an_unknown_name_fails_with_the_names(capsys):
    assert main(["recipes", "blkrew"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "'blkrew'" in err
    assert all(name in err for name in NAMES)
