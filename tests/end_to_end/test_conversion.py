# SPDX-License-Identifier: Apache-2.0
"""Models as users have them: Keras models and files, SavedModels, foreign models."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import tfrewprune as trp

REPOSITORY = Path(__file__).parents[2]
MODELS = REPOSITORY.parent / "shared" / "models"

# Models of other sources, with the least number of layers that must be packed.
FOREIGN = {
    "mediapipe/face_detection_full_range_sparse.tflite": 49,
    "mediapipe/face_detection_short_range.tflite": 21,
    "mediapipe/hand_landmark_lite.tflite": 35,
    "mlperf_tiny/pretrainedResnet_large_float.tflite": 10,
    "mlperf_tiny/ad01_fp32.tflite": 10,
    "mlperf_tiny/vww_96_float.tflite": 15,
    "mlperf_tiny/kws_ref_model_float32.tflite": 6,  # int8 behind DEQUANTIZE
    "dtln/model_1.tflite": 5,
    "mlperf_tiny/pretrainedResnet_quant.tflite": 0,
    "mlperf_tiny/ad01_int8.tflite": 0,
    "mobilenet/mobilenet_v2_1.0_224_quant.tflite": 0,
    "tflite_micro/trained_lstm.tflite": 3,
}
# Their LSTMs come back with constants of their own, and of these as loops.
RECURRENT = ("dtln/model_1.tflite", "tflite_micro/trained_lstm.tflite")
AS_LOOPS = RECURRENT[:1]


def run(interpreter, seed=0):
    interpreter.allocate_tensors()
    generator = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        values = generator.standard_normal(detail["shape"]).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [
        interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()
    ]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_model_is_converted_and_unpacked(name):
    if not (MODELS / name).is_file():
        pytest.skip(f"{MODELS / name} is not there")
    from ai_edge_litert.interpreter import Interpreter

    dense = (MODELS / name).read_bytes()
    packed = trp.convert(MODELS / name, minimum_gain=0)  # runs and compares both
    records = trp.inspect_model(packed)
    assert sum(record.packed for record in records) == FOREIGN[name]
    assert all(record.packed or record.reason for record in records)
    unpacked = trp.unpack(packed)
    for before, after in zip(
        run(Interpreter(model_content=dense)),
        run(Interpreter(model_content=unpacked)),
        strict=True,
    ):
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)
    again = trp.convert(unpacked, minimum_gain=0, verify=False)
    if name not in RECURRENT:
        assert again == packed
    assert len(again.report.packed) == FOREIGN[name]
    # The way back is the file as the user had it: LiteRT runs it in as few pieces.
    assert len(unpacked) < 1.01 * len(dense) + 2000
    if name in AS_LOOPS:
        return
    assert count_of_operators(unpacked) == count_of_operators(dense)
    assert delegates(unpacked) == delegates(dense)


def count_of_operators(content):
    from tfrewprune.converter.detect import operator_name
    from tfrewprune.converter.flatbuffer import read_model

    model = read_model(content)
    return Counter(
        operator_name(model, operator)
        for subgraph in model.subgraphs
        for operator in subgraph.operators
    )


def delegates(content):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    names = [operator["op_name"] for operator in interpreter._get_ops_details()]
    return names.count("DELEGATE")


def test_the_sparse_model_of_mediapipe_loses_its_decoders():
    path = MODELS / "mediapipe/face_detection_full_range_sparse.tflite"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    from ai_edge_litert.interpreter import Interpreter

    from tfrewprune.converter.detect import operator_name
    from tfrewprune.converter.flatbuffer import read_model

    packed = trp.convert(path, minimum_gain=0)
    model = read_model(packed)
    names = [operator_name(model, op) for op in model.subgraphs[0].operators]
    assert "CONV_2D" not in names and "DENSIFY" not in names
    sparse = [record for record in trp.inspect_model(packed) if record.packed]
    assert sum(record.sparsity > 0.65 for record in sparse) >= 40
    for before, after in zip(
        run(Interpreter(model_path=str(path))),
        run(trp.Interpreter(model_content=packed)),
        strict=True,
    ):
        np.testing.assert_allclose(after, before, atol=1e-3 * np.abs(before).max())


@pytest.mark.parametrize(
    ("name", "layers"),
    {
        "mediapipe/hand_landmark_lite.tflite": 21,
        "mediapipe/selfie_segmentation.tflite": 24,
        "mlperf_tiny/ad01_fp32.tflite": 9,
        "mlperf_tiny/pretrainedResnet_large_float.tflite": 6,
        "mlperf_tiny/vww_96_float.tflite": 14,
    }.items(),
)
def test_filters_of_foreign_models_may_come_in_any_order(name, layers):
    if not (MODELS / name).is_file():
        pytest.skip(f"{MODELS / name} is not there")
    from ai_edge_litert.interpreter import Interpreter

    from tfrewprune.converter.channels import with_filters_moved

    random, moved = np.random.default_rng(1), []

    def choose(operators, count):
        moved.append(count)
        return random.permutation(count)

    dense = (MODELS / name).read_bytes()
    other = with_filters_moved(dense, choose)
    assert len(moved) == layers
    for before, after in zip(
        run(Interpreter(model_content=dense)),
        run(Interpreter(model_content=other)),
        strict=True,
    ):
        np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())


def test_one_shot_pruning_of_a_foreign_file_arranges_its_filters():
    path = MODELS / "mlperf_tiny/vww_96_float.tflite"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    random = np.random.default_rng(0)
    coarse = random.random((48, 12, 12, 3), np.float32)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    error = {}
    for arrange in (True, False):
        recipe = trp.Recipe(rate=6, arrange=arrange)  # Block(16, 1)
        result = trp.prune_one_shot(path, images, recipe=recipe)
        error[arrange] = result.output_error
    assert error[True] < error[False] / 2


def pruned_keras_model():
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 8)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(64, 3, strides=2, padding="same", use_bias=False),
            layers.ReLU(6),
            layers.Conv2D(32, 3, dilation_rate=2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = np.array(keras.ops.convert_to_numpy(layer.kernel))
            matrix = kernel.reshape(-1, kernel.shape[-1])
            for start in range(0, matrix.shape[1], 16):
                gone = generator.random(len(matrix)) < 0.9
                matrix[gone, start : start + 16] = 0
            layer.kernel.assign(matrix.reshape(kernel.shape))
    return model


@pytest.fixture(scope="module")
def keras_model():
    pytest.importorskip("tensorflow")
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("the in-process export needs Keras' TensorFlow backend")
    return pruned_keras_model()


def check_against_keras(packed, model, x):
    interpreter = trp.Interpreter(model_content=packed)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    output = interpreter.get_output_details()[0]["index"]
    expected = np.asarray(model(x))
    np.testing.assert_allclose(interpreter.get_tensor(output), expected, atol=1e-5)


def test_a_keras_model_is_exported_and_packed(keras_model):
    x = np.random.default_rng(1).standard_normal((5, 16, 16, 8)).astype(np.float32)
    packed = trp.convert(keras_model, minimum_gain=0, inputs=[x])
    assert [r.packed for r in trp.inspect_model(packed)] == [True] * 4
    check_against_keras(packed, keras_model, x)


def test_keras_files_and_saved_models_give_the_same(keras_model, tmp_path):
    keras_model.save(tmp_path / "model.keras")
    keras_model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    x = np.random.default_rng(1).standard_normal((2, 16, 16, 8)).astype(np.float32)
    for path in ("model.keras", "saved"):
        target = tmp_path / f"{path}.tflite"
        packed = trp.convert(tmp_path / path, target, minimum_gain=0)
        assert target.read_bytes() == packed
        assert sum(r.packed for r in trp.inspect_model(packed)) == 4
        check_against_keras(packed, keras_model, x)


def test_wrapped_layers_are_stripped(keras_model):
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((32,)),
            trp.Prunable(layers.Dense(64), structure=trp.Block(16, 1)),
            layers.Dense(4),
        ]
    )
    packed = trp.convert(model, minimum_gain=0)
    assert [r.packed for r in trp.inspect_model(packed)] == [True, True]
    x = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
    check_against_keras(packed, model, x)


def test_what_keras_cannot_do_is_a_conversion_error(keras_model, tmp_path):
    import keras

    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no archive")
    with pytest.raises(trp.ConversionError, match="Keras cannot load"):
        trp.convert(broken)
    with pytest.raises(trp.ConversionError, match="has no weights yet"):
        trp.convert(keras.Sequential([keras.layers.Dense(3)]))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_models_of_other_backends_are_exported(backend, tmp_path):
    """In a process of its own: Keras takes one backend a process."""
    pytest.importorskip(backend)
    pytest.importorskip("tensorflow")
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import numpy as np, keras\n"
        "import tfrewprune as trp\n"
        "from test_conversion import pruned_keras_model\n"
        "model = pruned_keras_model()\n"
        f"assert keras.backend.backend() == {backend!r}\n"
        "packed = trp.convert(model, minimum_gain=0)\n"
        "x = np.ones((1, 16, 16, 8), np.float32)\n"
        "expected = keras.ops.convert_to_numpy(model(x))\n"
        "interpreter = trp.Interpreter(model_content=packed)\n"
        "interpreter.allocate_tensors()\n"
        "interpreter.set_tensor(interpreter.get_input_details()[0]['index'], x)\n"
        "interpreter.invoke()\n"
        "index = interpreter.get_output_details()[0]['index']\n"
        "received = interpreter.get_tensor(index)\n"
        "np.testing.assert_allclose(received, expected, atol=1e-5)\n"
    )
    environment = dict(
        os.environ,
        KERAS_BACKEND=backend,
        PYTHONPATH=os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]),
    )
    child = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr[-3000:]
