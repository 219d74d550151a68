# SPDX-License-Identifier: Apache-2.0
"""Steps that were traced before a change obey it: masks and penalties are state."""

import warnings

import keras
import numpy as np
import pytest

from tfrewprune.pipeline import (
    hard_prune,
    masked_retrain,
    reweighted_train,
    strip,
)
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Unstructured
from tfrewprune.wrappers import attach, hooked_kernels, wrap

layers = keras.layers
X = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
Y = (X @ np.random.default_rng(1).standard_normal((32, 4))).argmax(1)
RECIPE = Recipe(Rule("d*", rate=4), strength=1e-3, reweighted_epochs=1)


def mlp(compiled: bool = True) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32,)),
            layers.Dense(64, activation="relu", name="d1"),
            layers.Dense(64, activation="relu", name="d2"),
            layers.Dense(4, name="head"),
        ]
    )
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-2), loss)
    return model


def zeros(model: keras.Model) -> list[float]:
    return [
        float((np.asarray(model.get_layer(name).kernel) == 0).mean())
        for name in ("d1", "d2")
    ]


def tensorflow_only() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")


def test_a_user_s_own_tf_function_obeys_mask_and_end_of_penalty():
    tensorflow_only()
    import tensorflow as tf

    model, optimizer = mlp(compiled=False), keras.optimizers.Adam(1e-2)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            penalty = sum(model.losses)
            loss = loss_of(y, model(x, training=True)) + penalty
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return penalty

    attach(model, RECIPE)
    assert float(step(X, Y)) > 0 and zeros(model) == [0, 0]
    traces = step.experimental_get_tracing_count()
    with pytest.warns(UserWarning, match="never refreshed"):
        hard_prune(model, RECIPE)
    assert float(step(X, Y)) == 0 and zeros(model) == [0.75, 0.75]
    hard_prune(model, Recipe(Rule("d*", rate=8)))
    step(X, Y)
    assert zeros(model) == [0.875, 0.875]
    assert step.experimental_get_tracing_count() == traces
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        strip(model)
    assert zeros(model) == [0.875, 0.875]


def test_a_step_traced_before_the_mask_is_reported_not_cut_silently():
    tensorflow_only()
    import tensorflow as tf

    model, optimizer = mlp(compiled=False), keras.optimizers.SGD(0.1)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )

    step(X)
    hard_prune(model, RECIPE)
    step(X)
    revived = sum(
        np.count_nonzero(t.weights()[~t.mask.weight_mask(t.variable.shape)])
        for t in hooked_kernels(model)
    )
    assert revived > 0
    with pytest.warns(UserWarning, match=f"{revived} weights that the mask removed"):
        strip(model)


@pytest.mark.backend
def test_a_step_that_was_jitted_by_hand_on_jax_is_reported():
    if keras.backend.backend() != "jax":
        pytest.skip("a JAX step keeps the mask it was compiled with")
    import jax

    model, optimizer = mlp(compiled=False), keras.optimizers.SGD(0.1)
    attach(model, RECIPE)
    optimizer.build(model.trainable_variables)

    def loss(trainable, x):
        outputs, _ = model.stateless_call(
            trainable, [v.value for v in model.non_trainable_variables], x
        )
        return keras.ops.mean(keras.ops.square(outputs))

    @jax.jit
    def step(trainable, state, x):
        return optimizer.stateless_apply(state, jax.grad(loss)(trainable, x), trainable)

    def train():
        trainable, _ = step(
            [v.value for v in model.trainable_variables],
            [v.value for v in optimizer.variables],
            X,
        )
        for variable, value in zip(model.trainable_variables, trainable, strict=True):
            variable.assign(value)

    train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the penalty is not in this loss
        hard_prune(model, RECIPE)
    train()
    with pytest.warns(UserWarning, match="weights that the mask removed are not zero"):
        strip(model)


@pytest.mark.parametrize(
    "kind",
    [
        "autoencoder",
        pytest.param("distiller", marks=pytest.mark.backend),
        pytest.param("shared layer", marks=pytest.mark.backend),
    ],
)
def test_models_that_hold_the_pruned_layer_and_were_fitted_before(kind):
    inner = mlp()
    if kind == "distiller":

        class Distiller(keras.Model):
            def __init__(self, student):
                super().__init__()
                self.student = student

            def call(self, inputs):
                return self.student(inputs)

        outer = Distiller(inner)
    elif kind == "autoencoder":
        inputs = keras.Input((32,))
        outer = keras.Model(inputs, layers.Dense(4)(inner(inputs)))
    else:
        inputs = keras.Input((32,))
        hidden = inner.get_layer("d2")(inner.get_layer("d1")(inputs))
        outer = keras.Model(inputs, layers.Dense(4)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    outer.compile("adam", loss)
    outer.fit(X, Y, verbose=0)
    hard_prune(inner, RECIPE)
    outer.fit(X, Y, verbose=0)
    inner.fit(X, Y, verbose=0)
    assert zeros(inner) == [0.75, 0.75]


@pytest.mark.backend
def test_pruning_in_the_middle_of_fit_acts_from_the_next_batch_on():
    model = mlp()
    attach(model, RECIPE)

    class Prune(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                hard_prune(model, RECIPE)

    callbacks = [Prune()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # alpha was never refreshed
        model.fit(X, Y, epochs=2, callbacks=callbacks, verbose=0)
    assert zeros(model) == [0.75, 0.75]


@pytest.mark.backend
@pytest.mark.parametrize("wrapped", [False, True])
def test_loaded_weights_bring_their_mask_to_a_step_that_is_traced(tmp_path, wrapped):
    def fresh():
        return wrap(mlp(), RECIPE) if wrapped else mlp()

    def kernels(model):
        return [np.asarray(target.variable) for target in hooked_kernels(model)]

    source = fresh()
    hard_prune(source, Recipe(Rule("d*", structure=Block(4, 1), rate=8)))
    source.fit(X, Y, verbose=0)
    source.save_weights(tmp_path / "source.weights.h5")

    target = fresh()
    hard_prune(target, RECIPE)
    target.fit(X, Y, verbose=0)  # the step is traced under another mask
    target.load_weights(tmp_path / "source.weights.h5")
    target.fit(X, Y, verbose=0)
    for left, right in zip(kernels(source), kernels(target), strict=True):
        assert (left == 0).mean() == 0.875
        np.testing.assert_array_equal(left == 0, right == 0)


def test_attached_model_keeps_its_mask_through_weights_h5(tmp_path):
    source = mlp()
    attach(source, RECIPE)
    hard_prune(source, RECIPE)
    source.save_weights(tmp_path / "source.weights.h5")
    model = mlp()
    attach(model, RECIPE)
    model.load_weights(tmp_path / "source.weights.h5")
    model.fit(X, Y, epochs=2, verbose=0)
    assert zeros(model) == [0.75, 0.75]


@pytest.mark.backend
def test_a_dense_file_under_a_mask_is_reported(tmp_path):
    dense = mlp()
    dense.save_weights(tmp_path / "dense.weights.h5")
    model = mlp()
    hard_prune(model, RECIPE)
    with pytest.warns(UserWarning, match="holds no mask, and 1536 of its weights"):
        model.load_weights(tmp_path / "dense.weights.h5")
    model.fit(X, Y, verbose=0)
    assert zeros(model) == [0.75, 0.75]


@pytest.mark.backend
def test_state_is_no_weight_of_layer_or_model(tmp_path):
    plain, model = mlp(), mlp()
    attach(model, RECIPE)
    hard_prune(model, RECIPE)
    assert model.count_params() == plain.count_params()
    assert [w.shape for w in model.get_weights()] == [
        w.shape for w in plain.get_weights()
    ]
    model.set_weights(plain.get_weights())
    assert [layer.name for layer in model.layers] == ["d1", "d2", "head"]
    strip(model)
    assert not any(layer._layers for layer in model.layers)
    model.save(tmp_path / "plain.keras")
    plain.load_weights(tmp_path / "plain.keras")


class Forgetful(keras.Model):
    """A distiller as often written: its loss leaves out self.losses."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def call(self, inputs):
        return self.student(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        return keras.ops.mean(
            keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        )


@pytest.mark.backend
def test_a_penalty_that_is_not_in_the_loss_is_reported_once():
    model = Forgetful(mlp())
    model.compile("adam")
    model(X[:1])
    with pytest.warns(UserWarning, match="Forgetful's training step leaves") as caught:
        reweighted_train(model, RECIPE, X, Y, epochs=2, verbose=0)
        hard_prune(model, RECIPE)
    assert sum("penalty" in str(w.message) for w in caught) == 1


@pytest.mark.backend
def test_no_report_where_the_penalty_acts():
    model = mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # So short a phase empties nothing, which is another report.
        warnings.filterwarnings("ignore", ".*not empty")
        reweighted_train(model, RECIPE, X, Y, verbose=0)
        hard_prune(model, RECIPE)
        masked_retrain(model, RECIPE, X, Y, epochs=2, verbose=0)
        strip(model)


@pytest.mark.backend
def test_validation_loss_is_without_the_penalty():
    model = mlp()
    recipe = RECIPE.replace(strength=0.1)
    data = {"validation_data": (X, Y), "verbose": 0}
    history = reweighted_train(model, recipe, X, Y, **data).history
    inner = {t.path: t.penalty for t in hooked_kernels(model)}
    penalty = sum(
        float(
            keras.ops.convert_to_numpy(
                keras.ops.stop_gradient(p.penalty(model.get_layer(name).kernel))
            )
        )
        for name, p in inner.items()
    )
    assert penalty == pytest.approx(history["penalty"][-1], rel=1e-4) and penalty > 1
    plain = model.evaluate(X, Y, verbose=0) - penalty
    assert history["val_loss"][-1] == pytest.approx(plain, rel=1e-3)
    assert history["loss"][-1] > penalty / 2  # training did feel it


def test_frozen_layers_are_stripped_too(tmp_path):
    model = mlp()
    attach(model, RECIPE)
    hard_prune(model, RECIPE)
    for layer in model.layers:
        layer.trainable = False
    strip(model)
    for layer in model.layers:
        assert layer.kernel.constraint is None and layer.kernel.regularizer is None
    config = str(model.get_config())
    assert "tfrewprune" not in config


def test_hooks_made_by_hand_on_unknown_layers_are_stripped():
    from tfrewprune.wrappers import MaskConstraint, ReweightedRegularizer

    cell = layers.SimpleRNN(
        8,
        kernel_regularizer=ReweightedRegularizer(Unstructured()),
        recurrent_constraint=MaskConstraint(np.eye(8, dtype=bool)),
    )
    model = keras.Sequential([keras.Input((4, 3)), cell])
    strip(model)
    assert "tfrewprune" not in str(model.get_config())
    assert np.count_nonzero(np.asarray(cell.cell.recurrent_kernel)) <= 8


@pytest.mark.backend
def test_a_second_recipe_is_the_one_that_is_used():
    model = mlp()
    reweighted_train(model, RECIPE, X, Y, verbose=0)
    reweighted_train(model, RECIPE.replace(strength=0.5), X, Y, verbose=0)
    assert {t.penalty.strength for t in hooked_kernels(model)} == {0.5}
    only = Recipe(Rule("d1", structure=Unstructured(), rate=2), reweighted_epochs=1)
    reweighted_train(model, only, X, Y, verbose=0)
    assert {
        t.path: t.penalty and t.penalty.structure for t in hooked_kernels(model)
    } == {
        "d1": Unstructured(),
        "d2": None,
    }


def test_a_layer_without_a_penalty_is_cut_with_a_note():
    model = mlp()
    reweighted_train(model, Recipe(Rule("d1", rate=4)), X, Y, epochs=1, verbose=0)
    rows = {row.layer: row.note for row in hard_prune(model, RECIPE)}
    assert "had no penalty" not in rows["d1"] and "had no penalty" in rows["d2"]


def test_lora_after_attach_says_what_is_wrong():
    model = mlp()
    attach(model, RECIPE)
    with pytest.raises(ValueError, match="(?i)lora is incompatible with kernel const"):
        model.get_layer("d1").enable_lora(2)
