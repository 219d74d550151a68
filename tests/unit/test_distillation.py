# SPDX-License-Identifier: Apache-2.0
"""A teacher beside the labels."""

import keras
import numpy as np
import pytest

from tfrewprune.pipeline import (
    Teacher,
    compress,
    hard_prune,
    masked_retrain,
    reweighted_train,
)
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule

layers = keras.layers
X = np.random.default_rng(0).standard_normal((64, 12)).astype("float32")
Y = X.argmax(1) % 3
RECIPE = Recipe(
    Rule("hidden", rate=2), method="magnitude", reweighted_epochs=0, retrain_epochs=2
)


def model_of(head: str | None = "softmax", seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(3, activation=head, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=head is None)
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"])
    return model


def distance(a: keras.Model, b: keras.Model) -> float:
    """Mean difference of outputs; a constant added to all logits means nothing."""
    difference = a.predict(X, verbose=0) - b.predict(X, verbose=0)
    return float(np.abs(difference - difference.mean(1, keepdims=True)).mean())


@pytest.mark.parametrize("head", ["softmax", "sigmoid", None])
def test_a_student_follows_its_teacher_whatever_the_labels_say(head):
    teacher, student = model_of(head, seed=1), model_of(head)
    hard_prune(student, RECIPE)
    far = distance(teacher, student)
    wrong = (Y + 1) % 3
    history = masked_retrain(
        student,
        RECIPE,
        X,
        wrong,
        epochs=40,
        verbose=0,
        validation_data=(X, wrong),
        teacher=Teacher(teacher, weight=1.0),
    )
    assert distance(teacher, student) < far / 2
    # The loss is the distance; the validation loss that of the labels.
    assert history.history["loss"][-1] < 0.2 < history.history["val_loss"][-1]
    expected = student.evaluate(X, wrong, verbose=0, return_dict=True)
    assert history.history["val_loss"][-1] == pytest.approx(expected["loss"], rel=1e-4)


def test_the_model_itself_as_teacher_costs_nothing_before_pruning():
    model = model_of()
    before = model.get_weights()
    from tfrewprune.pipeline.distillation import taught_by

    with taught_by(model, Teacher(model_of(), weight=1.0)):
        logs = model.fit(X, Y, epochs=1, verbose=0).history
    assert abs(logs["loss"][0]) < 1e-5
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(old, new, atol=1e-4)
    # Afterwards training is as ever.
    assert "compute_loss" not in model.__dict__
    assert model.fit(X, Y, epochs=1, verbose=0).history["loss"][0] > 0.1


def test_penalties_keep_their_strength_beside_a_teacher():
    model, decay = model_of(), 0.01
    model.get_layer("hidden").kernel.regularizer = keras.regularizers.L2(decay)
    model.compile(keras.optimizers.SGD(0.0), model.loss)
    penalty = decay * float(np.square(model.get_layer("hidden").kernel).sum())
    task = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"] - penalty
    from tfrewprune.pipeline.distillation import taught_by

    with taught_by(model, Teacher(model_of(), weight=0.75)):
        loss = model.fit(X, Y, epochs=1, verbose=0, batch_size=64).history["loss"][0]
    assert loss == pytest.approx(0.25 * task + penalty, rel=1e-4)


def test_the_penalized_phase_follows_the_teacher_too():
    recipe = Recipe(Rule("hidden", rate=2), reweighted_epochs=30, retrain_epochs=0)
    wrong = (Y + 1) % 3
    teacher, student = model_of(seed=1), model_of()
    taught = Teacher(teacher, weight=1.0)
    reweighted_train(student, recipe, X, wrong, verbose=0, teacher=taught)
    untaught = model_of()
    reweighted_train(untaught, recipe, X, wrong, verbose=0)
    assert distance(teacher, student) < distance(teacher, untaught) / 2


def test_compress_takes_the_dense_model_as_teacher():
    recipe = RECIPE.replace(method="gradual_magnitude", reweighted_epochs=1)
    for chosen in (RECIPE, recipe):
        result = compress(model_of(), chosen, X, Y, teacher="dense", verbose=0)
        assert result.rate > 1.5
        assert len(result.history["retrain"]["loss"]) == 2


def test_what_is_no_teacher():
    with pytest.raises(ValueError, match="must be a Keras model, or 'dense'"):
        compress(model_of(), RECIPE, X, Y, teacher="sparse", verbose=0)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        Teacher(model_of(), weight=0)
    other = keras.Sequential([keras.Input((12,)), layers.Dense(5)])
    student = model_of()
    hard_prune(student, RECIPE)
    with pytest.raises(ValueError, match=r"outputs like those .*\(None, 3\)"):
        masked_retrain(student, RECIPE, X, Y, verbose=0, teacher=other)
    before = student.get_weights()
    with pytest.raises(ValueError, match="outputs like those of the model"):
        compress(student, RECIPE, X, Y, verbose=0, teacher=other)
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert student.losses == []


def test_a_dense_teacher_of_layers_that_only_the_user_can_make():
    class Scaled(layers.Layer):  # Keras makes none from its config
        def __init__(self, factor):
            super().__init__(name="scaled")
            self.factor = self.add_weight(initializer="ones") if factor else 1.0

        def call(self, x):
            return x * self.factor

    def compressed(layer):
        model = keras.Sequential([keras.Input((12,)), layer, *model_of().layers])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return compress(model, RECIPE, X, Y, teacher="dense", verbose=0)

    compressed(layers.Lambda(lambda x: 2 * x))
    compressed(Scaled(factor=None))  # without weights one does for both
    with pytest.raises(ValueError, match="compress: layer 'scaled' .*Pass a copy"):
        compressed(Scaled(factor=1))
