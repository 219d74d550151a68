# SPDX-License-Identifier: Apache-2.0
"""What removing the paths of dead filters may change: nothing but folded constants."""

import keras
import numpy as np
import pytest

from tfrewprune.experiments.lenet5 import lenet5
from tfrewprune.experiments.shrinking import shrink, without_dead_paths
from tfrewprune.pipeline import hard_prune
from tfrewprune.recipe import Recipe, Rule
from tfrewprune.structures import RowColumn


@pytest.mark.parametrize("remove", [without_dead_paths, shrink])
def test_removing_unused_paths_only_folds_constants(remove):
    keras.utils.set_random_seed(0)
    model = lenet5()
    rng = np.random.default_rng(0)
    biased = [
        rng.normal(0, 0.3, weights.shape) if weights.ndim == 1 else weights
        for weights in model.get_weights()
    ]
    model.set_weights(biased)
    recipe = Recipe({"conv1": 3, "conv2": 6, "fc1": 12})
    rules = [Rule(r.match, structure=RowColumn(), rate=r.rate) for r in recipe.rules]
    hard_prune(model, Recipe(rules))
    images = rng.random((8, 28, 28, 1)).astype(np.float32)
    expected = model.predict(images, verbose=0)
    dense = model.get_weights()
    weights = remove(dense)
    assert sum(map(np.count_nonzero, weights)) < sum(map(np.count_nonzero, dense))
    assert (weights[3].shape, weights[3].tolist()) != (
        dense[3].shape,
        dense[3].tolist(),
    )
    if remove is shrink:
        sizes = [kernel.shape[-1] for kernel in weights[::2]]
        smaller = keras.Sequential([keras.Input((28, 28, 1))])
        for layer, size in zip(model.layers, _sizes(model, sizes), strict=True):
            config = layer.get_config()
            config |= {"filters": size} if "filters" in config else {}
            config |= {"units": size} if "units" in config else {}
            smaller.add(type(layer).from_config(config))
        model = smaller
    model.set_weights(weights)
    np.testing.assert_allclose(
        model.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5
    )


def _sizes(model, sizes):
    left = iter(sizes)
    return [next(left) if layer.weights else None for layer in model.layers]
