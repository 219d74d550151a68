# SPDX-License-Identifier: Apache-2.0
"""Prunable, wrap and strip: same function, saved state, plain model at the end."""

import json
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pytest

from tfrewprune.methods import ADMM, GroupLasso, Magnitude
from tfrewprune.pipeline import hard_prune, reweighted_train, sparsity_summary, strip
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Filter
from tfrewprune.wrappers import (
    MaskConstraint,
    Prunable,
    hooked_kernels,
    register_prunable,
    wrap,
)

layers = keras.layers
X = np.random.default_rng(0).standard_normal((32, 8, 8, 3)).astype(np.float32)
Y = X.mean((1, 2)).argmax(1)
RECIPE = Recipe(Rule("body", rate=8), strength=1e-3, refreshes=1, reweighted_epochs=1)


def functional_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    inner = keras.Sequential(
        [keras.Input((8, 8, 16)), layers.Conv2D(16, 3, padding="same", name="body")],
        name="inner",
    )
    x = layers.Add()([x, inner(inner(x))])  # shared: called twice
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x), name="net")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


@pytest.mark.backend
def test_wrap_changes_nothing_but_the_penalty():
    model = functional_model()
    wrapped = wrap(model, RECIPE)
    np.testing.assert_allclose(
        wrapped.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5
    )
    assert wrapped.compiled and wrapped.optimizer is not model.optimizer
    assert model.losses == [] and len(wrapped.losses) == 1
    (target,) = hooked_kernels(wrapped)
    assert target.path == "inner/body"
    alpha = target.penalty.state["alpha"]
    assert any(alpha is variable for variable in wrapped.non_trainable_variables)
    expected = 1 / (target.structure.rms(target.kernel(), target.shape) + 1e-3)
    np.testing.assert_allclose(np.asarray(alpha), expected, rtol=1e-5)
    assert len(wrapped.trainable_variables) == len(model.trainable_variables)


@pytest.mark.backend
def test_a_method_that_projects_knows_its_rate_also_after_loading(tmp_path):
    recipe = RECIPE.replace(method=ADMM(), strength=None)
    wrapped = wrap(functional_model(), recipe)
    (target,) = hooked_kernels(wrapped)
    expected = target.structure.project(target.kernel(), target.shape.weights / 8)
    np.testing.assert_array_equal(np.asarray(target.penalty.state["target"]), expected)
    wrapped.save(tmp_path / "model.keras")
    (again,) = hooked_kernels(keras.models.load_model(tmp_path / "model.keras"))
    assert again.penalty.keep == target.penalty.keep == target.shape.weights / 8
    np.testing.assert_array_equal(np.asarray(again.penalty.state["target"]), expected)


def test_a_method_that_projects_needs_a_rate():
    with pytest.raises(ValueError, match="ADMM projects onto a rate.* rate=None"):
        Prunable(layers.Dense(8), method=ADMM())


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(RECIPE, marks=pytest.mark.backend),
        RECIPE.replace(method=ADMM(growth=1.7), reweighted_epochs=4),
    ],
    ids=["reweighted", "admm"],
)
def test_resume_in_the_penalized_phase_is_exact(tmp_path, recipe, weights_only):
    wrapped = wrap(functional_model(), recipe)
    reweighted_train(wrapped, recipe, X, Y, verbose=0)
    (target,) = hooked_kernels(wrapped)
    assert (target.penalty.strength > 1e-3) == (recipe is not RECIPE)
    target.variable.assign(np.asarray(target.variable) * 0.5)  # alpha is older
    if weights_only:
        wrapped.save_weights(tmp_path / "state.weights.h5")
        restored = wrap(functional_model(), recipe)
        restored.load_weights(tmp_path / "state.weights.h5")
    else:
        wrapped.save(tmp_path / "state.keras")
        restored = keras.models.load_model(tmp_path / "state.keras")
    (again,) = hooked_kernels(restored)
    assert again.penalty.strength == target.penalty.strength
    for name, value in target.penalty.state.items():
        np.testing.assert_array_equal(
            np.asarray(value), np.asarray(again.penalty.state[name])
        )
    left, right = (m.evaluate(X, Y, verbose=0) for m in (wrapped, restored))
    np.testing.assert_allclose(left, right, rtol=1e-5)


@pytest.mark.backend
@pytest.mark.parametrize("weights_only", [False, True])
def test_resume_in_the_masked_phase_is_exact(tmp_path, weights_only):
    wrapped = wrap(functional_model(), RECIPE)
    hard_prune(wrapped, RECIPE)
    if weights_only:
        wrapped.save_weights(tmp_path / "state.weights.h5")
        restored = wrap(functional_model(), RECIPE)
        restored.load_weights(tmp_path / "state.weights.h5")
    else:
        wrapped.save(tmp_path / "state.keras")
        restored = keras.models.load_model(tmp_path / "state.keras")
        assert restored.losses == [], "the penalty has ended"
    (target,), (again,) = hooked_kernels(wrapped), hooked_kernels(restored)
    np.testing.assert_array_equal(target.mask.groups, again.mask.groups)
    restored.fit(X, Y, verbose=0)
    kept = again.mask.weight_mask(again.variable.shape).sum()
    assert np.count_nonzero(np.asarray(again.variable)) == kept


@pytest.mark.backend
def test_penalty_weights_follow_the_weights_of_a_file_of_another_method(tmp_path):
    other = wrap(functional_model(), RECIPE.replace(method=GroupLasso()))
    (source,) = hooked_kernels(other)
    source.variable.assign(np.full(source.variable.shape, 0.5, np.float32))
    other.save_weights(tmp_path / "state.weights.h5")
    model = wrap(functional_model(), RECIPE)
    model.load_weights(tmp_path / "state.weights.h5")
    (target,) = hooked_kernels(model)
    np.testing.assert_allclose(
        np.asarray(target.penalty.state["alpha"]), 1 / (0.5 + 1e-3), rtol=1e-5
    )


@pytest.mark.parametrize(
    "phase",
    ["penalized", pytest.param("masked", marks=pytest.mark.backend), "unpenalized"],
)
def test_strip_gives_a_plain_model(tmp_path, phase):
    model = functional_model()
    recipe = RECIPE
    if phase == "unpenalized":
        recipe = RECIPE.replace(method=Magnitude())
    wrapped = wrap(model, recipe)
    if phase == "masked":
        hard_prune(wrapped, recipe)
    expected = wrapped.predict(X, verbose=0)
    plain = strip(wrapped)
    np.testing.assert_allclose(plain.predict(X, verbose=0), expected, atol=1e-5)
    assert not any(isinstance(x, Prunable) for x in plain._flatten_layers())
    assert [v.shape for v in plain.weights] == [v.shape for v in model.weights]
    plain.save(tmp_path / "plain.keras")
    with zipfile.ZipFile(tmp_path / "plain.keras") as archive:
        assert b"tfrewprune" not in archive.read("config.json")
    zeros = np.sum(np.asarray(plain.get_layer("inner").get_layer("body").kernel) == 0)
    assert zeros == (16 * 9 * 16 * 7 / 8 if phase == "masked" else 0)


def test_a_stripped_file_loads_where_tfrewprune_is_not_installed(tmp_path):
    model = functional_model()
    hard_prune(model, RECIPE)
    strip(model).save(tmp_path / "plain.keras")
    program = (
        "import sys; sys.modules['tfrewprune'] = None\n"
        "import keras; model = keras.models.load_model(sys.argv[1])\n"
        "print(model.count_params())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "plain.keras")],
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == [str(model.count_params())], result.stderr


@pytest.mark.backend
def test_prunable_by_hand_in_a_subclassed_model():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = Prunable(layers.Dense(32, activation="relu"), Filter())
            self.head = layers.Dense(3)

        def call(self, x):
            return self.head(self.body(layers.Flatten()(x)))

    model = Net()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, verbose=0)
    (target,) = hooked_kernels(model)
    assert target.path == "dense" or target.path.startswith("dense_")
    assert target.penalty.state["alpha"].shape == (32,)
    hard_prune(model, Recipe(Rule("dense*", structure=Filter(), rate=4)))
    model.fit(X, Y, verbose=0)
    assert (np.abs(target.kernel()).sum((0, 1)) > 0).sum() == 8
    with pytest.raises(ValueError, match="strip: only built Sequential and functional"):
        strip(model)


def test_masking_and_training_flags_pass_through():
    wrapped = Prunable(layers.Dense(32), Block(8, 1))
    model = keras.Sequential([keras.Input((5, 16)), layers.Masking(), wrapped])
    assert wrapped.supports_masking == layers.Dense(32).supports_masking
    assert model.output_shape == (None, 5, 32)


def test_config_round_trip():
    wrapper = Prunable(
        layers.Dense(32, name="body"), Block(8, 1), GroupLasso(), 0.5, penalized=False
    )
    config = json.loads(json.dumps(wrapper.get_config()))
    restored = Prunable.from_config(config)
    assert restored.get_config() == wrapper.get_config()
    assert (restored.name, restored.layer.units) == ("body", 32)


@pytest.mark.parametrize(
    "layer, message",
    [
        (layers.BatchNormalization(name="norm"), "'norm' .*no weight matrix"),
        (layers.ReLU(name="relu"), "'relu' .*it has no weights"),
        (layers.Dense(4, name="cold", trainable=False), "'cold' .*frozen"),
    ],
)
def test_layers_that_cannot_be_prunable(layer, message):
    with pytest.raises(ValueError, match=message):
        Prunable(layer).build((None, 8))


def test_what_cannot_be_wrapped_says_so():
    class Net(keras.Model):
        pass

    with pytest.raises(ValueError, match=r"is a subclassed model.*Use attach\(model"):
        wrap(Net(), RECIPE)
    with pytest.raises(ValueError, match="is not built"):
        wrap(keras.Sequential([layers.Dense(3)]), RECIPE)
    with pytest.raises(ValueError, match="has Prunable layers already"):
        wrap(wrap(functional_model(), RECIPE), RECIPE)


class Projection(layers.Layer):
    """Whose output shape Keras must find by tracing."""

    def build(self, input_shape):
        self.table = self.add_weight(shape=(input_shape[-1], 32), name="table")

    def call(self, inputs):
        return inputs @ self.table


register_prunable(Projection, "table")


@pytest.mark.parametrize("sequential", [True, False])
def test_layers_that_do_not_say_their_output_shape_are_wrapped(tmp_path, sequential):
    first, last = Projection(name="p"), layers.Dense(3, name="head")
    model = keras.Sequential([keras.Input((24,)), first, last])
    if not sequential:
        model = keras.Model(model.inputs[0], model.outputs[0])
    recipe = Recipe(Rule("p", rate=4))
    wrapped = wrap(model, recipe)
    assert isinstance(wrapped.get_layer("p"), Prunable)
    x = np.ones((2, 24), np.float32)
    np.testing.assert_array_equal(np.asarray(wrapped(x)), np.asarray(model(x)))
    hard_prune(wrapped, recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        wrapped.save(tmp_path / "wrapped.keras")  # Prunable brings the mask back
    custom = {"Projection": Projection}
    loaded = keras.models.load_model(tmp_path / "wrapped.keras", custom)
    assert hooked_kernels(loaded)[0].mask.groups is not None
    assert sparsity_summary(strip(wrapped))[0].rate == 4


def test_what_is_not_built_in_the_copy_is_not_said_to_lack_a_config():
    class Untraced(Projection):
        def compute_output_shape(self, input_shape):
            raise NotImplementedError

    x = np.ones((2, 24), np.float32)
    model = keras.Sequential([keras.Input((24,)), Untraced(name="p"), layers.Dense(3)])
    model(x)
    with pytest.raises(ValueError, match="not built in the copy, as a layer before"):
        wrap(model, Recipe("p"))


def test_kernels_inside_other_layers_are_attached():
    inputs = keras.Input((6, 16))
    inner = layers.TimeDistributed(layers.Dense(32, name="inside"), name="outside")
    model = keras.Model(inputs, inner(inputs))
    recipe = Recipe(Rule("inside", rate=4))
    wrapped = wrap(model, recipe)
    (target,) = hooked_kernels(wrapped)
    assert target.path == "outside/inside" and len(wrapped.losses) == 1
    rows = hard_prune(wrapped, recipe)
    assert [row.rate for row in rows if row.reason is None] == [4.0]
    assert isinstance(target.variable.constraint, MaskConstraint)
    assert [row.kept for row in sparsity_summary(strip(wrapped))] == [128]
