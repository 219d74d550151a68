# SPDX-License-Identifier: Apache-2.0
"""Filters of a `.tflite` in another order: it computes the same, or they stay."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from dense_models import conv, finish, fully_connected, run
from tiny_models import Graph

from tfrewprune.converter.channels import with_filters_moved
from tfrewprune.converter.export import to_tflite
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.oneshot import prune_one_shot, tflite_model
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block

layers = keras.layers
X = np.random.default_rng(2).random((1, 8, 8, 6), np.float32)


def shuffled(content, seed=0):
    """The model in a random order, and how many channels each tensor moved has."""
    random, counts = np.random.default_rng(seed), []

    def choose(operators, count):
        counts.append(count)
        return random.permutation(count)

    return with_filters_moved(content, choose), sorted(counts)


def assert_same(content, other, x=X):
    for found, expected in zip(run(other, x), run(content, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def many_operators():
    """Every kind of operator that channels pass; five sets of channels are free."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 6))
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="a")(inputs)
    x = layers.PReLU(shared_axes=[1, 2], alpha_initializer="uniform")(x)
    x = layers.DepthwiseConv2D(3, padding="same", bias_initializer="uniform")(x)
    x = layers.Activation("hard_swish")(layers.BatchNormalization()(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="relu", bias_initializer="uniform")(gate)
    gate = layers.Conv2D(16, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    y = layers.Conv2D(24, 1, name="b")(x)
    y = keras.ops.subtract(y, np.arange(24, dtype=np.float32) / 9)
    z = layers.Conv2D(24, 3, padding="same", name="c")(x)
    added = layers.Maximum()([y, z]) / 2.0
    x = layers.ZeroPadding2D(1)(layers.Conv2D(12, 1, name="d")(added))
    x = layers.MaxPooling2D()(x)
    y = layers.AveragePooling2D(2)(layers.UpSampling2D(interpolation="bilinear")(x))
    x = layers.Concatenate()([x, y])
    x = layers.DepthwiseConv2D(1, depth_multiplier=2)(x)
    x = layers.Concatenate(axis=1)([x, x])
    x = layers.Dense(20, activation="tanh", name="e")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, name="last")(x))


@pytest.fixture(scope="module")
def content():
    model = many_operators()
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights(
                [random.uniform(0.5, 1.5, w.shape) for w in layer.weights]
            )
    return to_tflite(model)


@pytest.mark.parametrize("seed", range(3))
def test_a_random_order_computes_the_same(content, seed):
    moved, counts = shuffled(content, seed)
    assert counts == [8, 12, 16, 20, 24]
    assert_same(content, moved)
    assert len(moved) <= len(content) + 4096  # what was moved is not kept twice


def quantized(folder, *types):
    """The model as TensorFlow's converter quantizes it."""
    many_operators().export(folder, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = types
    return converter.convert()


def test_half_precision_constants_move_behind_their_decoders(tmp_path):
    halved = quantized(tmp_path / "m", tf.float16)
    moved, counts = shuffled(halved)
    assert counts == [8, 12, 16, 20, 24]
    assert_same(halved, moved)


def test_layers_of_integer_weights_stay(tmp_path):
    moved, counts = shuffled(content := quantized(tmp_path / "m"))
    assert counts == [8]  # TensorFlow leaves small weights float
    assert_same(content, moved)


def chain(read):
    """Two products, what `read` makes of the channels between them."""
    inputs = keras.Input((8, 8, 6), batch_size=1)
    x = read(layers.Conv2D(16, 1, name="a")(inputs))
    return to_tflite(keras.Model(inputs, layers.Dense(4, name="last")(x)))


@pytest.mark.parametrize(
    "read",
    [
        layers.Softmax(),
        layers.Conv2D(16, 3, groups=4),
        layers.Conv2DTranspose(16, 3),
        lambda x: x[..., ::2],
        lambda x: keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, 2]]),
        lambda x: keras.ops.mean(x, axis=-1, keepdims=True),
        lambda x: keras.ops.transpose(x, [0, 3, 1, 2]),
        lambda x: keras.ops.reshape(x, (1, 8, 64, 2)),
        lambda x: keras.ops.concatenate([x, keras.ops.ones((1, 8, 8, 2))], axis=-1),
    ],
    ids=[
        *("softmax", "groups", "transposed", "every second", "more channels"),
        *("their mean", "another axis", "rows of two", "with constants"),
    ],
)
def test_what_reads_channels_as_they_are_has_them_stay(read):
    moved, counts = shuffled(chain(read))
    assert moved is None and 16 not in counts


def test_outputs_stay_and_so_do_channels_that_are_read_twice():
    inputs = keras.Input((8, 8, 6))
    x = layers.Conv2D(16, 1, name="a")(inputs)
    y = layers.Dense(8, name="b")(layers.Dense(12, name="hidden")(x))
    moved, counts = shuffled(content := to_tflite(keras.Model(inputs, [x, y])))
    assert counts == [12]
    assert_same(content, moved)


def test_a_constant_that_several_layers_share_is_moved_for_one():
    graph = Graph()
    random = np.random.default_rng(0)
    x = graph.tensor("x", (1, 8, 8, 6))
    bias = graph.constant("bias", random.random(16))
    kernel = graph.constant("kernel", random.standard_normal((16, 1, 1, 16)))
    y = conv(graph, x, random.standard_normal((16, 3, 3, 6)), bias, name="a")
    y = conv(graph, y, kernel, bias, name="b")
    y = conv(graph, y, kernel, bias, name="c")
    y = fully_connected(graph, y, random.standard_normal((4, 1024)), np.zeros(4))
    content = finish(graph, [x], [y])
    moved, counts = shuffled(content)
    assert counts == [16, 16, 16]
    assert_same(content, moved)


def planted(random, outputs, *inputs):
    """Filters of three kinds, each large in other columns, mixed up."""
    weights = 0.01 * random.standard_normal((outputs, *inputs)).reshape(outputs, -1)
    kind = random.permutation(np.repeat(np.arange(3), outputs // 3))
    owner = random.permutation(weights.shape[1]) % 3
    weights += kind[:, None] == owner
    signs = random.choice([-1, 1], weights.shape)
    scale = np.sqrt(3 / weights.shape[1])
    return (weights * signs * scale).reshape(outputs, *inputs).astype(np.float32)


def planted_model():
    graph, random = Graph(), np.random.default_rng(0)
    x = graph.tensor("x", (1, 8, 8, 6), signature=(-1, 8, 8, 6))
    y = conv(graph, x, planted(random, 48, 3, 3, 6), np.zeros(48), name="a")
    y = conv(graph, y, planted(random, 48, 1, 1, 48), np.zeros(48), name="b")
    y = fully_connected(graph, y, planted(random, 4 * 3, 3072), np.zeros(12), name="c")
    return finish(graph, [x], [y])


INPUTS = np.random.default_rng(1).standard_normal((96, 8, 8, 6)).astype(np.float32)
RULES = Recipe(Rule(["a", "b"], structure=Block(16, 1), rate=3))


def test_one_shot_pruning_brings_like_filters_side_by_side():
    content = planted_model()
    arranged = prune_one_shot(content, INPUTS, recipe=RULES)
    as_it_is = prune_one_shot(content, INPUTS, recipe=RULES.replace(arrange=False))
    for layer in "ab":
        assert arranged.losses[layer] < 0.001 < 0.3 < as_it_is.losses[layer]
    for result in (arranged, as_it_is):
        assert [row.layer for row in result.layers] == ["a", "b", "c"]
        assert [round(row.weights / row.kept) for row in result.layers[:2]] == [3, 3]


def with_last_scaled(content, scale):
    """The model with the weights of its last layer times `scale`."""
    model = read_model(content)
    graph = model.subgraphs[0]
    tensor = graph.tensors[int(graph.operators[-1].inputs[1])]
    buffer = model.tree.buffers[tensor.buffer]
    buffer.data = (scale * model.data(tensor).view(np.float32)).view(np.uint8)
    return write_model(model)


def test_a_model_that_would_compute_something_else_stays(monkeypatch):
    content = planted_model()
    other, _ = shuffled(content)
    wrong = with_last_scaled(other, scale=2.0)
    monkeypatch.setattr(tflite_model, "with_filters_moved", lambda *_: wrong)
    kept = prune_one_shot(content, INPUTS, recipe=RULES)
    plain = prune_one_shot(content, INPUTS, recipe=RULES.replace(arrange=False))
    assert kept.model == plain.model
