# SPDX-License-Identifier: Apache-2.0
"""Masks that tighten inside an epoch, on every backend and without compiling anew."""

import keras
import numpy as np
import pytest
from keras import ops

from tfrewprune.methods import GradualMagnitude
from tfrewprune.pipeline import hard_prune, reweighted_train
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block
from tfrewprune.wrappers import hooked_kernels

pytestmark = pytest.mark.backend
layers = keras.layers
RECIPE = Recipe(
    Rule("deep", structure=Block(4, 1), rate=8),
    method=GradualMagnitude(every=0.2),
    reweighted_epochs=2,
)


def network(optimizer="adam") -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(32, name="deep"), layers.Dense(2)]
    )
    model.compile(optimizer, "mse")
    return model


def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 16)).astype(np.float32)
    return x, rng.standard_normal((80, 2)).astype(np.float32)


class Watch(keras.callbacks.Callback):
    """Non-zero weights after each step, and the compiled steps that made them."""

    def __init__(self):
        super().__init__()
        self.counts, self.steps, self.revived = [], [], 0

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        (target,) = hooked_kernels(self.model)
        self.revived += target.revived()
        self.counts.append(int(np.count_nonzero(target.values())))
        self.steps.append(self.model.train_function)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: "adam",
        lambda: keras.optimizers.SGD(0.01, momentum=0.9),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    ],
    ids=["adam", "sgd", "scaled"],
)
def test_masks_tighten_inside_an_epoch_of_one_compiled_step(optimizer):
    model, watch = network(optimizer()), Watch()
    reweighted_train(model, RECIPE, *data(), [watch], batch_size=8, verbose=0)
    cuts = [a - b for a, b in zip(watch.counts, watch.counts[1:], strict=False)]
    assert watch.counts[-1] == 16 * 32 / 8
    assert sum(cut > 0 for cut in cuts) >= 8 and min(cuts) >= 0
    assert watch.revived == 0
    assert len({id(step) for step in watch.steps}) == 1


def test_the_optimizer_is_saved_and_loaded_as_without(tmp_path):
    model = network()
    reweighted_train(model, RECIPE, *data(), batch_size=8, verbose=0)
    hard_prune(model, RECIPE)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert len(again.optimizer.variables) == len(model.optimizer.variables)
    assert int(ops.convert_to_numpy(again.optimizer.iterations)) == 20
    again.fit(*data(), verbose=0)
    weights = [ops.convert_to_numpy(m.get_layer("deep").kernel) for m in (model, again)]
    np.testing.assert_array_equal(weights[0] != 0, weights[1] != 0)


def test_a_run_goes_on_after_an_interruption(tmp_path):
    """The optimizer's file holds the masks, too, while they tighten."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path)

    model = network()
    with pytest.raises(KeyboardInterrupt):
        reweighted_train(
            model, RECIPE, *data(), [backup(), Stop()], batch_size=8, verbose=0
        )
    model, watch = network(), Watch()
    reweighted_train(model, RECIPE, *data(), [backup(), watch], batch_size=8, verbose=0)
    assert len(watch.counts) == 10 and watch.revived == 0
    assert watch.counts[0] < 16 * 32 / 2 and watch.counts[-1] == 16 * 32 / 8
