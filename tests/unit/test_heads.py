# SPDX-License-Identifier: Apache-2.0
"""Heads of attention layers: removed with all they own, and blocks of projections."""

import keras
import numpy as np
import pytest
from keras import ops

from tfrewprune.methods import ADMM, GradualMagnitude, Reweighted, ReweightedProximal
from tfrewprune.pipeline import (
    compress,
    hard_prune,
    masked_retrain,
    reweighted_train,
)
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Head, Structure
from tfrewprune.wrappers import attach, hooked_kernels, resolve, strip, wrap

layers = keras.layers
WIDTH, HEADS, KEY = 12, 4, 5
# Keras on JAX runs no attention whose values have another size than its keys.
VALUE = KEY if keras.backend.backend() == "jax" else 3
HEAD_WEIGHTS = WIDTH * (2 * KEY + 2 * VALUE)


def attention_model(attention=None) -> keras.Model:
    keras.utils.set_random_seed(0)
    attention = attention or layers.MultiHeadAttention(
        HEADS, KEY, value_dim=VALUE, name="attention", bias_initializer="normal"
    )
    inputs = keras.Input((6, WIDTH))
    x = attention(inputs, inputs)
    return keras.Model(inputs, layers.Dense(32, name="after")(x))


def grouped() -> layers.Layer:
    return layers.GroupQueryAttention(
        KEY, num_query_heads=6, num_key_value_heads=3, name="attention"
    )


def projections(model: keras.Model) -> list[np.ndarray]:
    """Query, key, value (width, heads, size) and output (heads, size, width)."""
    layer = model.get_layer("attention")
    parts = ("query", "key", "value", "output")
    found = (getattr(layer, f"_{name}_dense").kernel for name in parts)
    return [ops.convert_to_numpy(kernel) for kernel in found]


def head_sizes(model: keras.Model) -> np.ndarray:
    """(4, heads): non-zero weights of every head in each projection."""
    q, k, v, o = (weights != 0 for weights in projections(model))
    return np.array([q.sum((0, 2)), k.sum((0, 2)), v.sum((0, 2)), o.sum((1, 2))])


def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 6, WIDTH)).astype(np.float32)
    return x, rng.standard_normal((16, 6, 32)).astype(np.float32)


def test_the_weakest_heads_go_from_all_projections():
    model = attention_model()
    recipe = Recipe(Rule(structure=Head()), rate=2)
    energy = sum(
        np.square(weights).sum(axis=axes)
        for weights, axes in zip(
            projections(model), [(0, 2), (0, 2), (0, 2), (1, 2)], strict=True
        )
    )
    rows = {r.layer: r for r in hard_prune(model, recipe)}
    row = rows["attention/heads"]
    assert (row.kept, row.weights) == (2 * HEAD_WEIGHTS, 4 * HEAD_WEIGHTS)
    assert (row.groups_kept, row.groups, row.kind) == (2, 4, "MultiHeadAttention")
    alive = head_sizes(model) > 0
    expected = np.isin(np.arange(HEADS), np.argsort(-energy)[:2])
    np.testing.assert_array_equal(alive, np.tile(expected, (4, 1)))
    assert rows["attention/query"].reason == "pruned with the heads of attention"
    assert rows["after"].reason == "no rule matches"


@pytest.mark.backend
def test_a_pruned_layer_computes_what_one_with_fewer_heads_does():
    model = attention_model()
    hard_prune(model, Recipe(Rule("attention", structure=Head(), rate=2)))
    heads = head_sizes(model)[0] > 0
    small = layers.MultiHeadAttention(int(heads.sum()), KEY, value_dim=VALUE)
    x = data()[0]
    small(x, x)
    old = model.get_layer("attention")
    for name in ("query", "key", "value", "output"):
        kernel, bias = (
            ops.convert_to_numpy(weights)
            for weights in getattr(old, f"_{name}_dense").weights
        )
        if name == "output":
            kernel = kernel[heads]
        else:
            kernel, bias = kernel[:, heads], bias[heads]
        getattr(small, f"_{name}_dense").set_weights([kernel, bias])
    np.testing.assert_allclose(
        ops.convert_to_numpy(small(x, x)),
        ops.convert_to_numpy(old(x, x)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_in_grouped_attention_keys_go_with_their_queries():
    model = attention_model(grouped())
    hard_prune(model, Recipe(Rule("attention", structure=Head(), rate=3)))
    queries, keys, values, outputs = (weights != 0 for weights in projections(model))
    alive = keys.any((0, 2))
    assert alive.sum() == 1
    np.testing.assert_array_equal(values.any((0, 2)), alive)
    np.testing.assert_array_equal(queries.any((0, 2)), np.repeat(alive, 2))
    np.testing.assert_array_equal(outputs.any((1, 2)), np.repeat(alive, 2))


@pytest.mark.backend
def test_the_penalty_takes_a_head_as_one_group():
    model = attention_model()
    attach(model, Recipe(Rule("attention", structure=Head()), strength=0.1))
    q, k, v, o = projections(model)
    expected = 0.0
    for head in range(HEADS):
        own = [q[:, head], k[:, head], v[:, head], o[head]]
        rms = np.sqrt(sum(np.square(w).sum() for w in own) / HEAD_WEIGHTS)
        expected += 0.1 * HEAD_WEIGHTS * rms / (rms + 1e-3)
    total = sum(float(ops.convert_to_numpy(loss)) for loss in model.losses)
    assert total == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "method, strength",
    [
        (Reweighted(), None),
        pytest.param(ADMM(), 1.0, marks=pytest.mark.backend),
        (GradualMagnitude(score="fisher"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_whole_way(method, strength):
    model = attention_model()
    model.compile("adam", "mse")
    recipe = Recipe(
        Rule("attention", structure=Head(), rate=2),
        method=method,
        strength=strength,
        reweighted_epochs=2,
        retrain_epochs=2,
    )
    before = projections(model)
    result = compress(model, recipe, *data(), batch_size=8, verbose=0)
    alive = head_sizes(result.model) > 0
    assert alive[0].sum() == 2 and (alive == alive[0]).all()
    for old, new in zip(before, projections(result.model), strict=True):
        assert (new[new != 0] != old[new != 0]).all()  # it was trained
    assert not hooked_kernels(result.model)


@pytest.mark.backend
def test_the_gradient_reaches_every_projection():
    model = attention_model()
    recipe = Recipe(Rule("attention", structure=Head()), strength=1.0)
    attach(model, recipe)
    before = projections(model)
    model.compile(keras.optimizers.SGD(1e-3), loss=lambda y, p: 0.0 * ops.sum(p))
    model.fit(*data(), epochs=1, verbose=0)
    for old, new in zip(before, projections(model), strict=True):
        assert np.square(new).sum() < np.square(old).sum()
        assert (new != old).mean() > 0.99


@pytest.mark.parametrize("call", [attach, wrap, reweighted_train, compress])
def test_a_method_that_acts_on_one_tensor_is_refused_before_any_change(call):
    model = attention_model()
    model.compile("adam", "mse")
    rules = [Rule("after", rate=2), Rule("attention", structure=Head(), rate=2)]
    recipe = Recipe(rules, method=ReweightedProximal(), start_rate=2)
    before = model.get_weights()
    arguments = data() if call in (reweighted_train, compress) else ()
    with pytest.raises(ValueError, match="one weight tensor.*Head removes parts of"):
        call(model, recipe, *arguments)
    assert not hooked_kernels(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert hard_prune(model, recipe)  # which needs no method


@pytest.mark.backend
def test_masks_of_all_projections_outlive_a_weights_file(tmp_path):
    recipe = Recipe(Rule("attention", structure=Head(), rate=4))
    first, second = attention_model(), attention_model()
    hard_prune(first, recipe)
    first.save_weights(tmp_path / "mask.weights.h5")
    attach(second, recipe)
    second.load_weights(tmp_path / "mask.weights.h5")
    second.compile("adam", "mse")
    masked_retrain(second, recipe, *data(), epochs=1, verbose=0)
    np.testing.assert_array_equal(head_sizes(second), head_sizes(first))


def test_heads_and_blocks_in_one_recipe():
    model = attention_model()
    rules = [Rule("*", structure=Head(), rate=2), Rule("after", rate=2)]
    found = {t.label: t for t in resolve(model, Recipe(rules))}
    assert found["attention/heads"].structure == Head()
    assert found["after"].structure == Block(16, 1)
    rules = [Rule("attenti*", structure=Block(4, 1), rate=2), Rule("after", rate=2)]
    rows = {r.layer: r for r in hard_prune(attention_model(), Recipe(rules))}
    assert "attention/heads" not in rows
    assert rows["attention/query"].reason.startswith("small: 240 weights < 256")
    assert rows["after"].kept == 6 * 32


@pytest.mark.parametrize("match", ["after", "afte*"])
def test_heads_where_there_are_none(match):
    rule = Rule(match, structure=Head())
    with pytest.raises(ValueError, match="no layer with heads, which Head removes: af"):
        resolve(attention_model(), Recipe(rule, rate=2))


def test_a_frozen_projection_keeps_its_heads():
    model = attention_model()
    model.get_layer("attention")._key_dense.trainable = False
    with pytest.raises(ValueError, match="attention/heads: frozen"):
        resolve(model, Recipe(Rule("attention", structure=Head(), rate=2)))


def test_stripping_frees_all_projections():
    model = attention_model()
    attach(model, Recipe(Rule("attention", structure=Head(), rate=2)))
    assert len(hooked_kernels(model)) == 1
    strip(model)
    for layer in model._flatten_layers():
        assert not hasattr(layer, "pruning_state")
        for variable in layer.variables:
            assert variable.regularizer is None and variable.constraint is None


def test_config():
    assert Structure.get(Head().get_config()) == Head() != Structure.get("Filter")
