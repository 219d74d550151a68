# SPDX-License-Identifier: Apache-2.0
"""Gradual pruning that removes dead paths: the rate is that of weights that count."""

import keras
import numpy as np
import pytest

import tfrewprune as trp
from tfrewprune.experiments.experiment import count_weights

layers = keras.layers
KERNELS = ("a", "b", "c")


def network():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(12, 3, activation="relu", name="a"),
            layers.Conv2D(16, 3, activation="relu", name="b"),
            layers.Flatten(),
            layers.Dense(4, name="c"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def pruned(remove_dead_paths, rate=20):
    """A network after gradual pruning of its filters and columns, without masks."""
    model, random = network(), np.random.default_rng(0)
    x = random.random((256, 8, 8, 2), np.float32)
    y = (x.mean(axis=(1, 2)) @ [[1, 0], [0, 1]]).argmax(axis=-1)
    method = trp.methods.GradualMagnitude(
        score="fisher", remove_dead_paths=remove_dead_paths
    )
    recipe = trp.Recipe(
        trp.Rule(list(KERNELS), structure=trp.RowColumn()),
        method=method,
        rate=rate,
        reweighted_epochs=4,
    )
    trp.reweighted_train(model, recipe, x=x, y=y, batch_size=16, verbose=0)
    trp.hard_prune(model, recipe)
    return trp.strip(model)


def dead_weights(model):
    """How many weights go with dead paths, and what is left."""
    left = count_weights(trp.shrink(model, keep_shapes=True).model)["kept"]
    return count_weights(model)["kept"] - left, left


def test_no_weight_stands_on_a_dead_path_when_they_are_removed():
    asked = count_weights(network())["weights"] / 20
    dead, left = dead_weights(pruned(remove_dead_paths=True))
    assert dead == 0
    assert 0.6 * asked < left <= asked
    dead, _ = dead_weights(pruned(remove_dead_paths=False))
    assert dead > 0  # a part of what the rate leaves, for nothing


@pytest.mark.parametrize("method", ["magnitude", "reweighted"])
def test_no_class_goes_with_the_rows_and_columns_of_the_last_layer(method):
    model = network()
    last = model.get_layer("c")
    kernel, bias = last.get_weights()
    kernel[:, 1:] *= 1e-3  # three classes with next to no weights
    last.set_weights([kernel, bias])
    x = np.random.default_rng(0).random((64, 8, 8, 2), np.float32)
    recipe = trp.Recipe(
        trp.Rule(list(KERNELS), structure=trp.RowColumn()),
        method=method,
        rate=20,
        reweighted_epochs=2,
    )
    if method != "magnitude":
        trp.reweighted_train(model, recipe, x=x, y=np.zeros(64), verbose=0)
    trp.hard_prune(model, recipe)
    assert np.any(model.get_layer("c").get_weights()[0], axis=0).all()


def test_masks_of_dead_paths_stay_masks_of_their_structure():
    model = network()
    kernel = model.get_layer("b").get_weights()
    kernel[0][..., 5] = 0  # nobody's filter
    model.get_layer("b").set_weights(kernel)
    recipe = trp.Recipe(
        trp.Rule(list(KERNELS), structure=trp.RowColumn()),
        method=trp.methods.GradualMagnitude(remove_dead_paths=True, every=1),
        rate=1.5,
        reweighted_epochs=1,
    )
    x, y = np.ones((16, 8, 8, 2), np.float32), np.zeros(16)
    trp.reweighted_train(model, recipe, x=x, y=y, verbose=0)
    read = model.get_layer("c").get_weights()[0].reshape(16, 16, 4)
    assert not read[:, 5].any() and read.any()
    structures = [model.get_layer(name).kernel.constraint.structure for name in KERNELS]
    assert structures == [trp.RowColumn(), trp.RowColumn(), trp.Column()]


def test_a_model_without_a_graph_is_pruned_as_ever():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(8, activation="relu", name="hidden")
            self.last = layers.Dense(2, name="last")

        def call(self, x):
            return self.last(self.hidden(x))

    model = Subclassed()
    model.compile("adam", "mse")
    x = np.random.default_rng(0).random((32, 6), np.float32)
    model(x)
    recipe = trp.Recipe(
        trp.Rule(["hidden", "last"], structure=trp.RowColumn()),
        method=trp.methods.GradualMagnitude(remove_dead_paths=True),
        rate=2,
        reweighted_epochs=1,
    )
    trp.reweighted_train(model, recipe, x=x, y=x[:, :2], verbose=0)
    kept = np.count_nonzero(model.hidden.kernel) + np.count_nonzero(model.last.kernel)
    assert 0 < kept <= 32
