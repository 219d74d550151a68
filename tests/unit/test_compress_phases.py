# SPDX-License-Identifier: Apache-2.0
"""compress over its phases: callbacks, resuming, whatever `fit` accepts."""

import csv
import functools
import subprocess
import sys

import keras
import numpy as np
import pytest

from tfrewprune.pipeline import (
    compress,
    hard_prune,
    masked_retrain,
    reweighted_train,
)
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.wrappers import attach, hooked_kernels

layers = keras.layers
X = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
Y = (X @ np.random.default_rng(1).standard_normal((32, 4))).argmax(1)
RECIPE = Recipe(Rule("d*", rate=4), reweighted_epochs=3, retrain_epochs=2)


def mlp(optimizer="adam", **compiled) -> keras.Model:
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
    compiled = {"metrics": ["accuracy"], **compiled}
    model.compile(optimizer, loss, **compiled)
    return model


def zeros(model: keras.Model) -> list[float]:
    return [
        float((np.asarray(model.get_layer(name).kernel) == 0).mean())
        for name in ("d1", "d2")
    ]


@pytest.mark.backend
def test_the_best_checkpoint_is_a_pruned_model(tmp_path):
    best = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "best.keras"), monitor="val_accuracy", save_best_only=True
    )
    compress(
        *(mlp(), RECIPE, X, Y),
        validation_data=(X, Y),
        callbacks=[best],
        verbose=0,
    )
    assert zeros(keras.models.load_model(tmp_path / "best.keras")) == [0.75, 0.75]


def test_numbered_checkpoints_count_on(tmp_path):
    each = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.weights.h5"), "loss")
    each.save_weights_only = True
    compress(mlp(), RECIPE, X, Y, callbacks=[each], verbose=0)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == list("12345")


@pytest.mark.backend
def test_early_stopping_cannot_undo_the_penalty():
    stop = keras.callbacks.EarlyStopping(
        "val_loss", mode="max", patience=0, restore_best_weights=True
    )
    result = compress(
        *(mlp(), RECIPE, X, Y),
        validation_data=(X, Y),
        callbacks=[stop],
        verbose=0,
    )
    assert len(result.history["reweighted"]["loss"]) == 3
    assert zeros(result.model) == [0.75, 0.75]


def test_choosing_callbacks_without_a_retraining_phase_are_reported():
    recipe = RECIPE.replace(retrain_epochs=0, reweighted_epochs=1)
    stop = keras.callbacks.EarlyStopping("loss")
    with pytest.warns(UserWarning, match="EarlyStopping chooses among models that"):
        compress(mlp(), recipe, X, Y, callbacks=[stop], verbose=0)


def test_csv_log_holds_all_phases_and_columns_agree(tmp_path):
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    compress(mlp(), RECIPE, X, Y, callbacks=[log], verbose=0)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["epoch"] for row in rows] == list("01234")
    for column in ("penalty", "strength"):
        assert float(rows[0][column]) > 0 == float(rows[4][column])
    assert all(len(row) == len(rows[0]) and None not in row.values() for row in rows)
    assert float(rows[4]["rate"]) == 4
    assert log.append is False


class PowerCut(keras.callbacks.Callback):
    """Ends a training as a power cut would, after so many epochs."""

    def __init__(self, after: int):
        super().__init__()
        self.after = after

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.after:
            raise RuntimeError("power cut")


def test_a_log_file_starts_anew_after_a_run_that_was_cut_short(tmp_path):
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    with pytest.raises(RuntimeError, match="power cut"):
        compress(mlp(), RECIPE, X, Y, callbacks=[log, PowerCut(4)], verbose=0)
    compress(mlp(), RECIPE, X, Y, callbacks=[log], verbose=0)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["epoch"] for row in rows] == list("01234")


def train_all(*callbacks):
    keras.utils.set_random_seed(1)
    options = {"shuffle": False, "verbose": 0}
    return compress(mlp(), RECIPE, X, Y, callbacks=list(callbacks), **options)


@functools.cache
def weights_without_interruption():
    return train_all().model.get_weights()


@pytest.mark.parametrize(
    "after, left",
    [
        pytest.param(2, {"reweighted": 1, "retrain": 2}, marks=pytest.mark.backend),
        (3, {"retrain": 2}),
        (4, {"retrain": 1}),
    ],
)
def test_resuming_trains_what_is_left_and_ends_as_without_interruption(
    tmp_path, after, left
):
    def run(*others):
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
        return train_all(backup, *others)

    with pytest.raises(RuntimeError, match="power cut"):
        run(PowerCut(after))
    resumed = run()
    trained = {phase: len(logs["loss"]) for phase, logs in resumed.history.items()}
    assert trained == left
    for one, other in zip(
        weights_without_interruption(), resumed.model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert not (tmp_path / "backup").exists()


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """Not registered with Keras and without get_config, as users write them."""

    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return self.start / (1 + keras.ops.cast(step, "float32"))


class Careful(keras.optimizers.SGD):
    """A subclass that is not registered."""


class Stubborn(keras.optimizers.SGD):
    """A subclass that its own config cannot build."""

    def __init__(self, strength, other):
        super().__init__(learning_rate=strength + other)


class Share(keras.metrics.Metric):
    """Without get_config, though its constructor takes an argument."""

    def __init__(self, label):
        super().__init__(name="share")
        self.label = label
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        hits = keras.ops.argmax(y_pred, -1) == self.label
        self.total.assign(keras.ops.mean(keras.ops.cast(hits, "float32")))

    def result(self):
        return keras.ops.convert_to_tensor(self.total)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda: mlp(keras.optimizers.Adam(Halving(0.01))), marks=pytest.mark.backend
        ),
        lambda: mlp(Careful(0.1, momentum=0.9)),
        lambda: mlp(Stubborn(0.05, 0.05)),
        pytest.param(lambda: mlp(metrics=[Share(2)]), marks=pytest.mark.backend),
        lambda: mlp(keras.optimizers.SGD(lambda: 0.01)),
    ],
    ids=["schedule", "optimizer", "optimizer without config", "metric", "callable"],
)
def test_what_fit_accepts_works(make):
    model = make()
    model.fit(X, Y, verbose=0)
    kind = type(model.optimizer)
    result = compress(model, RECIPE, X, Y, verbose=0)
    assert zeros(result.model) == [0.75, 0.75]
    assert type(result.model.optimizer) is kind


@pytest.mark.backend
def test_schedules_start_over_in_every_phase():
    rates = []

    class Note(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            rates.append(float(np.asarray(self.model.optimizer.learning_rate)))

    model = mlp(keras.optimizers.SGD(Halving(0.5)))
    compress(model, RECIPE, X, Y, batch_size=64, callbacks=[Note()], verbose=0)
    assert rates[0] == rates[3] == 0.5 and rates[1] < 0.5


@pytest.mark.parametrize(
    "policy, floatx",  # those of float32: end_to_end/test_training_modes.py
    [
        ("mixed_bfloat16", "float64"),
        ("float64", "float32"),
        pytest.param("float64", "float64", marks=pytest.mark.backend),
    ],
)
def test_precision_policies(policy, floatx):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only with jax_enable_x64")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx(floatx)
    try:
        model = mlp(keras.optimizers.Adam(1e-3))
        x = X.astype(np.float64) if policy == "float64" else X
        result = compress(model, RECIPE, x, Y, verbose=0)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(before)
    assert zeros(result.model) == [0.75, 0.75]
    assert np.isfinite(result.history["retrain"]["loss"]).all()


def test_a_rate_stands_for_a_recipe():
    recipe_epochs = {"reweighted_epochs": 1, "retrain_epochs": 1}
    result = compress(mlp(), Recipe(rate=8, **recipe_epochs), X, Y, verbose=0)
    assert result.pruned_rate == pytest.approx(8, rel=0.05)
    with pytest.raises(ValueError, match="expected a recipe or a rate"):
        compress(mlp(), x=X, y=Y)
    with pytest.raises(ValueError, match="expected a recipe or a rate"):
        compress(mlp(), RECIPE, X, Y, rate=8)


def test_no_data_is_said_before_anything_is_done():
    with pytest.raises(ValueError, match="no training data"):
        compress(mlp(), RECIPE)
    model = mlp()
    with pytest.raises(ValueError, match="reweighted_train: no training data"):
        reweighted_train(model, RECIPE)
    assert not hooked_kernels(model)
    hard_prune(model, RECIPE)
    with pytest.raises(ValueError, match="masked_retrain: no training data"):
        masked_retrain(model, RECIPE)
    with pytest.raises(ValueError, match="Received: initial_epoch=2"):
        compress(mlp(), RECIPE, X, Y, initial_epoch=2)


def test_a_budget_that_cannot_be_counted_is_refused_before_training():
    model = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(64, 3), layers.Conv2D(64, 3)]
    )
    model.compile("sgd", "mse")
    before = [np.array(weight) for weight in model.get_weights()]
    recipe = Recipe(rate=8, budget="macs", strength=1e-4, reweighted_epochs=1)
    x, y = np.ones((4, 8, 8, 3), np.float32), np.ones((4, 4, 4, 64), np.float32)
    with pytest.raises(ValueError, match="budget of MACs needs fixed spatial sizes"):
        compress(model, recipe, x, y, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_rates_count_all_weights_of_the_model():
    inputs = keras.Input((8, 16))
    hidden = layers.LSTM(64)(inputs)
    model = keras.Model(inputs, layers.Dense(4)(layers.Dense(128, name="d")(hidden)))
    recipe = Recipe(Rule("d", rate=8), reweighted_epochs=0, retrain_epochs=0)
    model.compile("sgd", "mse")
    result = compress(model, recipe, verbose=0)
    kept = model.count_params() - 64 * 128 * 7 // 8
    assert result.pruned_rate == 8
    assert result.rate == pytest.approx(model.count_params() / kept)
    assert f"{result.rate:.2f}x fewer weights in the model, 8.00x" in str(result)


def test_pruning_less_than_before_reports_what_is_there():
    model = mlp()
    hard_prune(model, Recipe(Rule("d2", rate=8)))
    (row,) = [r for r in hard_prune(model, Recipe(Rule("d2", rate=4))) if not r.reason]
    assert row.rate == 8 and "are zero already" in row.note
    assert zeros(model)[1] == 0.875


def test_removing_nothing_is_said():
    with pytest.warns(UserWarning, match="hard_prune removed nothing. Give"):
        rows = hard_prune(mlp(), Recipe("d2"))
    assert "no group has rms" in next(r.note for r in rows if r.layer == "d2")


def test_patterns_leave_alone_what_cannot_run_packed():
    inputs = keras.Input((4, 4, 4, 16))
    volume = layers.Conv3D(32, 2, name="volume")(inputs)
    model = keras.Model(inputs, layers.Dense(64)(layers.Flatten()(volume)))
    recipe = Recipe(Rule("*", rate=4), skip_first=False, skip_last=False)
    rows = {row.layer: row for row in hard_prune(model, recipe)}
    assert rows["volume"].reason.startswith("no packed operator for Conv3D")
    rows = {r.layer: r for r in hard_prune(model, Recipe(Rule("volume", rate=4)))}
    assert rows["volume"].rate == 4 and "save neither bytes" in rows["volume"].note


def test_every_output_is_a_classifier():
    inputs = keras.Input((32,))
    trunk = layers.Dense(64, name="trunk")(inputs)
    outputs = [
        layers.Dense(32, name="color")(trunk),
        layers.Softmax()(layers.Dense(32, name="shape")(trunk)),
    ]
    model = keras.Model(inputs, outputs)
    rows = {row.layer: row for row in hard_prune(model, Recipe(Rule("*", rate=4)))}
    assert rows["trunk"].reason is None
    assert "skip_last" in rows["color"].reason and "skip_last" in rows["shape"].reason


def test_a_model_saved_in_a_phase_loads_after_importing_the_package(tmp_path):
    model = mlp()
    attach(model, RECIPE)
    hard_prune(model, RECIPE)
    model.save(tmp_path / "model.keras")
    for imports in ("import tfrewprune, keras", "import keras, tfrewprune"):
        program = (
            f"{imports}\nmodel = keras.models.load_model({str(tmp_path)!r} + "
            "'/model.keras')\nprint(type(model.layers[0].kernel.constraint).__name__)"
        )
        child = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert child.stdout.strip() == "MaskConstraint"
    assert hooked_kernels(model)
