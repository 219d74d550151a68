# SPDX-License-Identifier: Apache-2.0
"""Recipes of several steps: zeros of one stay zero in the next."""

import keras
import numpy as np
import pytest

from tfrewprune.pipeline import compress
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Column, Filter, Unstructured
from tfrewprune.wrappers import hooked_kernels

X = np.random.default_rng(0).standard_normal((128, 24)).astype(np.float32)
Y = (X[:, :6].sum(axis=1) > 0).astype(int)


def mlp():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((24,)),
            keras.layers.Dense(40, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    return model


def recipe_of(first, second, rates=(2, 4), **options):
    options = {"method": "magnitude", "retrain_epochs": 1, **options}
    then = Recipe(Rule("hidden", structure=second), rate=rates[1], **options)
    return Recipe(Rule("hidden", structure=first), rate=rates[0], then=then, **options)


def test_columns_and_then_rows_leave_their_intersection():
    result = compress(mlp(), recipe_of(Column(), Filter()), X, Y, verbose=0)
    alive = keras.ops.convert_to_numpy(result.model.get_layer("hidden").kernel) != 0
    inputs, outputs = alive.any(axis=1), alive.any(axis=0)
    assert inputs.sum() == 12 and outputs.sum() == 20
    np.testing.assert_array_equal(alive, np.outer(inputs, outputs))
    (row,) = [row for row in result.layers if row.reason is None]
    assert row.kept == 240 and row.rate == 4 and row.structure == Filter()
    assert list(result.history) == ["retrain", "retrain 2"]


@pytest.mark.backend
def test_a_second_step_of_the_same_structure_removes_more():
    recipe = recipe_of(
        *(Unstructured(), Unstructured(), (3, 9)), method="admm", reweighted_epochs=1
    )
    seen = []

    class Zeros(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernel = self.model.get_layer("hidden").kernel
            seen.append(keras.ops.convert_to_numpy(kernel) == 0)

    result = compress(mlp(), recipe, X, Y, callbacks=[Zeros()], verbose=0)
    phases = ["reweighted", "retrain", "reweighted 2", "retrain 2"]
    assert list(result.history) == phases and len(seen) == 4
    assert [zero.mean() for zero in seen[1:]] == pytest.approx(
        [2 / 3, 2 / 3, 8 / 9], abs=1e-3
    )
    assert not (seen[1] & ~seen[3]).any()


def test_a_later_step_refreshes_and_tightens_over_the_whole_of_its_phase():
    """Epochs count on from step to step, but each phase goes from 0 to 1."""
    seen = []

    class Targets(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            penalty = hooked_kernels(self.model)[0].penalty
            if penalty is not None:
                seen.append(penalty.refreshes)

    options = {"method": "admm", "reweighted_epochs": 2, "refreshes": 3}
    recipe = recipe_of(*(Unstructured(), Unstructured(), (3, 9)), **options)
    fit = {"batch_size": 32, "verbose": 0}  # 4 steps an epoch
    compress(mlp(), recipe, X, Y, callbacks=[Targets()], **fit)
    first, second = seen[:8], seen[8:]
    assert [count - first[0] for count in first] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [count - second[0] for count in second] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.backend
def test_masks_of_a_later_step_tighten_from_its_beginning():
    kept = []

    class Kept(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept.append(np.count_nonzero(self.model.get_layer("hidden").kernel))

    options = {"method": "gradual_magnitude", "reweighted_epochs": 4}
    recipe = recipe_of(
        *(Unstructured(), Unstructured(), (2, 32)), retrain_epochs=0, **options
    ).replace(retrain_epochs=0)
    compress(mlp(), recipe, X, Y, callbacks=[Kept()], batch_size=32, verbose=0)
    later = kept[4:]
    assert later[0] > 2 * later[-1], "all was cut in its first epoch"


def test_steps_are_written_to_json_and_counted():
    recipe = recipe_of(Column(), Filter())
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert [step.rate for step in recipe.steps] == [2, 4]
    assert all(step.then is None for step in recipe.steps)
    with pytest.raises(ValueError, match="`then` must be a Recipe"):
        Recipe(rate=2, then="filter")
    with pytest.raises(ValueError, match="several steps keeps its own rates"):
        compress(mlp(), recipe, X, Y, constraints={"weights": 0.5})
