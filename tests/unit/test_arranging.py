# SPDX-License-Identifier: Apache-2.0
"""Filters move so that bands are neighbours, and the model computes the same."""

import keras
import numpy as np
import pytest

import tfrewprune as trp
from tfrewprune.payload.grouping import scattered_bands
from tfrewprune.payload.packer import smallest_packing
from tfrewprune.shrinking.arranging import arranged

layers = keras.layers


def branched():
    """Residual sum, concatenation, depthwise with a multiplier, Flatten, Dense."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 8))
    x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    y = layers.Conv2D(48, 1, name="b")(x)
    z = layers.Conv2D(48, 3, padding="same", name="c")(x)
    added = layers.Add()([y, z])
    x = layers.Conv2D(32, 1, activation="relu", name="d")(added)
    # Here the channels of `d`, which come later, stand first.
    x = layers.MaxPooling2D()(layers.Concatenate()([x, added]))
    x = layers.Flatten()(layers.Conv2D(32, 1, name="e")(x))
    x = layers.Dense(64, activation="relu", name="f")(x)
    return keras.Model(inputs, layers.Dense(32, name="g")(x))


def pruned(model, structure, names):
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            random = np.random.default_rng(1)
            layer.set_weights([random.uniform(0.5, 1.5, shape) for shape in shapes])
    rule = trp.Rule(list(names), structure=structure, rate=4)
    trp.hard_prune(model, trp.Recipe(rule, method="magnitude"))
    return model


def scattered(model, name):
    kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
    matrix = np.ascontiguousarray(kernel.reshape(-1, kernel.shape[-1]).T)
    return scattered_bands(smallest_packing(matrix).grouping, len(matrix))


def same_outputs(model, other):
    x = np.random.default_rng(2).random((3, *model.input_shape[1:]), np.float32)
    expected = keras.ops.convert_to_numpy(model(x))
    found = keras.ops.convert_to_numpy(other(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_bands_are_neighbours_wherever_the_order_of_channels_is_free():
    structure = trp.Block(16, 1, cluster=True)
    model = pruned(branched(), structure, "abcdefg")
    assert all(scattered(model, name) for name in "abcdefg")
    weights = model.get_weights()
    moved = arranged(model)
    same_outputs(model, moved)
    free = {name: scattered(moved, name) == 0 for name in "abcdefg"}
    # A sum has one order for both of its layers; the model's outputs have theirs.
    assert [name for name in free if not free[name]] in (["b", "g"], ["c", "g"])
    names = [layer.name for layer in model.layers[1:]]
    assert [layer.name for layer in moved.layers[1:]] == names
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)  # the model given is as it was


def test_what_has_no_scattered_bands_is_left_alone():
    model = branched()
    assert arranged(model) is model
    assert arranged(pruned(model, trp.Block(16, 1), "abcdefg")) is model
    sequential = keras.Sequential([layers.Dense(4)])
    assert arranged(sequential) is sequential  # not built


@pytest.mark.parametrize("reader", ["lstm", "twice", "reshape"])
def test_channels_that_something_else_reads_in_order_stay_in_order(reader):
    inputs = keras.Input((6, 8))
    x = layers.Conv1D(32, 1, name="a")(inputs)
    if reader == "lstm":
        outputs = layers.LSTM(4)(x)
    elif reader == "twice":
        shared = layers.Dense(32, name="shared")
        outputs = shared(shared(x))
    else:
        outputs = layers.Dense(3, name="last")(layers.Reshape((12, 16))(x))
    model = keras.Model(inputs, outputs)
    pruned(model, trp.Block(16, 1, cluster=True), ["a"])
    assert scattered(model, "a")
    same_outputs(model, arranged(model))
    assert scattered(arranged(model), "a")


def test_a_model_that_cannot_be_copied_is_converted_as_it_is():
    class Own(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    inputs = keras.Input((6, 6, 16), batch_size=1)
    x = layers.Conv2D(64, 3, padding="same", name="a")(inputs)
    outputs = layers.Conv2D(4, 1, name="last")(Own(lambda x: 2 * x)(x))
    model = keras.Model(inputs, outputs)
    pruned(model, trp.Block(16, 1, cluster=True), ["a"])
    assert arranged(model) is model
    if keras.backend.backend() == "tensorflow":  # others must save it, to export it
        assert len(trp.convert(model).report.packed) == 1


def test_a_model_that_refuses_random_inputs_is_converted_as_it_is():
    class Own(layers.Layer):
        def call(self, x):
            if x.shape[1] == 32:  # what an open axis is tried with
                raise ValueError("not with 32 pixels")
            return x

    inputs = keras.Input((None, 6, 16))
    x = layers.Conv2D(64, 3, padding="same", name="a")(Own()(inputs))
    model = keras.Model(inputs, layers.Conv2D(4, 1, name="last")(x))
    pruned(model, trp.Block(16, 1, cluster=True), ["a"])
    assert arranged(model) is model


def test_a_defect_of_the_arrangement_is_not_taken_for_one_of_the_model(monkeypatch):
    def defective(*arguments):
        raise KeyError("defect")

    monkeypatch.setattr("tfrewprune.shrinking.arranging.find_arrangement", defective)
    model = pruned(branched(), trp.Block(16, 1, cluster=True), "abcdefg")
    with pytest.raises(KeyError, match="defect"):
        arranged(model)


def test_a_converted_model_has_its_bands_side_by_side(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((14, 14, 32), batch_size=1),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="a"),
            layers.Conv2D(64, 1, name="b"),
        ]
    )
    pruned(model, trp.Block(16, 1, cluster=True), "ab")
    result = trp.convert(model, output=tmp_path / "packed.tflite")
    assert len(result.report.packed) == 2
    interpreter = trp.Interpreter(model_path=str(tmp_path / "packed.tflite"))
    interpreter.allocate_tensors()
    x = np.random.default_rng(3).random((1, 14, 14, 32), np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    expected = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # In the dense file, too, the first layer's bands are 16 neighbours each; the order
    # of the second layer's filters is that of the model's outputs.
    found = trp.inspect_model(trp.unpack(tmp_path / "packed.tflite"))
    assert [layer.structure for layer in found] == ["Block(16, 1)", "Unstructured"]
