# SPDX-License-Identifier: Apache-2.0
"""Gradual pruning that removes dead paths: the rate is that of weights that count."""

import keras
import numpy as np
import pytest

import tfrewprune as trp
from tfrewprune.experiments.experiment import count_weights
from tfrewprune.pipeline.dead_paths import mask_dead_paths
from tfrewprune.wrappers.resolving import resolve

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


def spoiled(model, rng):
    """Random biases and statistics; kernels lose filters, and many single weights."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.Model) or not layer.weights:
            continue
        shapes = [array.shape for array in layer.get_weights()]
        values = [rng.uniform(0.3, 1, shape) for shape in shapes]
        if not isinstance(layer, layers.BatchNormalization):
            values[0] *= rng.choice([-1, 1], shapes[0])
            if not isinstance(layer, layers.DepthwiseConv2D):
                values[0] *= rng.random(shapes[0]) < 0.3
                axis = -2 if isinstance(layer, layers.Conv2DTranspose) else -1
                dead = rng.random(shapes[0][axis]) < 0.5
                np.moveaxis(values[0], axis, -1)[..., dead] = 0
        layer.set_weights(values)
    return model


def by_hand(case):
    """Networks in which a constant has no place, or another one than it seems."""
    x = inputs = keras.Input((5, 5, 4))
    norm = layers.BatchNormalization()
    plain = layers.Conv2D(6, 1, use_bias=False, name="plain")
    x = layers.Conv2D(8, 1, activation="relu", name="first")(x)
    if case == "normalization of two":
        other = layers.Conv2D(6, 1, use_bias=False, name="other")(inputs)
        outputs = layers.Concatenate()([norm(plain(x)), norm(other)])
    elif case == "output of the model":
        y = plain(x)
        return keras.Model(inputs, [norm(y), y])
    elif case == "two readers":
        y = plain(x)
        outputs = layers.Add()([norm(y), layers.ReLU()(y)])
    elif case == "normalization by the batch":
        outputs = layers.Conv2D(4, 1)(norm(plain(x), training=True))
    elif case == "shared with a model inside":
        shared = layers.Conv2D(8, 1, name="shared")
        inner = keras.Sequential([keras.Input((5, 5, 8)), shared], name="inner")
        outputs = layers.Add()([shared(x), inner(layers.Conv2D(8, 1)(inputs))])
    elif case == "shared with a wrapper":
        shared = layers.Dense(8, name="shared")
        y = layers.TimeDistributed(shared)(layers.Conv2D(8, 1)(inputs))
        outputs = layers.Add()([shared(x), y])
    elif case == "transposed with strides":
        outputs = layers.Conv2DTranspose(6, 2, strides=2, name="plain")(x)
    elif case == "read by a layer that is not pruned":
        y = layers.Conv2D(32, 1, activation="relu", name="plain")(x)
        outputs = [x, layers.Conv2D(6, 1, name="spared")(y)]
    return keras.Model(inputs, outputs)


def at_random(rng):
    """Residual sums, concatenations, shared layers, and branches as outputs."""
    tensors = [keras.Input((5, 5, 6))]
    inputs = tensors[0]
    shared = [
        layers.Conv2D(6, 1, use_bias=bool(rng.integers(2)), name="twice"),
        layers.BatchNormalization(name="norm_twice"),
    ]

    def any_one():
        return tensors[rng.integers(max(0, len(tensors) - 3), len(tensors))]

    def convolution(x):
        act = rng.choice([None, "relu", "tanh"])
        return layers.Conv2D(6, 1, use_bias=rng.random() < 0.5, activation=act)(x)

    kinds = [
        convolution,
        lambda x: layers.BatchNormalization()(convolution(x)),
        lambda x: shared[rng.integers(2)](x),
        layers.DepthwiseConv2D(1, name="depthwise"),
        lambda x: layers.Add()([x, any_one()]),
        lambda x: layers.Multiply()([convolution(x), any_one()]),
        lambda x: convolution(layers.Concatenate()([x, any_one()])),
    ]
    for _ in range(8):
        y = kinds[rng.integers(len(kinds))](any_one())
        tensors.append(layers.ReLU()(y) if rng.random() < 0.5 else y)
    return keras.Model(inputs, [tensors[-1], tensors[rng.integers(1, 8)]])


def moved_by(remove, model, x):
    """Largest difference of an output after `remove`, over the largest output."""
    before = [np.asarray(y) for y in keras.tree.flatten(model(x))]
    remove(model)
    after = [np.asarray(y) for y in keras.tree.flatten(model(x))]
    apart = [abs(a - b).max() for a, b in zip(after, before, strict=True)]
    return max(apart) / max(abs(y).max() for y in before)


def recipe(model, structure):
    kinds = (layers.Conv2D, layers.Conv2DTranspose, layers.Dense)
    found = {x.name for x in model._flatten_layers() if type(x) in kinds}
    return trp.Recipe(trp.Rule(sorted(found - {"spared"}), structure=structure), rate=2)


def masked(structure):
    def remove(model):
        targets = resolve(model, recipe(model, structure))
        mask_dead_paths(model, [t for t in targets if t.reason is None])

    return remove


def purified(model):
    trp.purify(model, recipe(model, trp.Column()), importance=0)


CASES = [
    "normalization of two",
    "output of the model",
    "two readers",
    "normalization by the batch",
    "shared with a model inside",
    "shared with a wrapper",
    "transposed with strides",
    "read by a layer that is not pruned",
]


@pytest.mark.parametrize("case", [*CASES, *range(8)])
def test_no_output_moves_where_nothing_is_padded(case):
    rng = np.random.default_rng(case if isinstance(case, int) else 1)
    keras.utils.set_random_seed(0)
    model = spoiled(at_random(rng) if isinstance(case, int) else by_hand(case), rng)
    weights = model.get_weights()
    x = rng.normal(size=(4, *model.inputs[0].shape[1:])).astype("float32")
    for remove in (masked(trp.Column()), masked(trp.Block(4, 1)), purified):
        model.set_weights(weights)
        assert moved_by(remove, model, x) < 1e-4
        trp.strip(model)
