# SPDX-License-Identifier: Apache-2.0
"""The penalty is 0 while `fit` validates, and acts again whatever happens then."""

import keras
import numpy as np
import pytest
from keras import ops

from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.wrappers import Reweight, attach, hooked_kernels

pytestmark = pytest.mark.backend
X = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
Y = np.zeros((32, 2), np.float32)


class Interrupt(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def model() -> keras.Model:
    """One whose task gives no gradient: what moves the weights is the penalty."""
    keras.utils.set_random_seed(0)
    built = keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(32, name="deep"),
            keras.layers.Dense(2, trainable=False, kernel_initializer="zeros"),
        ]
    )
    attach(built, Recipe(Rule("deep"), strength=1e-3))
    built.compile(keras.optimizers.SGD(0.1), "mse")
    return built


def test_a_plain_fit_after_an_interrupted_validation_feels_the_penalty():
    interrupted, whole = model(), model()
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(
            X, Y, validation_data=(X, Y), verbose=0, callbacks=[Reweight(), Interrupt()]
        )
    assert hooked_kernels(interrupted)[0].penalty.muted
    whole.fit(X, Y, verbose=0, callbacks=[Reweight()])
    before = ops.convert_to_numpy(whole.get_layer("deep").kernel)
    for trained in (interrupted, whole):
        trained.fit(X, Y, verbose=0)
    after = [
        ops.convert_to_numpy(trained.get_layer("deep").kernel)
        for trained in (interrupted, whole)
    ]
    np.testing.assert_allclose(after[0], after[1], rtol=1e-4, atol=1e-6)
    assert (after[0] != before).mean() > 0.9
    assert not hooked_kernels(interrupted)[0].penalty.muted


def test_validation_shows_the_loss_of_the_task_alone():
    trained = model()
    history = trained.fit(
        X, Y, validation_data=(X, Y), epochs=2, verbose=0, callbacks=[Reweight()]
    ).history
    assert history["val_loss"] == [0.0, 0.0] and min(history["loss"]) > 0
    assert trained.evaluate(X, Y, verbose=0) > 0  # outside of fit it is part of it


def test_logs_and_metrics_gain_no_entry():
    trained = model()
    history = trained.fit(X, Y, validation_data=(X, Y), verbose=0).history
    assert set(history) == {"loss", "val_loss"}
    assert set(trained.evaluate(X, Y, verbose=0, return_dict=True)) == {"loss"}
