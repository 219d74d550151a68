# SPDX-License-Identifier: Apache-2.0
"""hard_prune, summaries and the phases: numbers, guards, messages."""

import contextlib
import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.methods import Magnitude
from tfrewprune.pipeline import (
    compress,
    format_rows,
    hard_prune,
    lamp_scores,
    largest_rate,
    levels_train,
    masked_retrain,
    quantize,
    reweighted_train,
    sparsity_summary,
    strip,
)
from tfrewprune.quantization import Quantization
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Filter, NofM, Unstructured
from tfrewprune.wrappers import attach, hooked_kernels

layers = keras.layers
X = np.random.default_rng(0).standard_normal((48, 8, 8, 3)).astype(np.float32)
Y = X.mean((1, 2)).argmax(1)


def conv_model(compiled: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(16, 3, padding="same", name="stem"),
            layers.Conv2D(32, 3, padding="same", name="wide"),
            layers.Conv2D(40, 3, strides=4, name="deep"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    return model


def rows_of(model, recipe) -> dict:
    return {row.layer: row for row in hard_prune(model, recipe)}


@pytest.mark.parametrize("rate", [1.1, 2, 3.5, 8, 30])
def test_rate_per_layer_keeps_the_largest_groups(rate):
    model = conv_model()
    kernel = np.asarray(model.get_layer("deep").kernel)
    row = rows_of(model, Recipe(Rule("deep", rate=rate)))["deep"]
    # At least the rate, and within one group of it, ragged edge (8 of 40 rows) or not.
    assert row.weights / rate - 16 <= row.kept <= row.weights / rate
    after = np.asarray(model.get_layer("deep").kernel)
    assert np.count_nonzero(after) == row.kept
    np.testing.assert_array_equal(after[after != 0], kernel[after != 0])
    matrix = kernel.reshape(288, 40)
    norms = [
        np.sqrt(np.square(part).mean(1)) for part in np.split(matrix, [16, 32], axis=1)
    ]
    alive = np.split(after.reshape(288, 40) != 0, [16, 32], axis=1)
    kept = np.concatenate([n[a.all(1)] for n, a in zip(norms, alive, strict=True)])
    gone = np.concatenate([n[~a.any(1)] for n, a in zip(norms, alive, strict=True)])
    assert kept.size == row.groups_kept and kept.size + gone.size == row.groups
    assert not gone.size or kept.min() >= gone.max()


def test_pruning_again_prunes_further_and_never_revives():
    model = conv_model()
    first = rows_of(model, Recipe(Rule("wide", rate=4)))["wide"]
    mask = hooked_kernels(model)[0].mask.groups
    second = rows_of(model, Recipe(Rule("wide", rate=8)))["wide"]
    assert (first.rate, second.rate) == (4.0, 8.0)
    assert not (hooked_kernels(model)[0].mask.groups & ~mask).any()


@pytest.mark.parametrize("budget", ["weights", "macs"])
def test_global_budget(budget):
    model = conv_model()
    recipe = Recipe(["wide", "deep"], rate=6, budget=budget)
    rows = rows_of(model, recipe)
    # 8 x 8 outputs against 2 x 2
    cost = {"wide": 64, "deep": 4} if budget == "macs" else {"wide": 1, "deep": 1}
    total = sum(cost[name] * rows[name].weights for name in cost)
    spent = sum(cost[name] * rows[name].kept for name in cost)
    assert spent <= total / 6
    assert spent >= total / 6 - 16 * max(cost.values())
    if budget == "macs":
        assert rows["wide"].rate > rows["deep"].rate


def test_budget_does_not_depend_on_the_scale_of_a_layer():
    rates = []
    for scale in (1.0, 1e-4):
        model = conv_model()
        kernel = model.get_layer("wide").kernel
        kernel.assign(np.asarray(kernel) * scale)
        rates.append(rows_of(model, Recipe(["wide", "deep"], rate=6))["wide"].rate)
    assert rates[0] == pytest.approx(rates[1], rel=0.02)


def test_a_rule_s_own_rate_stands_outside_the_budget():
    rows = rows_of(conv_model(), Recipe([Rule("wide", rate=2), "deep"], rate=10))
    assert rows["wide"].rate == 2.0
    assert rows["deep"].rate == pytest.approx(10, rel=0.03)


def test_threshold_lets_the_weights_decide():
    model = conv_model()
    weights = np.full((3, 3, 32, 40), 1e-4, np.float32)
    weights[0, 0, :10] = 0.1
    model.get_layer("deep").kernel.assign(weights)
    for recipe in (Recipe("deep", threshold=1e-3), Recipe("deep")):  # the default
        assert rows_of(model, recipe)["deep"].kept == 10 * 40
    assert rows_of(model, Recipe("deep", threshold=1e-5))["deep"].kept == 10 * 40


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=20))
@settings(max_examples=50)
def test_lamp_scores(energy):
    scores = lamp_scores(np.array(energy))
    order = sorted(range(len(energy)), key=lambda i: (-energy[i], i))
    for rank, index in enumerate(order):
        total = sum(energy[i] for i in order[: rank + 1])
        expected = energy[index] / total if total else 0.0
        assert scores[index] == pytest.approx(expected)


def test_a_layer_is_never_emptied_by_default():
    model = conv_model()
    rows = rows_of(model, Recipe(Rule("wide", structure=Filter(), rate=1000)))
    assert rows["wide"].groups_kept == 1
    assert "would keep 0 of 32 groups; kept 1 (minimum_groups=1)" in rows["wide"].note
    rows = rows_of(conv_model(), Recipe("wide", threshold=1e9, minimum_groups=5))
    assert rows["wide"].groups_kept == 5 and "only 0 of" in rows["wide"].note
    rows = rows_of(conv_model(), Recipe(["wide", "deep"], rate=1e6))
    assert {rows[n].groups_kept for n in ("wide", "deep")} == {1}
    assert "alone exceeds the budget" in rows["deep"].note
    rows = rows_of(conv_model(), Recipe(Rule("wide", rate=1e6), minimum_groups=0))
    assert rows["wide"].kept == 0 and rows["wide"].rate == float("inf")


def test_all_zero_layers_are_reported():
    model = conv_model()
    model.get_layer("wide").kernel.assign(np.zeros((3, 3, 16, 32)))
    rows = rows_of(model, Recipe(["wide", "deep"], rate=4))
    assert rows["wide"].note == "all weights are zero already"
    assert rows["deep"].kept > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_weights_are_named_and_nothing_is_changed(value):
    model = conv_model()
    weights = np.asarray(model.get_layer("deep").kernel).copy()
    weights[0, 0, 0, :7] = value
    model.get_layer("deep").kernel.assign(weights)
    before = [np.array(w) for w in model.get_weights()]
    with pytest.raises(ValueError, match=r"NaN.*deep/kernel \(7 of 11520\)"):
        hard_prune(model, Recipe(["wide", "deep"], rate=4))
    for left, right in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not hooked_kernels(model)


@pytest.mark.parametrize("call", [hard_prune, compress])
def test_broken_weights_of_a_layer_that_is_left_alone_are_refused_too(call):
    model = conv_model(compiled=True)
    model.get_layer("head").kernel.assign(np.full((160, 3), np.nan))
    arguments = () if call is hard_prune else (X, Y)
    with pytest.raises(ValueError, match=r"head/kernel \(480 of 480\)"):
        call(model, Recipe(Rule("wide", rate=4)), *arguments)
    assert not hooked_kernels(model)


def test_layers_without_a_single_weight_are_listed():
    model = keras.Sequential(
        [keras.Input((0,)), layers.Dense(16, name="empty"), layers.Dense(64)]
    )
    rows = rows_of(model, Recipe(Rule("*", rate=4), skip_last=False))
    assert rows["empty"].reason == "empty: weights of shape (0, 16)"


def test_macs_need_fixed_shapes():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(32, 3, name="free")(inputs))
    recipe = Recipe("free", rate=4, budget="macs")
    with pytest.raises(ValueError, match="budget of MACs needs fixed spatial sizes"):
        hard_prune(model, recipe)


def test_summary_rows_and_table():
    model = conv_model()
    recipe = Recipe([Rule("wide", rate=8), Rule("deep", structure=Filter(), rate=2)])
    rows = hard_prune(model, recipe)
    table = format_rows(rows).splitlines()
    assert table[1].split() == [
        "wide",
        "Block(16,",
        "1)",
        "3x3x16x32",
        "4,608",
        "576",
        "8.00x",
    ]
    assert table[3:] == [
        "left dense:",
        "  stem: no rule matches",
        "  head: no rule matches",
    ]
    dense = [row for row in rows if row.reason is not None]
    assert format_rows(dense).splitlines() == table[3:]
    assert format_rows([]) == ""
    document = json.loads(json.dumps([row.to_dict() for row in rows]))
    assert document[1]["structure"] == {"structure": "Block", "rows": 16, "columns": 1}
    assert document[1]["rate"] == 8.0
    after = {row.layer: row for row in sparsity_summary(strip(model))}
    assert after["wide"].kept == 576 and after["deep"].rate == 2.0


def test_phases_need_a_compiled_model_and_a_mask():
    recipe = Recipe("wide")
    for phase in (reweighted_train, masked_retrain, compress):
        with pytest.raises(ValueError, match=f"{phase.__name__}: .*is not compiled"):
            phase(conv_model(), recipe, X, Y)
    with pytest.raises(ValueError, match="carries no mask. Call hard_prune"):
        masked_retrain(conv_model(compiled=True), recipe, X, Y)


@pytest.mark.backend
def test_masked_retrain_ends_a_leftover_penalty():
    model = conv_model(compiled=True)
    recipe = Recipe([Rule("wide", rate=4), "deep"], retrain_epochs=1)
    hard_prune(model, Recipe(Rule("wide", rate=4)))
    attach(model, recipe)
    history = masked_retrain(model, recipe, X, Y, verbose=0)
    assert history.history["penalty"] == [0.0] and model.losses == []


@pytest.mark.backend
def test_compress_runs_all_phases(capsys):
    model = conv_model(compiled=True)
    optimizer = model.optimizer
    recipe = Recipe(
        [Rule("wide", rate=4), Rule("deep", structure=Unstructured(), rate=10)],
        reweighted_epochs=2,
        retrain_epochs=1,
    )
    result = compress(model, recipe, X, Y, validation_data=(X, Y), batch_size=16)
    assert result.model is model and not hooked_kernels(model)
    assert [len(h["loss"]) for h in result.history.values()] == [2, 1]
    assert set(result.scores) == {"before", "pruned", "after"}
    found = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert result.scores["after"]["loss"] == pytest.approx(found["loss"], rel=1e-4)
    kept = sum(np.count_nonzero(np.asarray(x.kernel)) for x in model.layers[:3])
    kept += model.layers[-1].kernel.shape[0] * 3
    assert sum(row.kept for row in result.layers) == kept
    weights = sum(row.weights for row in result.layers)
    biases = model.count_params() - weights
    assert result.rate == pytest.approx(model.count_params() / (kept + biases))
    pruned = [row for row in result.layers if row.reason is None]
    assert result.pruned_rate == pytest.approx(
        sum(row.weights for row in pruned) / sum(row.kept for row in pruned)
    )
    assert model.optimizer is not optimizer
    assert float(np.asarray(model.optimizer.learning_rate)) == pytest.approx(1e-2)
    json.dumps(result.to_dict())
    text = capsys.readouterr().out
    assert "x in its pruned layers" in text and "after: accuracy" in text
    assert "4.00x" not in text and "4.00x" in str(result)  # the table is for print()


def test_compress_is_silent_on_request_and_skips_empty_phases(capsys):
    model = conv_model(compiled=True)
    recipe = Recipe(Rule("wide", rate=4), method=Magnitude(), retrain_epochs=0)
    result = compress(model, recipe, X, Y, verbose=0)
    assert result.history == {} and result.scores == {}
    assert np.count_nonzero(np.asarray(model.get_layer("wide").kernel)) == 1152
    assert capsys.readouterr().out == ""


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[16 * index :][:16], Y[16 * index :][:16]


@pytest.mark.backend
def test_compress_builds_a_subclassed_model_from_any_data():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.wide = layers.Dense(64, name="wide")
            self.head = layers.Dense(3, name="head")

        def call(self, x):
            return self.head(self.wide(layers.Flatten()(x)))

    recipe = Recipe(Rule("wide", rate=8), reweighted_epochs=1, retrain_epochs=1)

    def run(data, targets=None):
        model = Net()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        return compress(model, recipe, data, targets, verbose=0)

    assert run(X, Y).layers[0].rate == 8.0
    assert run(Batches()).layers[0].rate == 8.0
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
        assert run(dataset).layers[0].rate == 8.0
    with pytest.raises(ValueError, match="a generator cannot be looked at without"):
        run(Batches()[i] for i in range(3))


def test_compress_refuses_before_training():
    model = conv_model(compiled=True)
    with pytest.raises(ValueError, match="Rule 'wdie' matches no layer"):
        compress(model, Recipe("wdie"), X, Y)
    with pytest.raises(ValueError, match="recipe holds the epochs.*epochs=3"):
        compress(model, Recipe("wide"), X, Y, epochs=3)
    with pytest.raises(ValueError, match="`verbose`.*Received: verbose=7"):
        compress(model, Recipe("wide"), X, Y, verbose=7)


@contextlib.contextmanager
def untouched(model):
    """Sees to it that weights, penalties and masks are as before."""

    def state():
        hooks = [(v.regularizer, v.constraint) for v in model.variables]
        return [np.array(w) for w in model.get_weights()], hooks, len(model.losses)

    weights, *rest = state()
    yield
    after, *rest_after = state()
    assert rest_after == rest
    for left, right in zip(weights, after, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "call, what, options",
    [
        (compress, Recipe("wide", rate=4, start_rate=2), {}),
        (reweighted_train, Recipe("wide", rate=4, start_rate=2), {}),
        (masked_retrain, Recipe("wide", rate=4), {}),
        (levels_train, Quantization(4).stages[0], {}),
        (quantize, Quantization(4), {}),
        (largest_rate, Recipe("wide"), {"within": 1, "validation_data": (X, Y)}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_unknown_arguments_of_fit_are_refused_before_any_change(call, what, options):
    model = conv_model(compiled=True)
    if call is masked_retrain:
        hard_prune(model, what)
        attach(model, what)
    message = f"{call.__name__}: .* no argument 'batchsize'.*batch_size.*batchsize=8"
    with untouched(model), pytest.raises(TypeError, match=message):
        call(model, what, X, Y, batchsize=8, **options)


def test_whatever_compress_refuses_leaves_the_model_as_it_was():
    model = conv_model(compiled=True)
    recipe = Recipe(["wide", "deep"], rate=4, start_rate=2, arrange=True)
    costly = Recipe(["wide", "deep"], constraints={"macs": "0.1%"}, start_rate=2)
    stranger = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten()])
    for call, options, message in (
        (compress, {"verbose": 7}, "verbose"),
        (compress, {"validation_data": (X[:, :4], Y)}, None),
        (reweighted_train, {"recipe": costly}, "macs"),
        (reweighted_train, {"teacher": stranger}, "teacher"),
    ):
        arguments = {"recipe": recipe, "x": X, "y": Y, **options}
        with untouched(model), pytest.raises(Exception, match=message):
            call(model, **arguments)


@pytest.mark.backend
def test_compress_keeps_a_loss_that_cannot_be_serialized():
    model = conv_model()
    model.compile("sgd", lambda y, p: keras.ops.mean(keras.ops.square(p)))
    recipe = Recipe(Rule("wide", rate=4), reweighted_epochs=1, retrain_epochs=1)
    result = compress(model, recipe, X, Y, verbose=0)
    assert np.isfinite(result.history["retrain"]["loss"]).all()


def test_block_is_default_structure():
    assert Recipe("wide").rules[0].structure == Block(16, 1)


@pytest.mark.parametrize(
    "method", ["Reweighted", "ReweightedProximal", "ADMM", "GradualMagnitude"]
)
def test_a_structure_of_one_rate_needs_no_other(method):
    rule, epochs = Rule("wide", structure=NofM(2, 4)), {"retrain_epochs": 1}
    recipe = Recipe(rule, method=method, reweighted_epochs=2, **epochs)
    result = compress(conv_model(compiled=True), recipe, X, Y, verbose=0)
    row = next(row for row in result.layers if row.layer == "wide")
    assert row.rate == pytest.approx(2)
    kernel = np.asarray(result.model.get_layer("wide").kernel)
    assert ((kernel != 0).reshape(9, 4, 4, 32).sum(2) <= 2).all()


def test_a_rate_that_a_structure_does_not_reach_is_blamed_on_it():
    rules = Rule(["wide", "deep"], structure=NofM(2, 4))
    note = rows_of(conv_model(), Recipe(rules, rate=8))["wide"].note
    assert "rate 8 is not reached: the structure decides wide, deep" in note
    assert "minimum_groups" not in note
    note = rows_of(conv_model(), Recipe(["wide", "deep"], rate=1e6))["wide"].note
    assert note == "minimum_groups=1 alone exceeds the budget of rate 1e+06"
