# SPDX-License-Identifier: Apache-2.0
"""The penalty is 0 while `fit` validates, and acts again whatever happens then."""

import keras
import numpy as np
import pytest
from keras import ops

from tfrewprune.pipeline import hard_prune
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


class LoopsOverMetrics(keras.Model):
    """Updates each metric as the steps of Keras' guide on customizing `fit` do."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        for metric in self.metrics:
            if metric.name != "loss":
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def test_steps_that_loop_over_the_metrics_run():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,))
    trained = LoopsOverMetrics(inputs, keras.layers.Dense(2, name="deep")(inputs))
    trained.compile("sgd", "mse", metrics=["mae"])

    def names() -> tuple[set, set]:
        logs = trained.fit(X, Y, validation_data=(X, Y), verbose=0).history
        return set(logs), set(trained.evaluate(X, Y, verbose=0, return_dict=True))

    before = names()
    attach(trained, Recipe("deep"))
    assert names() == before


class GuideSteps(keras.Model):
    """The steps of that guide themselves, as it writes them for TensorFlow."""

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return self._updated(loss, y, y_pred)

    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        return self._updated(self.compute_loss(y=y, y_pred=y_pred), y, y_pred)

    def _updated(self, loss, y, y_pred):
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a step with a GradientTape"
)
@pytest.mark.parametrize("prepare", [attach, hard_prune])
def test_the_steps_of_the_guide_run(prepare):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,))
    trained = GuideSteps(inputs, keras.layers.Dense(2, name="deep")(inputs))
    trained.compile("sgd", "mse", metrics=["mae"])

    def names() -> list:
        logs = trained.fit(X, Y, validation_data=(X, Y), verbose=0).history
        return [*logs, *trained.evaluate(X, Y, verbose=0, return_dict=True)]

    before = names()
    prepare(trained, Recipe(Rule("deep", rate=2)))
    assert names() == before
