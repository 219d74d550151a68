# SPDX-License-Identifier: Apache-2.0
"""attach: what a recipe does to a model in place, and what it says about the rest."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from tfrewprune.methods import GroupLasso, Magnitude
from tfrewprune.pipeline import (
    hard_prune,
    masked_retrain,
    sparsity_summary,
    strip,
)
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import (
    Block,
    Filter,
    KernelLayout,
    KernelShape,
    Unstructured,
)
from tfrewprune.wrappers import (
    GroupLassoRegularizer,
    KernelSpec,
    MaskConstraint,
    ReweightedRegularizer,
    apply_masks,
    attach,
    hooked_kernels,
    register_prunable,
    resolve,
)

layers = keras.layers


def small_model(**conv) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(16, 3, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(32, 3, name="body", **conv),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="head"),
        ]
    )


def reasons(model, recipe) -> dict[str, str | None]:
    return {target.path: target.reason for target in resolve(model, recipe)}


@pytest.mark.backend
def test_penalty_is_in_the_loss_with_the_recipe_s_numbers():
    model = small_model()
    recipe = Recipe(Rule("*", structure=Block(16, 1), strength=0.25), strength=9.0)
    attach(model, recipe)
    kernel = np.asarray(model.get_layer("body").kernel)
    rms = np.sqrt(np.square(kernel.reshape(-1, 2, 16)).mean(-1))
    expected = 0.25 * 16 * (rms / (rms + 1e-3)).sum()
    assert sum(map(float, model.losses)) == pytest.approx(expected, rel=1e-4)


def test_first_convolution_and_classifier_are_left_dense():
    found = reasons(small_model(), Recipe("*"))
    assert found.pop("body") is None
    assert found == {
        "stem": "first convolution (skip_first=True)",
        "norm": "no weight matrix",
        "head": "last classifier (skip_last=True)",
    }
    every = Recipe("*", skip_first=False, skip_last=False)
    assert [k for k, v in reasons(small_model(), every).items() if v] == ["norm"]
    # A rule that names a layer exactly means it.
    assert reasons(small_model(), Recipe(["head", "*"]))["head"] is None


def test_every_other_reason():
    inputs = keras.Input((16, 16, 16))
    x = layers.DepthwiseConv2D(3, name="depthwise")(inputs)
    x = layers.Conv2D(16, 3, groups=4, name="grouped")(x)
    x = layers.Conv2D(32, 1, name="frozen", trainable=False)(x)
    x = layers.Conv2D(32, 1, name="other")(x)
    x = layers.SeparableConv2D(64, 1, name="separable")(x)
    x = layers.Reshape((-1, 64))(x)
    x = layers.GRU(8, name="gru")(x)
    x = layers.Dense(2, name="tiny")(x)
    x = layers.Dense(300, name="wide")(x)
    table = keras.Input((4,))
    y = layers.Flatten()(layers.Embedding(50, 8, name="table")(table))
    model = keras.Model([inputs, table], [x, y])
    recipe = Recipe([Rule("other", skip=True), Rule("wide"), Rule("[!o]*")])
    found = reasons(model, recipe)
    assert found["depthwise"].startswith("depthwise")
    assert found["grouped"].startswith("grouped convolution")
    assert found["frozen"] == "frozen"
    assert found["other"] == "left dense by rule 'other'"
    assert found["separable"] is None
    assert found["gru"] == "small: 64 weights < 256"
    assert found["tiny"] == "small: 16 weights < 256"
    assert found["wide"] is None
    assert found["table"].startswith("no packed operator for Embedding")


def test_layers_no_rule_matches_are_listed():
    assert reasons(small_model(), Recipe("body"))["head"] == "no rule matches"


@pytest.mark.parametrize(
    "layer, shape",
    [
        (layers.Conv1D(32, 3), (8, 16)),
        (layers.Conv3D(32, 2), (4, 4, 4, 16)),
        (layers.Conv2DTranspose(32, 3), (4, 4, 16)),
        (layers.SeparableConv2D(32, 3), (8, 8, 16)),
        (layers.EinsumDense("abc,cde->abde", (None, 4, 8)), (4, 16)),
        (layers.TimeDistributed(layers.Dense(32)), (4, 16)),
        (layers.Embedding(50, 64), (4,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_other_layers_with_a_matrix(layer, shape):
    model = keras.Sequential([keras.Input(shape), layer])
    recipe = Recipe(Rule(layer.name, rate=4), skip_first=False, skip_last=False)
    (row,) = [r for r in hard_prune(model, recipe) if r.reason is None]
    assert row.rate == pytest.approx(4, rel=0.05)
    (target,) = hooked_kernels(model)
    assert target.structure.surviving_groups(target.kernel()).sum() == row.groups_kept


def test_transposed_convolution_is_cut_along_its_outputs():
    layer = layers.Conv2DTranspose(20, 2)
    model = keras.Sequential([keras.Input((4, 4, 16)), layer])
    recipe = Recipe(Rule(layer.name, structure=Filter(), rate=4))
    hard_prune(model, recipe)
    kernel = np.asarray(layer.kernel)  # height, width, outputs, inputs
    assert (np.abs(kernel).sum((0, 1, 3)) > 0).sum() == 5


def test_attention_projections_are_found_inside_their_layer():
    inputs = keras.Input((6, 128))
    attention = layers.MultiHeadAttention(4, 64, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    recipe = Recipe("attention/*", skip_last=False)
    shapes = {t.path: t.shape for t in resolve(model, recipe) if t.reason is None}
    assert shapes == {
        "attention/query": KernelShape(1, 128, 256),
        "attention/key": KernelShape(1, 128, 256),
        "attention/value": KernelShape(1, 128, 256),
        "attention/attention_output": KernelShape(1, 256, 128),
    }


def test_the_name_or_kind_of_a_layer_means_what_is_inside():
    """Dense is faster at this rate, a layer is small, and one gives the output."""
    inputs = keras.Input((6, 16))
    hidden = layers.MultiHeadAttention(4, 8, name="attention")(inputs, inputs)
    encoder = keras.Model(inputs, hidden, name="encoder")
    steps = layers.TimeDistributed(layers.Dense(8, name="inner"), name="steps")
    model = keras.Sequential([keras.Input((6, 16)), encoder, steps])
    parts = ("query", "key", "value", "attention_output")
    attention = {f"encoder/attention/{part}" for part in parts}

    def pruned(**rule):
        recipe = Recipe(Rule(structure=Block(8, 1), **rule), rate=4)
        return {t.path for t in resolve(model, recipe) if t.reason is None}

    for rule in ({"match": "steps"}, {"kind": "TimeDistributed"}):
        assert pruned(**rule) == {"steps/inner"}
    for name in ("encoder", "attention", "encoder/attention"):
        assert pruned(match=name) == attention
    assert pruned(kind="MultiHeadAttention") == attention
    for rule in ({"match": "st*"}, {"match": "*"}, {"kind": "Multi*"}):
        with pytest.raises(ValueError, match="leaves no layer to prune"):
            pruned(**rule)


def test_nested_and_shared_layers_are_seen_once():
    shared = layers.Conv2D(32, 3, padding="same", name="shared")
    inner = keras.Sequential([keras.Input((8, 8, 32)), shared], name="inner")
    inputs = keras.Input((8, 8, 32))
    model = keras.Model(inputs, shared(inner(inner(inputs))))
    targets = resolve(model, Recipe("shared"))
    assert [target.path for target in targets] == ["inner/shared"]
    assert [t.path for t in resolve(model, Recipe("inner/*", skip_first=False))]


@pytest.mark.backend
def test_subclassed_models():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [layers.Dense(64, name=f"block{i}") for i in range(3)]

        def call(self, inputs):
            for block in self.blocks:
                inputs = block(inputs)
            return inputs

    model = Net()
    with pytest.raises(ValueError, match="block0: not built: call the model on data"):
        attach(model, Recipe("*"))
    model(np.zeros((1, 16), np.float32))
    chosen = [t.path for t in attach(model, Recipe("*")) if t.reason is None]
    assert chosen == ["block0", "block1"]
    assert len(model.losses) == 2


@pytest.mark.parametrize(
    "recipe, message",
    [
        (
            Recipe("cnov"),
            "Rule 'cnov' matches no layer. Layers.*stem, norm, body, head",
        ),
        (Recipe(["*", "body"]), "Rule 'body' never applies"),
        (Recipe("norm"), "leaves no layer to prune:\n  stem: no rule matches"),
        (Recipe([Rule("body", skip=True), "head*"]), "left dense by rule"),
    ],
)
def test_recipes_that_do_not_fit(recipe, message):
    with pytest.raises(ValueError, match=message):
        attach(small_model(), recipe)


@pytest.mark.backend
def test_custom_layers_need_registration():
    @keras.saving.register_keras_serializable(package="test_attach")
    class Projection(keras.layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(input_shape[-1], 32), name="table")

        def call(self, inputs):
            return inputs @ self.table

    model = keras.Sequential([keras.Input((16,)), Projection(name="custom")])
    with pytest.raises(ValueError, match="not known; see tfrewprune.register_prunable"):
        attach(model, Recipe("custom"))
    register_prunable(Projection, KernelSpec("table"))
    attach(model, Recipe("custom"))
    assert len(model.losses) == 1
    hard_prune(model, Recipe(Rule("custom", structure=Unstructured(), rate=8)))
    assert np.count_nonzero(np.asarray(model.layers[0].table)) == 64
    with pytest.raises(TypeError, match="Expected a keras.Layer subclass"):
        register_prunable(int, "kernel")


def test_a_misspelt_attribute_is_named_with_those_there_are():
    class Projection(keras.layers.Layer):
        def build(self, input_shape):
            self.bias = self.add_weight(shape=(32,), name="bias")
            self.table = self.add_weight(shape=(input_shape[-1], 32), name="table")

        def call(self, inputs):
            return inputs @ self.table + self.bias

    register_prunable(Projection, "tabel")
    model = keras.Sequential([keras.Input((16,)), Projection(name="custom")])
    message = "custom: register_prunable names 'tabel', .* has not got; it has 'table'"
    with pytest.raises(ValueError, match=message):
        attach(model, Recipe("custom"))


@pytest.mark.parametrize("layout", [KernelLayout(), KernelLayout("dense")])
def test_patterns_prune_registered_layers(layout):
    """Also where the layer does not say its output shape."""

    class Lookup(keras.layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(input_shape[-1], 64), name="table")

        def call(self, inputs):
            return inputs @ self.table

    register_prunable(Lookup, KernelSpec("table", layout))
    model = keras.Sequential([keras.Input((64,)), Lookup(name="a"), Lookup(name="b")])
    rows = hard_prune(model, Recipe(Rule("*", rate=8)))
    assert [row.rate for row in rows] == [8, 8]
    if layout.kind == "conv":
        with pytest.raises(ValueError, match="Lookup.*has no `compute_output_shape`"):
            hard_prune(model, Recipe(rate=8, budget="macs"))


@pytest.mark.backend
def test_existing_hooks_survive_attach_and_strip():
    model = small_model(kernel_regularizer="l2", kernel_constraint="max_norm")
    body = model.get_layer("body")
    recipe = Recipe(Rule("body", rate=8))
    attach(model, recipe)
    attach(model, recipe)  # twice: the penalty is replaced, not stacked
    assert isinstance(body.kernel.regularizer.existing, keras.regularizers.L2)
    hard_prune(model, recipe)
    hard_prune(model, recipe)
    assert isinstance(body.kernel.regularizer, keras.regularizers.L2)
    assert isinstance(body.kernel.constraint.existing, keras.constraints.MaxNorm)
    assert strip(model) is model
    assert isinstance(body.kernel.constraint, keras.constraints.MaxNorm)
    assert isinstance(body.kernel_constraint, keras.constraints.MaxNorm)
    assert not hooked_kernels(model)


def test_methods_choose_the_regularizer():
    model = small_model()
    attach(model, Recipe("body", method=GroupLasso()))
    assert isinstance(model.get_layer("body").kernel.regularizer, GroupLassoRegularizer)
    attach(model, Recipe("body"))
    assert isinstance(model.get_layer("body").kernel.regularizer, ReweightedRegularizer)
    attach(model, Recipe(Rule("body", rate=8), method=Magnitude()))
    assert model.get_layer("body").kernel.regularizer is None
    assert model.losses == []


@pytest.mark.backend
def test_reload_in_the_penalized_phase(tmp_path):
    model = small_model()
    attach(model, Recipe("body", strength=0.01))
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    (target,) = hooked_kernels(restored)
    assert target.penalty.strength == 0.01
    # alpha belongs to the present weights on both sides
    assert sum(map(float, restored.losses)) == pytest.approx(
        sum(map(float, model.losses)), rel=1e-5
    )


@pytest.mark.backend
def test_reload_in_the_masked_phase(tmp_path):
    model = small_model()
    hard_prune(model, Recipe(Rule("body", rate=8)))
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    (target,) = hooked_kernels(restored)
    assert isinstance(target.variable.constraint, MaskConstraint)
    before = model.get_layer("body").kernel.constraint.groups
    np.testing.assert_array_equal(target.mask.groups, before)
    assert [r.kept for r in sparsity_summary(restored)] == [
        r.kept for r in sparsity_summary(model)
    ]


@keras.saving.register_keras_serializable(package="test_attach")
class Lookup(layers.Layer):
    """A custom layer, without `table_constraint`."""

    def build(self, input_shape):
        self.table = self.add_weight(shape=(input_shape[-1], 32), name="table")

    def call(self, inputs):
        return inputs @ self.table


register_prunable(Lookup, "table")


@keras.saving.register_keras_serializable(package="test_attach")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(32, name="inner")

    def call(self, inputs):
        return self.inner(inputs)


def attention() -> keras.Model:
    inputs = keras.Input((4, 16))
    layer = layers.MultiHeadAttention(2, 8, name="attention")
    return keras.Model(inputs, layer(inputs, inputs))


@pytest.mark.parametrize(
    "build, name",
    [
        (lambda: keras.Sequential([keras.Input((16,)), Lookup(name="l")]), "l"),
        (Subclassed, "inner"),
        (attention, "attention"),
    ],
    ids=["custom", "subclassed", "attention"],
)
def test_masks_that_no_config_holds(tmp_path, build, name):
    """Saving says that they do not come back, and how they do."""
    model, file = build(), tmp_path / "model.keras"
    x = np.ones((2, 4, 16) if build is attention else (2, 16), np.float32)
    model(x)
    model.compile("sgd", "mse")
    rule = Rule(name, structure=Block(8, 1), rate=4)
    recipe = Recipe(rule, retrain_epochs=1)
    hard_prune(model, recipe)
    with pytest.warns(UserWarning, match=r"attach\(model, recipe\) and"):
        model.save(file)
    loaded = keras.models.load_model(file)
    y = np.zeros_like(ops.convert_to_numpy(model(x)))
    with pytest.raises(ValueError, match=r"from a .keras file.*model.load_weights"):
        masked_retrain(loaded, recipe, x, y, verbose=0)
    attach(loaded, recipe)
    loaded.load_weights(file)
    masked_retrain(loaded, recipe, x, y, verbose=0)
    kept = [[row.kept for row in sparsity_summary(m)] for m in (model, loaded)]
    assert kept[0] == kept[1]


def test_masks_that_come_back_are_saved_without_a_warning(tmp_path):
    inputs = keras.Input((4, 32))
    inner = keras.Sequential([keras.Input((4, 32)), layers.Dense(32)], name="inner")
    steps = layers.TimeDistributed(layers.Dense(32))
    cells = layers.RNN([layers.GRUCell(32), layers.LSTMCell(32)], return_sequences=True)
    both = layers.Bidirectional(layers.SimpleRNN(32))
    model = keras.Model(inputs, both(cells(steps(inner(inputs)))))
    recipe = Recipe(Rule("*", rate=4), skip_last=False)
    hard_prune(model, recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
    restored = keras.models.load_model(tmp_path / "model.keras")
    masks = [t.mask.groups for t in hooked_kernels(model)]
    again = [t.mask.groups for t in hooked_kernels(restored)]
    for mask, other in zip(masks, again, strict=True):
        np.testing.assert_array_equal(mask, other)


@pytest.mark.backend
def test_apply_masks_repairs_weights_written_from_outside():
    model = small_model()
    hard_prune(model, Recipe(Rule("body", rate=8)))
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    apply_masks(model)
    assert np.asarray(model.get_layer("body").kernel).sum() == 16 * 9 * 32 / 8
