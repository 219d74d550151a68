# SPDX-License-Identifier: Apache-2.0
"""Smaller models compute the same, and nothing dead is left in them."""

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfrewprune as trp

layers = keras.layers


def spoil(model, rng, outputs=0.4, inputs=0.2, scales=0.1):
    """Random biases and statistics, and dead filters and channels in all layers."""
    for layer in model.layers:
        weights = layer.get_weights()
        if isinstance(layer, keras.Model):
            spoil(layer, rng, outputs, inputs, scales)
        elif isinstance(layer, layers.BatchNormalization):
            count = len(weights[0])
            gamma = rng.normal(1, 0.3, count) * (rng.random(count) >= scales)
            shift = [rng.normal(0, 0.5, count) for _ in range(2)]
            layer.set_weights([gamma, *shift, rng.uniform(0.5, 2, count)])
        elif weights:
            kernel = weights[0]
            if isinstance(layer, layers.DepthwiseConv2D):
                kernel[..., rng.random(kernel.shape[-2]) < inputs, :] = 0
            else:
                kernel[..., rng.random(kernel.shape[-1]) < outputs] = 0
                kernel[..., rng.random(kernel.shape[-2]) < inputs, :] = 0
            rest = [rng.normal(0, 0.5, array.shape) for array in weights[1:]]
            layer.set_weights([kernel, *rest])
    return model


def compare(model, small, seed=1):
    """Asserts that two models agree on inputs that `shrink` did not look at."""
    rng = np.random.default_rng(seed)
    (tensor,) = model.inputs
    fed = rng.normal(0, 2, (3, *tensor.shape[1:])).astype("float32")
    expected, found = np.asarray(model(fed)), np.asarray(small(fed))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=2e-5 * scale, rtol=2e-5)


def sizes(result):
    return {row.layer: row.channels_left for row in result.layers}


ACTIVATIONS = ("relu", "relu6", "tanh", "linear", "gelu")


def random_model(choose, rng):
    """A small functional model of what nets for images are made of."""
    padding = choose(["same", "valid"])

    def block(x, number):
        width, act = choose([2, 3, 5, 8]), choose(ACTIVATIONS)
        kind = choose(["conv", "depthwise", "separable", "residual", "dense", "pool"])
        if kind == "conv":
            x = layers.Conv2D(width, choose([1, 3]), padding=padding)(x)
            if choose([True, False]):
                x = layers.BatchNormalization()(x)
            return layers.Activation(act)(x)
        if kind == "depthwise":
            x = layers.DepthwiseConv2D(
                3, padding=padding, depth_multiplier=choose([1, 2]), activation=act
            )(x)
            return layers.Conv2D(width, 1, use_bias=choose([True, False]))(x)
        if kind == "separable":
            return layers.SeparableConv2D(
                width, 3, padding=padding, depth_multiplier=choose([1, 2])
            )(x)
        if kind == "residual":
            x = layers.Conv2D(width, 3, padding=padding, activation=act)(x)
            y = layers.Conv2D(3, 1, activation=act)(x)
            y = layers.Conv2D(width, 3, padding="same")(y)
            merge = choose([layers.Add, layers.Multiply, layers.Maximum])
            return layers.ReLU()(merge()([x, y]))
        if kind == "dense":
            y = layers.Conv2D(width, 3, padding="same", activation=act)(x)
            return layers.Concatenate()([x, y])
        pool = choose([layers.MaxPooling2D, layers.AveragePooling2D])
        return pool(2, strides=1, padding=padding)(x)

    x = inputs = keras.Input((13, 13, 2))
    x = layers.Conv2D(6, 3, padding=padding, activation="relu")(x)
    for number in range(choose([1, 2, 3])):
        x = block(x, number)
    head = choose(["flatten", "average", "max"])
    if head == "flatten":
        x = layers.Flatten()(layers.MaxPooling2D(2, padding="same")(x))
    elif head == "average":
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(6, activation=choose(ACTIVATIONS))(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_random_models_compute_the_same_and_have_nothing_left_to_remove(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    model = random_model(lambda options: data.draw(st.sampled_from(options)), rng)
    spoil(model, rng)
    before = [array.copy() for array in model.get_weights()]
    result = trp.shrink(model)
    compare(model, result.model)
    for array, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, kept)  # the source is as it was
    assert result.weights == model.count_params()
    assert result.weights_left == result.model.count_params() <= result.weights
    again = trp.shrink(result.model)
    assert again.weights_left == result.weights_left


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_chain_keeps_exactly_the_channels_on_a_path(seed):
    rng = np.random.default_rng(seed)
    widths = rng.integers(4, 9, 4)
    model = keras.Sequential(
        [
            keras.Input((20, 2)),
            *(layers.Conv1D(int(n), 3, activation="relu") for n in widths),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    spoil(model, rng)
    # By walking over the 0-1 graph of channels, an oracle of its own.
    reach = [layer.get_weights()[0].any(axis=0) for layer in model.layers[:-2]]
    last = model.layers[-1].get_weights()[0]
    reach.append(last.reshape(-1, widths[-1], 3).any(axis=0))
    live = [np.ones(2, bool)]
    for matrix in reach[:-1]:
        live.append(matrix[live[-1]].any(axis=0))
    read = np.ones(3, bool)
    expected = []
    for number in range(4, 0, -1):
        read = reach[number][:, read].any(axis=1) & live[number]
        expected.append(max(1, read.sum()))
    result = trp.shrink(model)
    compare(model, result.model)
    assert isinstance(result.model, keras.Sequential)
    found = [layer.filters for layer in result.model.layers[:-2]]
    if min(expected) > 1:  # a layer without any keeps one that nothing needs
        assert found == expected[::-1]
    assert all(a >= b for a, b in zip(found, expected[::-1], strict=True))


def resnet_block(padding="same"):
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.Conv2D(12, 3, padding="same", use_bias=False, name="first")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(16, 3, padding="same", use_bias=False, name="second")(y)
    y = layers.BatchNormalization(name="second_bn")(y)
    x = layers.ReLU()(layers.Add(name="sum")([x, y]))
    x = layers.Conv2D(8, 3, name="head")(x)
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def kill(model, name, channels):
    """Filters without weights, and without a shift behind them."""
    weights = model.get_layer(name).get_weights()
    weights[0][..., channels] = 0
    model.get_layer(name).set_weights(weights)


def test_a_residual_channel_goes_only_if_all_branches_are_dead():
    keras.utils.set_random_seed(0)
    model = resnet_block()
    kill(model, "stem", [0, 1, 2, 3])
    kill(model, "second", [2, 3, 4, 5])
    kill(model, "first", [0, 7])
    result = trp.shrink(model)
    compare(model, result.model)
    assert sizes(result)["first"] == 10
    assert sizes(result)["stem"] == sizes(result)["second"] == 14
    (row,) = (row for row in result.layers if row.layer == "stem")
    assert "they join channels that vary" in row.reason


def test_a_channel_of_a_sum_that_nobody_reads_goes_in_all_branches():
    model = resnet_block()
    for name in ("head", "first"):
        weights = model.get_layer(name).get_weights()
        weights[0][..., [1, 5, 6], :] = 0
        model.get_layer(name).set_weights(weights)
    result = trp.shrink(model)
    compare(model, result.model)
    found = sizes(result)
    assert found["stem"] == found["stem_bn"] == found["second"] == 13


def test_a_residual_block_without_a_path_goes_whole():
    rng = np.random.default_rng(0)
    model = spoil(resnet_block(), rng, outputs=0, inputs=0, scales=0)
    kill(model, "second", np.arange(16))
    result = trp.shrink(model)
    compare(model, result.model)
    assert sizes(result)["first"] == sizes(result)["second"] == 0
    assert "first" not in [layer.name for layer in result.model.layers]


def padded(bias=0.5, **options):
    """Two padded convolutions; three filters of the first give constants."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="a"),
            layers.Conv2D(4, 3, name="b", **options),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    kernel, _ = model.layers[0].get_weights()
    kernel[..., :3] = 0
    shift = bias * np.array([1, 2, 3, 1, 1, 1])
    model.layers[0].set_weights([kernel, shift])
    return model


@pytest.mark.parametrize(
    ("bias", "options", "left"),
    [
        (0.5, {"padding": "valid"}, 3),  # folded into the bias
        (0.5, {"padding": "same"}, 4),  # one carries the constants of three
        (-0.5, {"padding": "same"}, 3),  # the activation makes it 0
        (0.5, {"padding": "same", "strides": 2}, 4),
        (0.5, {"padding": "valid", "use_bias": False}, 3),  # gets a bias
    ],
)
def test_constants_go_where_padding_cannot_see_them(bias, options, left):
    model = padded(bias, **options)
    result = trp.shrink(model)
    compare(model, result.model)
    assert sizes(result)["a"] == left
    (row, *_) = result.layers
    assert (row.reason is not None) == (left == 4)
    if left == 4:
        assert "b sees where its constant ends (padding='same')" in row.reason


def test_a_constant_in_front_of_a_padded_depthwise_convolution_stays():
    rng = np.random.default_rng(3)
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(8, 1, name="next")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    kill(model, "pointwise", [0, 1, 2])
    beta = np.array([1.0, -1.0, 0.0, 1, 1, 1, 1, 1])
    weights = model.get_layer("bn").get_weights()
    model.get_layer("bn").set_weights([weights[0], beta, *weights[2:]])
    spoil_bias = model.get_layer("depthwise").get_weights()
    spoil_bias[1] = rng.normal(size=8)
    model.get_layer("depthwise").set_weights(spoil_bias)
    result = trp.shrink(model)
    compare(model, result.model)
    found = sizes(result)
    assert found["pointwise"] == found["depthwise"] == 6  # of 1, -1 and 0 two go
    assert "depthwise sees" in result.layers[0].reason


def test_what_is_not_understood_stays_with_its_reason():
    @keras.saving.register_keras_serializable("test_shrinking")
    class Mixing(layers.Layer):
        def call(self, x):
            return x + keras.ops.mean(x, axis=-1, keepdims=True)

    inputs = keras.Input((10, 4))
    x = layers.Conv1D(8, 3, activation="relu", name="conv")(inputs)
    x = Mixing(name="mixing")(x)
    shared = layers.Conv1D(8, 1, name="shared")
    x = shared(shared(x))
    x = layers.Conv1D(6, 3, name="after")(x)
    x = layers.GRU(4, name="gru")(x)
    model = spoil(keras.Model(inputs, layers.Dense(2)(x)), np.random.default_rng(0))
    result = trp.shrink(model)
    compare(model, result.model)
    assert result.weights_left == result.weights
    reasons = {row.layer: row.reason for row in result.layers}
    assert "mixing: layer class Mixing is not known" in reasons["conv"]
    assert reasons["shared"] == "called 2 times by the model"
    assert "layer class GRU is not known" in reasons["gru"]
    assert "gru" in reasons["after"]
    assert "layer class GRU" in str(result)


def test_layers_without_weights_may_be_called_twice():
    rng = np.random.default_rng(0)
    inputs = keras.Input((4, 4, 3))
    add, act = layers.Add(), layers.ReLU()
    rows = layers.Reshape((16, 6), name="rows")
    x = layers.Conv2D(6, 1, name="a")(inputs)
    y = layers.Conv2D(6, 1, name="b")(inputs)
    for name in ("c", "d"):
        x = act(add([x, layers.Conv2D(6, 1, name=name)(x)]))
    x = layers.Concatenate(axis=1)([rows(x), rows(y)])
    x = layers.Conv1D(2, 1, name="last")(act(x))
    model = spoil(keras.Model(inputs, x), rng)
    for name in ("c", "d"):
        kill(model, name, np.arange(6))
    result = trp.shrink(model)
    compare(model, result.model)
    reasons = {row.layer: row.reason for row in result.layers}
    assert "rows: called 2 times by the model" in reasons["b"]


def test_layers_that_cannot_be_copied_stay_as_they_are():
    class Doubled(layers.Layer):  # Keras makes none from its config
        def __init__(self, width):
            super().__init__(name="doubled")
            self.dense = layers.Dense(width, name="inner")

        def call(self, x):
            return 2 * self.dense(x)

    factor = 3.0
    model = keras.Sequential(
        [
            keras.Input((6,)),
            Doubled(8),
            layers.Lambda(lambda x: x * factor + np.pi),
            layers.Dense(12, name="a"),
            layers.Dense(2),
        ]
    )
    kill(model, "a", [0, 3])
    result = trp.shrink(model)
    compare(model, result.model)
    assert sizes(result) == {"doubled": 8, "a": 10, model.layers[-1].name: 2}
    trp.attach(model, trp.Recipe(trp.Rule("doubled/inner"), rate=2))
    with pytest.raises(ValueError, match=r"shrink: layer 'doubled' .*strip\(model\)"):
        trp.shrink(model)


def test_a_subclassed_model_stays_as_it_is():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model(np.zeros((1, 4), "float32"))
    result = trp.shrink(model)
    assert result.model is model
    assert "subclassed" in result.reason and "subclassed" in str(result)
    assert result.weights_left == result.weights == 15


def test_models_inside_are_shrunk_by_themselves():
    inner = keras.Sequential(
        [layers.Conv2D(8, 3, activation="relu", name="in"), layers.Conv2D(6, 3)],
        name="inner",
    )
    inputs = keras.Input((10, 10, 3))
    x = layers.Flatten()(inner(inputs))
    model = spoil(keras.Model(inputs, layers.Dense(2)(x)), np.random.default_rng(1))
    result = trp.shrink(model)
    compare(model, result.model)
    assert sizes(result)["inner/in"] < 8
    assert result.weights_left == result.model.count_params()


def test_sums_and_scalars_as_operators_and_dicts_of_inputs():
    rng = np.random.default_rng(0)
    first, second = keras.Input((6,), name="first"), keras.Input((6,), name="second")
    x = layers.Dense(8, activation="relu", name="a")(first)
    y = layers.Dense(8, activation="relu", name="b")(second)
    z = layers.Dense(5, name="c")(keras.ops.relu(x * y + 1.0) - 0.5)
    inputs = {"first": first, "second": second}
    model = spoil(keras.Model(inputs, {"z": z}), rng)
    result = trp.shrink(model)
    fed = {name: rng.normal(size=(4, 6)).astype("float32") for name in inputs}
    expected, found = (m.predict(fed, verbose=0)["z"] for m in (model, result.model))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sizes(result)["a"] == sizes(result)["b"] < 8


def test_a_model_under_masks_gives_a_plain_compiled_one(tmp_path):
    model = padded()
    model.compile("sgd", "mse", metrics=["mae"])
    recipe = trp.Recipe({"b": 2}, method="Magnitude").replace(
        rules=(trp.Rule("b", structure=trp.Filter(), rate=2),)
    )
    trp.hard_prune(model, recipe)
    result = trp.shrink(model)
    assert sizes(result)["b"] == 2
    assert result.model.compiled
    result.model.fit(np.zeros((4, 8, 8, 2)), np.zeros((4, 2)), verbose=0)
    path = tmp_path / "small.keras"
    result.model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.get_layer("b").filters == 2
    assert not any("tfrewprune" in str(layer.get_config()) for layer in loaded.layers)


def test_keeping_shapes_sets_dead_paths_to_zero():
    model = spoil(resnet_block(), np.random.default_rng(2))
    result = trp.shrink(model, keep_shapes=True)
    compare(model, result.model)
    assert [w.shape for w in result.model.weights[:1]] == [(3, 3, 3, 16)]
    before, after = (
        sum(np.count_nonzero(w) for w in m.get_weights() if w.ndim > 1)
        for m in (model, result.model)
    )
    assert after < before


def test_a_wrong_result_is_refused(monkeypatch):
    monkeypatch.setattr("tfrewprune.shrinking.selection._settle", lambda *a: None)
    with pytest.raises(RuntimeError, match="outputs differ by .* more than tolerance"):
        trp.shrink(padded(padding="valid"))


def test_inputs_for_the_check_must_fit():
    with pytest.raises(ValueError, match=r"arrays of shapes .*8, 8, 2.*Received: "):
        trp.shrink(padded(), inputs=np.zeros((2, 3)))


MODELS = Path(__file__).resolve().parents[3] / "shared" / "models" / "mlperf_tiny"


@pytest.mark.parametrize(
    ("name", "structure", "least"),
    [
        ("pretrainedResnet.h5", trp.Filter(), 2.0),
        ("kws_ref_model.keras", trp.Channel(), 2.0),
    ],
)
def test_a_published_model_shrinks_and_runs_in_stock_litert(name, structure, least):
    """Residual blocks, depthwise convolutions, and biases as trained."""
    if not (MODELS / name).exists():
        pytest.skip(f"there is no {MODELS / name}")
    model = keras.models.load_model(MODELS / name, compile=False)
    rule = trp.Rule("*", structure=structure, rate=2)
    trp.hard_prune(model, trp.Recipe(rule, method="Magnitude"))
    result = trp.shrink(model)
    compare(model, result.model)
    assert result.weights > least * result.weights_left
    if keras.backend.backend() == "tensorflow":
        runs_in_stock_litert(result.model)


def runs_in_stock_litert(model):
    from ai_edge_litert.interpreter import Interpreter

    from tfrewprune.converter.export import to_tflite

    interpreter = Interpreter(model_content=to_tflite(model, 1))  # no delegate of ours
    interpreter.allocate_tensors()
    (given,), (output,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    fed = np.random.default_rng(0).normal(size=given["shape"]).astype("float32")
    interpreter.set_tensor(given["index"], fed)
    interpreter.invoke()
    np.testing.assert_allclose(
        interpreter.get_tensor(output["index"]), np.asarray(model(fed)), atol=1e-4
    )
