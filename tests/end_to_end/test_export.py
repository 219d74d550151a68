# SPDX-License-Identifier: Apache-2.0
"""What convert() makes of Keras models: inference, in float32, and nothing changed."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter as LiteRt

import tfrewprune as trp
from tfrewprune.benchmark.compare import run_once
from tfrewprune.converter.export import to_tflite

REPOSITORY = Path(__file__).parents[2]
pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("needs Keras' TensorFlow backend", allow_module_level=True)
layers = keras.layers
GENERATOR = np.random.default_rng(3)


def run(content, *feed):
    """Feeds the inputs in the order of the file, returns the first output."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model has no packed layer")
        interpreter = trp.Interpreter(content)
    return run_once(interpreter, feed)[0]


def same(model, content, *feed, tolerance=1e-5):
    inputs = feed[0] if len(feed) == 1 else list(feed)
    expected = np.asarray(model(inputs, training=False), np.float32)
    np.testing.assert_allclose(run(content, *feed), expected, atol=tolerance)


@pytest.fixture(autouse=True)
def start_anew(rng, monkeypatch):
    """What a test draws does not depend on those before it."""
    monkeypatch.setitem(globals(), "GENERATOR", rng)


def floats(*shape):
    return GENERATOR.standard_normal(shape).astype(np.float32)


AUGMENTATION = {
    "flip": lambda: layers.RandomFlip(),
    "rotation": lambda: layers.RandomRotation(0.2),
    "zoom": lambda: layers.RandomZoom(0.2),
    "contrast": lambda: layers.RandomContrast(0.2),
    "brightness": lambda: layers.RandomBrightness(0.2),
    "translation": lambda: layers.RandomTranslation(0.2, 0.2),
    "noise": lambda: layers.GaussianNoise(0.5),
}


def augmented(layer):
    """A model that computes something else in training than in inference."""
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(8, 3)(layer(x))
    y = layers.BatchNormalization(momentum=0.5)(y)
    y = layers.Dropout(0.5)(layers.Flatten()(y))
    model = keras.Model(x, layers.Dense(4)(y))
    statistics = [floats(8), np.abs(floats(8)) + 0.1]
    for variable, value in zip(model.layers[3].variables[2:], statistics, strict=True):
        variable.assign(value)
    return model


@pytest.mark.parametrize("name", AUGMENTATION)
def test_augmentation_inside_is_exported_as_in_inference(name, tmp_path):
    model = augmented(AUGMENTATION[name]())
    same(model, trp.convert(model, minimum_gain=0), floats(2, 8, 8, 3))
    model.save(tmp_path / "model.keras")
    same(model, trp.convert(tmp_path / "model.keras"), floats(2, 8, 8, 3))


RECURRENT = {
    "lstm": (lambda: layers.LSTM(5), (1, 6, 4)),
    "gru": (lambda: layers.GRU(5, return_sequences=True), (1, 6, 4)),
    "bidirectional": (lambda: layers.Bidirectional(layers.LSTM(5)), (1, 6, 4)),
    "conv_lstm": (lambda: layers.ConvLSTM2D(3, 3), (1, 4, 6, 6, 2)),
    "stateful_gru": (lambda: layers.GRU(5, stateful=True), (1, 6, 4)),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_with_a_batch_of_one(name, tmp_path):
    make, shape = RECURRENT[name]
    x = keras.Input(shape[1:], batch_size=1)
    model = keras.Model(x, make()(x))
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        content = to_tflite(source)
        if name == "stateful_gru":
            model.layers[1].reset_states()
        same(model, content, floats(*shape))


def test_batch_size_fixes_an_open_batch():
    x = keras.Input((4, 6, 6, 2))
    model = keras.Model(x, layers.ConvLSTM2D(3, 3)(x))
    with pytest.raises(trp.ConversionError, match=r"fix the batch \(batch_size=1"):
        trp.convert(model)
    content = to_tflite(model, batch_size=1)
    same(model, content, floats(1, 4, 6, 6, 2))
    for wrong in (0, -1, 1.5, "1"):
        with pytest.raises(trp.ConversionError, match="batch_size must be an integer"):
            trp.convert(model, batch_size=wrong)


def test_batch_size_of_a_ready_file_is_refused(tmp_path):
    dense = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    dense.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    for source in (to_tflite(dense), tmp_path / "saved"):
        with pytest.raises(trp.ConversionError, match="applies to Keras models"):
            trp.convert(source, batch_size=2)


def test_an_input_without_dimensions_keeps_none():
    x, scale = keras.Input((8,)), keras.Input(batch_shape=())
    model = keras.Model([x, scale], layers.Dense(4)(x) * scale)
    same(model, to_tflite(model), floats(3, 8), np.float32(2))


def test_the_batch_of_training_data_is_not_the_batch_of_the_file():
    model = keras.Sequential([layers.Dense(8), layers.Dense(4)])
    model.compile("sgd", "mse")
    model.fit(floats(32, 6), floats(32, 4), batch_size=16, verbose=0)
    same(model, to_tflite(model), floats(3, 6))


def input_shape(content):
    (details,) = LiteRt(model_content=bytes(content)).get_input_details()
    return details["shape_signature"].tolist()


def test_a_sequential_model_keeps_the_batch_of_its_input():
    model = keras.Sequential([keras.Input((6,), batch_size=3), layers.Dense(4)])
    content = to_tflite(model)
    assert input_shape(content) == [3, 6]
    same(model, content, floats(3, 6))


def stateful(kind):
    made = [layers.GRU(5, stateful=True, return_sequences=True), layers.Dense(2)]
    if kind == "with input":
        return keras.Sequential([keras.Input((None, 4), batch_size=3), *made])
    model = keras.Sequential(made)
    model.build((3, 6, 4))
    return model


@pytest.mark.parametrize("kind", ["with input", "without", "loaded"])
def test_a_stateful_layer_keeps_its_batch(kind, tmp_path):
    model = stateful(kind)
    if kind == "loaded":
        model.save(tmp_path / "model.keras")
        content = to_tflite(tmp_path / "model.keras")
    else:
        content = to_tflite(model)
    assert input_shape(content)[0] == 3
    same(model, content, floats(3, 6, 4))


def test_time_distributed_layers_take_any_length_and_are_packed_once():
    x = keras.Input((None, 6, 6, 2))
    y = layers.TimeDistributed(layers.Conv2D(8, 3))(x)
    y = layers.TimeDistributed(layers.BatchNormalization())(y)
    y = layers.TimeDistributed(layers.Flatten())(y)
    y = layers.TimeDistributed(layers.Dense(16, activation="relu"))(y)
    y = layers.GRU(16, return_sequences=True)(y)
    model = keras.Model(x, layers.TimeDistributed(layers.Dense(5))(y))
    content = trp.convert(model, minimum_gain=0)
    # The GRU has two: one for its inputs, one for its state.
    assert len(content.report.layers) == len(content.report.packed) == 5
    same(model, content, floats(2, 7, 6, 6, 2))
    assert "call" not in vars(model.layers[1])


def test_masks_reach_the_layer_inside_time_distributed():
    x = keras.Input((None, 4, 3))
    y = layers.TimeDistributed(layers.GRU(5))(layers.Masking()(x))
    feed = floats(2, 3, 4, 3)
    feed[0, 1, 2:] = feed[1, 2] = 0
    model = keras.Model(x, y)
    same(model, to_tflite(model), feed)


class MixesSamples(layers.Layer):
    def call(self, x):
        return 2 * x - keras.ops.mean(x, 0)

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize("last", [False, True])
def test_a_file_that_is_right_at_one_length_only_is_refused(last):
    def made(length):
        x = keras.Input((length, 4))
        y = layers.TimeDistributed(MixesSamples())(x)
        return keras.Model(x, layers.GRU(3)(y) if last else y)

    why = "differ by" if last else r"makes \[\[1, 1, 4\]\], expected \[1, 3, 4\]"
    with pytest.raises(trp.ConversionError, match=f"cannot stay open: .*{why}"):
        trp.convert(made(None), batch_size=1)
    model = made(3)
    same(model, to_tflite(model, batch_size=1), floats(1, 3, 4))


def test_image_sizes_stay_open_where_small_ones_do_not_fit():
    x = keras.Input((None, None, 2))
    y = layers.Conv2D(4, 3, padding="same")(x)
    z = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(layers.MaxPool2D()(y))
    model = keras.Model(x, layers.Conv2D(16, 5)(layers.Concatenate()([y, z])))
    content = trp.convert(model, minimum_gain=0)
    assert content.report.packed and content.report.difference < 1e-5
    same(model, content, floats(1, 10, 8, 2))


def test_a_length_of_which_none_fits_is_asked_for():
    model = keras.Sequential([keras.Input((None, 2)), layers.Conv1D(4, 1500)])
    long = floats(1, 1500, 2)
    assert trp.convert(model, minimum_gain=0, inputs=[long]).report.difference < 1e-5


def test_advice_on_what_is_open():
    x = keras.Input((None, None, 4))
    model = keras.Model(x, layers.UpSampling2D(interpolation="bilinear")(x))
    with pytest.raises(trp.ConversionError, match="fix the sizes in the Input") as e:
        trp.convert(model)
    assert "batch" not in str(e.value)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"]
)
@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed"])
def test_every_dtype_is_exported_in_float32(policy, kind, tmp_path):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(16, activation="gelu")
            self.outer = layers.Dense(4)

        def call(self, x):
            return self.outer(self.inner(x) * 2.0)

    keras.config.set_dtype_policy(policy)
    try:
        if kind == "functional":
            x = keras.Input((8,))
            y = layers.Dense(16, activation="relu")(x)
            model = keras.Model(x, layers.Dense(4, dtype="float32")(y))
        elif kind == "sequential":  # its inputs get the dtype of its first layer
            model = keras.Sequential([layers.Dense(16), layers.Dense(4)])
        else:
            model = Subclassed()
        model(floats(2, 8))
    finally:
        keras.config.set_dtype_policy("float32")
    policies = [layer.dtype_policy for layer in model._flatten_layers()]
    content = to_tflite(model)
    after = [layer.dtype_policy for layer in model._flatten_layers()]
    assert all(one is other for one, other in zip(policies, after, strict=True))
    assert model.compute_dtype == policy.removeprefix("mixed_")
    assert model(floats(2, 8)).dtype == (
        "float32" if kind == "functional" else model.compute_dtype
    )
    same(model, content, floats(3, 8), tolerance=3e-2)
    if kind != "subclassed":
        model.save(tmp_path / "model.keras")
        same(model, to_tflite(tmp_path / "model.keras"), floats(3, 8), tolerance=3e-2)


def test_dtypes_come_back_when_the_export_fails():
    class Broken(layers.Layer):
        def call(self, x):
            return x.numpy()

        def compute_output_shape(self, shape):
            return shape

    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([layers.Dense(8), Broken()])
        model(floats(2, 8))
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(trp.ConversionError, match="give the .tflite file"):
        trp.convert(model)
    assert model.layers[0].compute_dtype == model.inputs[0].dtype == "float16"


def masked_model():
    x = keras.Input((32,))
    y = layers.Dense(64, activation="relu", name="hidden")(x)
    model = keras.Model(x, layers.Dense(4, name="logits")(y))
    model.compile("adam", "mse")
    recipe = trp.Recipe(trp.Rule("hidden", rate=8), method="Magnitude")
    trp.hard_prune(model, recipe)
    return model


def sparsity(layer):
    return float(np.mean(np.asarray(layer.kernel) == 0))


def test_masked_training_goes_on_after_convert():
    model = masked_model()
    x, y = floats(64, 32), floats(64, 4)
    model.fit(x, y, verbose=0)
    hidden = model.get_layer("hidden")
    before = vars(hidden.kernel).copy()
    compiled = [model.optimizer, model.train_function, model.loss]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trp.convert(model, minimum_gain=0)
    assert hidden.kernel.constraint is before["_constraint"] is not None
    assert vars(hidden.kernel).keys() == before.keys()
    now = [model.optimizer, model.train_function, model.loss]
    assert all(one is other for one, other in zip(compiled, now, strict=True))
    model.fit(x, y, epochs=2, verbose=0)
    assert sparsity(hidden) == pytest.approx(7 / 8)
    model.compile("sgd", "mse")
    model.fit(x, y, epochs=2, verbose=0)
    assert sparsity(hidden) == pytest.approx(7 / 8)


def test_penalties_stay():
    x = keras.Input((32,))
    model = keras.Model(x, layers.Dense(64, name="hidden")(x))
    trp.attach(model, trp.Recipe(trp.Rule("hidden"), strength=1e-3))
    penalty = model.get_layer("hidden").kernel.regularizer
    trp.convert(model, minimum_gain=0)
    assert model.get_layer("hidden").kernel.regularizer is penalty is not None
    assert float(sum(model.losses)) > 0


def test_wrapped_models_stay_wrapped_and_give_what_strip_gives():
    x = keras.Input((32,))
    model = keras.Model(x, layers.Dense(64, name="hidden")(x))
    wrapped = trp.wrap(model, trp.Recipe(trp.Rule("hidden", rate=8)))
    trp.hard_prune(wrapped, trp.Recipe(trp.Rule("hidden", rate=8)))
    packed = trp.convert(wrapped, minimum_gain=0)
    assert any(isinstance(layer, trp.Prunable) for layer in wrapped.layers)
    (record,) = trp.inspect_model(packed)
    (stripped,) = trp.inspect_model(trp.convert(trp.strip(wrapped), minimum_gain=0))
    assert (record.packed, record.kept) == (True, stripped.kept)


def test_weights_that_the_mask_removed_but_training_revived_are_told():
    model = masked_model()
    hidden = model.get_layer("hidden")
    mask = np.asarray(hidden.kernel) != 0
    hidden.kernel.assign(np.where(mask, hidden.kernel, 0.5))
    gone = int(np.sum(~mask))
    message = (
        f"{gone} weights that the mask removed are not zero: the step that trained "
        "them did not see the mask.*hard_prune"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        packed = trp.convert(model, minimum_gain=0)
    assert [w.filename for w in caught if w.category is UserWarning] == [__file__]
    assert trp.inspect_model(packed)[0].kept == 32 * 64
    assert sparsity(hidden) == 0


def of_inputs(inputs):
    """A model whose output tells all of its inputs apart."""
    return keras.Model(inputs, layers.Dense(4)(layers.Concatenate()(inputs)))


def test_inputs_are_taken_in_the_order_of_the_model():
    """Where all have one shape nothing fails in another order, it is only wrong."""
    names = ["b", "a image:1"]
    model = of_inputs([keras.Input((4,), name=name) for name in names])
    samples = [floats(1, 4), 100 * floats(1, 4)]
    packed = trp.convert(model, minimum_gain=0, inputs=[samples])
    same(model, packed, *samples, tolerance=1e-3)
    many = of_inputs([keras.Input((n + 1,)) for n in range(11)])  # keras_tensor_9, _10
    samples = [floats(1, n + 1) for n in range(11)]
    packed = trp.convert(many, minimum_gain=0, inputs=[samples])
    same(many, packed, *samples)


@pytest.mark.parametrize("kind", ["list", "dict", "SavedModel"])
def test_outputs_come_in_the_order_of_the_model(kind, tmp_path):
    """Three have one shape, there are more than ten, one is an input, one is twice."""
    x = keras.Input((4,))
    outputs = [layers.Dense(3, name=name)(x) for name in "zam"]
    outputs += [x, outputs[1], *(layers.Dense(n + 1)(x) for n in range(7))]
    if kind == "dict":
        outputs = dict(zip("lkjihgfedcba", outputs, strict=True))
    model = source = keras.Model(x, outputs)
    if kind == "SavedModel":
        source = tmp_path / "saved"
        model.export(source, verbose=False)
    samples = floats(2, 4)
    packed = trp.convert(source, minimum_gain=0)
    received = run_once(trp.Interpreter(packed), [samples])
    expected = keras.tree.flatten(model(samples))
    for a, b in zip(expected, received, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_inputs_of_a_ready_file_are_in_the_order_of_the_file():
    model = of_inputs([keras.Input((2 + n,), name=x) for n, x in enumerate("cab")])
    dense = to_tflite(model)
    samples = [floats(1, 2 + n) for n in range(3)]
    trp.convert(dense, minimum_gain=0, inputs=[samples])
    with pytest.raises(trp.ConversionError, match="input 'c' expects float32"):
        trp.convert(dense, minimum_gain=0, inputs=[samples[::-1]])


def test_the_result_of_compress_is_a_model():
    model = masked_model()
    result = trp.CompressResult(model, [], {}, {}, None, 0.0)
    same(model, trp.convert(result, minimum_gain=0), floats(2, 32), tolerance=1e-4)


class Decomposition(layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.linalg.svd(x)[0]


def test_what_tensorflow_cannot_convert_is_one_sentence(capfd):
    x = keras.Input((4, 4))
    model = keras.Model(x, Decomposition()(x))
    with pytest.raises(trp.ConversionError) as error:
        trp.convert(model)
    assert str(error.value) == (
        "TensorFlow cannot convert the model: TFLite has no operator for Svd; "
        "convert it to TFLite yourself and give the .tflite file"
    )
    assert "Svd" not in capfd.readouterr().err


def test_the_command_takes_a_batch_size_and_fails_in_one_line(tmp_path, capfd):
    from tfrewprune.cli import main

    x = keras.Input((4, 6, 6, 2))
    source, target = tmp_path / "model.keras", tmp_path / "model.tflite"
    keras.Model(x, layers.ConvLSTM2D(3, 3)(x)).save(source)
    assert main(["convert", str(source), str(target)]) == 1
    error = capfd.readouterr().err.strip()
    assert error.startswith("tfrewprune convert: error: TensorFlow cannot convert")
    assert "--batch-size 1" in error and "give the .tflite file" in error
    assert len(error.splitlines()) == 1 and not target.exists()
    assert main(["convert", str(source), str(target), "--batch-size", "1"]) == 0
    assert target.exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_export_the_same_way(backend, tmp_path):
    """Mixed precision, augmentation, a fixed batch and a mask, in a child process."""
    pytest.importorskip(backend)
    script = tmp_path / "script.py"
    script.write_text(
        "import warnings, keras, numpy as np, tfrewprune as trp\n"
        "from keras import layers\n"
        f"assert keras.backend.backend() == {backend!r}\n"
        "keras.config.set_dtype_policy('mixed_bfloat16')\n"
        "x = keras.Input((8, 8, 4), batch_size=1)\n"
        "y = layers.Conv2D(32, 3, name='c')(layers.RandomFlip()(x))\n"
        "y = layers.GRU(4)(layers.Reshape((36, 32))(y))\n"
        "model = keras.Model(x, y)\n"
        "recipe = trp.Recipe(trp.Rule('c', rate=4), method='Magnitude')\n"
        "trp.hard_prune(model, recipe)\n"
        "constraint = model.get_layer('c').kernel.constraint\n"
        "packed = trp.convert(model, minimum_gain=0)\n"
        "assert trp.inspect_model(packed)[0].packed\n"
        "assert model.get_layer('c').kernel.constraint is constraint is not None\n"
        "assert model.compute_dtype == 'bfloat16'\n"
        "images = np.ones((1, 8, 8, 4), np.float32)\n"
        "expected = keras.ops.convert_to_numpy(\n"
        "    keras.ops.cast(model(images, training=False), 'float32'))\n"
        "interpreter = trp.Interpreter(packed)\n"
        "interpreter.allocate_tensors()\n"
        "interpreter.set_tensor(interpreter.get_input_details()[0]['index'], images)\n"
        "interpreter.invoke()\n"
        "index = interpreter.get_output_details()[0]['index']\n"
        "received = interpreter.get_tensor(index)\n"
        "np.testing.assert_allclose(received, expected, atol=3e-2)\n"
        "z = keras.Input((5, 4, 4, 3))\n"
        "open_batch = keras.Model(z, layers.ConvLSTM2D(4, 3)(z))\n"
        "trp.convert(open_batch, batch_size=1)\n"
        "try:\n"
        "    trp.convert(open_batch)\n"
        "except trp.ConversionError as error:\n"
        "    assert 'batch_size=1' in str(error) and len(str(error)) < 500, error\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])
    child = subprocess.run(
        [sys.executable, str(script)],
        env=dict(os.environ, KERAS_BACKEND=backend, PYTHONPATH=paths),
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr[-3000:]
