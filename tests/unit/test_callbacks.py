# SPDX-License-Identifier: Apache-2.0
"""Reweight and SparsityLogger inside a real `fit`, on every backend."""

import csv

import keras
import numpy as np
import pytest

from tfrewprune.methods import Reweighted
from tfrewprune.pipeline import hard_prune
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block
from tfrewprune.wrappers import (
    Prunable,
    Reweight,
    ReweightedRegularizer,
    SparsityLogger,
    attach,
    hooked_kernels,
)

X = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
Y = X[:, :2].argmax(1)


def dense_model(wrapped: bool = False, **first) -> keras.Model:
    keras.utils.set_random_seed(0)
    body = keras.layers.Dense(64, activation="relu", name="body", **first)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            Prunable(body, strength=1e-3) if wrapped else body,
            keras.layers.Dense(2, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    return model


class Watch(keras.callbacks.Callback):
    """Notes after which step alpha changed, and whether it fits the weights then."""

    def __init__(self):
        super().__init__()
        self.changes, self.step, self.last = [], 0, None

    def on_train_batch_end(self, batch, logs=None):
        (target,) = hooked_kernels(self.model)
        alpha = np.array(target.penalty.state["alpha"])
        if self.last is not None and not np.array_equal(alpha, self.last):
            self.changes.append(self.step)
        self.last = alpha
        self.step += 1


@pytest.mark.backend
@pytest.mark.parametrize("wrapped", [False, True])
def test_alpha_changes_at_20_40_60_80_percent(wrapped):
    if wrapped and keras.backend.backend() == "jax":
        pytest.skip("tracked variables are inside the JAX step during an epoch")
    model = dense_model(wrapped)
    if not wrapped:
        attach(model, Recipe("body", strength=1e-3))
    watch = Watch()
    options = {"epochs": 5, "batch_size": 16, "verbose": 0}
    model.fit(X, Y, callbacks=[Reweight(4), watch], **options)  # 20 steps
    assert watch.changes == [4, 8, 12, 16]
    watch.__init__()
    model.fit(X, Y, callbacks=[Reweight(1), watch], **options)
    assert watch.changes == [10]


@pytest.mark.backend
@pytest.mark.parametrize("wrapped", [False, True])
def test_refreshed_alpha_acts_in_the_compiled_step(wrapped):
    """A step compiled with the old alpha baked in would report the old penalty."""
    model = dense_model(wrapped)
    if not wrapped:
        attach(model, Recipe("body", strength=1e-3))
    model.compile(keras.optimizers.SGD(0.0), "mse")  # weights do not move
    (target,) = hooked_kernels(model)

    class Grow(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                target.variable.assign(np.asarray(target.variable) * 1e-4)

    y = model.predict(X, verbose=0)
    penalties = []
    history = model.fit(
        X, y, epochs=2, callbacks=[Grow(), Reweight(1)], batch_size=64, verbose=0
    ).history
    kernel = target.kernel()
    rms = target.structure.rms(kernel, target.shape)
    sizes = target.structure.group_sizes(target.shape)
    for scale in (1e4, 1):
        alpha = 1 / (rms * scale + 1e-3)
        penalties.append(1e-3 * float((sizes * alpha * rms * scale).sum()))
    data_loss = float(np.mean(np.square(model.predict(X, verbose=0) - y)))
    assert history["loss"][0] == pytest.approx(penalties[0], rel=1e-3)
    assert history["loss"][1] == pytest.approx(penalties[1] + data_loss, rel=1e-3)


@pytest.mark.backend
def test_a_layer_s_own_regularizer_is_bound_by_the_callback():
    model = dense_model(kernel_regularizer=ReweightedRegularizer(Block(16, 1), 1e-3))
    (target,) = hooked_kernels(model)
    model.fit(X, Y, verbose=0)  # without the callback: reweights continuously
    assert not target.penalty.state
    model.fit(X, Y, callbacks=[Reweight(0)], verbose=0)
    assert target.penalty.state


@pytest.mark.backend
def test_refresh_by_epochs_when_their_length_is_unknown():
    model = dense_model()
    attach(model, Recipe("body", strength=1e-3))

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return X[:16], Y[:16]

    watch = Watch()
    callbacks = [Reweight(1), watch]
    model.fit(Endless(), steps_per_epoch=2, epochs=4, verbose=0, callbacks=callbacks)
    assert watch.changes == [4]


@pytest.mark.backend
def test_logs_reach_history_and_csv(tmp_path):
    model = dense_model()
    attach(model, Recipe("body", strength=1e-3))
    weights = np.ones((16, 64), np.float32)
    weights[:4, 16:32] = 1e-5  # 4 of 64 groups
    model.get_layer("body").kernel.assign(weights)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    history = model.fit(
        X,
        np.zeros((64, 2), np.float32),
        verbose=0,
        callbacks=[Reweight(), SparsityLogger(layers=True), log],
    ).history
    assert history["sparsity"] == [pytest.approx(4 / 64)]
    assert history["rate"] == [pytest.approx(64 / 60)]
    assert history["sparsity/body"] == history["sparsity"]
    expected = 1e-3 * 16 * (60 / 1.001 + 4 * 1e-5 / (1e-5 + 1e-3))
    assert history["penalty"] == [pytest.approx(expected, rel=1e-3)]
    (row,) = csv.DictReader((tmp_path / "log.csv").open())
    assert float(row["sparsity"]) == pytest.approx(4 / 64)
    hard_prune(model, Recipe(Rule("body", rate=8)))
    history = model.fit(
        X, np.zeros((64, 2)), verbose=0, callbacks=[SparsityLogger()]
    ).history
    assert history["rate"] == [8.0]
    assert history["penalty"] == [0.0]


def test_nothing_is_logged_without_pruned_layers():
    history = dense_model().fit(X, Y, verbose=0, callbacks=[SparsityLogger()]).history
    assert set(history) == {"loss"}


@pytest.mark.parametrize(
    "wrapped", [False, pytest.param(True, marks=pytest.mark.backend)]
)
def test_resume_with_backup_and_restore(tmp_path, wrapped):
    """Interrupted after epoch 3 of 5: refreshes continue where they were."""

    def run(callbacks):
        model = dense_model(wrapped)
        if not wrapped:
            attach(model, Recipe("body", strength=1e-3))
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
        options = {"epochs": 5, "batch_size": 16, "verbose": 0, "shuffle": False}
        model.fit(X, Y, callbacks=[backup, *callbacks], **options)
        return model

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([Reweight(4), Interrupt()])
    seen = []

    class Epochs(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(epoch)

    reweight = Reweight(4)
    model = run([reweight, Epochs()])
    assert seen == [3, 4]
    assert not reweight._pending
    (target,) = hooked_kernels(model)
    alpha = np.asarray(target.penalty.state["alpha"])
    final = Reweighted().state(target.kernel(), target.structure, target.shape)
    assert alpha.shape == final["alpha"].shape
    assert not np.allclose(alpha, final["alpha"])  # set at 80 %, not at the end


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Reweight(-1), "must be at least 0"),
        (lambda: Reweight(2.0), "must be an integer"),
        (lambda: SparsityLogger(-1.0), "`threshold` must be at least 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
