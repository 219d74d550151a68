# SPDX-License-Identifier: Apache-2.0
"""The interpreter with the delegate in place, and finding the library."""

import gc
import re
import shutil
import threading
import warnings

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter
from ai_edge_litert.interpreter import load_delegate

import tfrewprune as trp
from tfrewprune.benchmark.layers import Layer, build_model
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.runtime.library import LIBRARY_VARIABLE, LibraryNotFoundError

LAYER = Layer("layer", 9, 7, 12, 40, kernel=(3, 3))


@pytest.fixture(scope="module")
def models() -> tuple[bytes, bytes]:
    """The same pruned convolution, dense and packed."""
    weights = pruned_weights(LAYER, "block16x1", 4)
    bias = np.linspace(-1, 1, LAYER.outputs, dtype=np.float32)
    dense = build_model(LAYER, weights, bias)
    return dense, pack_every_layer(dense)[0]


def run(interpreter, images: np.ndarray) -> np.ndarray:
    detail = interpreter.get_input_details()[0]
    if tuple(detail["shape"]) != images.shape:
        interpreter.resize_tensor_input(detail["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(detail["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def images(batch: int = 1) -> np.ndarray:
    shape = (batch, *LAYER.input_shape[1:])
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def same(models, interpreter, batch: int = 1) -> bool:
    expected = run(LiteRtInterpreter(model_content=models[0]), images(batch))
    return np.allclose(run(interpreter, images(batch)), expected, atol=1e-5)


def test_runs_from_content_and_from_a_path(models, tmp_path):
    path = tmp_path / "packed.tflite"
    path.write_bytes(models[1])
    for interpreter in (
        trp.Interpreter(model_content=models[1]),
        trp.Interpreter(model_content=bytearray(models[1])),
        trp.Interpreter(models[1]),
        trp.Interpreter(bytearray(models[1])),
        trp.Interpreter(path),
        trp.Interpreter(str(path)),
    ):
        assert interpreter.claimed_nodes == 1
        assert same(models, interpreter)


def test_is_a_litert_interpreter(models):
    interpreter = trp.Interpreter(model_content=models[1])
    assert isinstance(interpreter, LiteRtInterpreter)
    assert interpreter.get_output_details()[0]["dtype"] == np.float32


@pytest.mark.parametrize("isa", ["reference", "portable"])
def test_isa_is_obeyed_and_told(models, isa):
    interpreter = trp.Interpreter(model_content=models[1], isa=isa)
    assert interpreter.isa == isa
    assert same(models, interpreter)


def test_isa_from_the_environment_yields_to_the_argument(models, monkeypatch):
    monkeypatch.setenv("TFREWPRUNE_ISA", "portable")
    assert trp.Interpreter(model_content=models[1]).isa == "portable"
    assert trp.Interpreter(model_content=models[1], isa="reference").isa == "reference"


def test_unknown_isa_is_refused_by_name(models):
    with pytest.raises(ValueError, match=r"isa.*'sse9'"):
        trp.Interpreter(model_content=models[1], isa="sse9")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_num_threads_is_obeyed(models, threads):
    interpreter = trp.Interpreter(model_content=models[1], num_threads=threads)
    assert same(models, interpreter)
    assert interpreter.threads == threads


def test_resize_to_another_batch(models):
    interpreter = trp.Interpreter(model_content=models[1])
    assert same(models, interpreter, batch=3)
    assert same(models, interpreter, batch=1)


def test_other_delegates_are_kept(models):
    other = load_delegate(trp.delegate_path(), {"isa": "reference"})
    interpreter = trp.Interpreter(
        model_content=models[1], experimental_delegates=[other], isa="portable"
    )
    # Ours came first and left nothing for the other one, which stays alive beside it.
    assert interpreter.claimed_nodes == 1
    assert other in interpreter._delegates
    assert same(models, interpreter)


def test_delegate_lives_as_long_as_the_interpreter(models):
    interpreter = trp.Interpreter(model_content=models[1])
    gc.collect()
    for _ in range(3):
        assert same(models, interpreter)
    del interpreter
    gc.collect()


def test_model_without_packed_layers_warns_and_runs(models):
    with pytest.warns(UserWarning, match="no packed layer"):
        interpreter = trp.Interpreter(model_content=models[0])
    assert interpreter.claimed_nodes == 0
    assert same(models, interpreter)


def test_packed_model_warns_of_nothing(models):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trp.Interpreter(model_content=models[1])


def test_damaged_payload_is_refused(models):
    damaged = bytearray(models[1])
    damaged[damaged.index(b"TFRP") + 4] = 99  # a version nobody knows
    with pytest.raises((RuntimeError, ValueError)):
        trp.Interpreter(model_content=bytes(damaged)).allocate_tensors()


def test_without_the_delegate_litert_says_what_runs_the_model(models):
    interpreter = LiteRtInterpreter(model_content=models[1])
    message = r"TfrewpruneConv2D \(run it in tfrewprune.Interpreter\)"
    with pytest.raises(RuntimeError, match=message):
        interpreter.allocate_tensors()


def test_missing_model_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.tflite"):
        trp.Interpreter(tmp_path / "nowhere.tflite")


def test_two_models_are_refused(models):
    with pytest.raises(ValueError, match="Received: bytes in both"):
        trp.Interpreter(models[1], model_content=models[1])


def test_no_model_is_litert_s_own_error():
    with pytest.raises(ValueError, match="model_path"):
        trp.Interpreter()


def test_garbage_is_refused():
    with pytest.raises(ValueError):
        trp.Interpreter(model_content=b"certainly no model" * 10)


def test_several_interpreters_in_several_threads(models):
    expected = run(LiteRtInterpreter(model_content=models[0]), images())
    wrong = []

    def work():
        interpreter = trp.Interpreter(model_content=models[1], num_threads=2)
        for _ in range(20):
            if not np.allclose(run(interpreter, images()), expected, atol=1e-5):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_delegate_path_is_loadable_and_absolute():
    path = trp.delegate_path()
    assert path.startswith("/") and path.endswith(".so")
    load_delegate(path)


def test_library_variable_names_another_build(monkeypatch, tmp_path):
    copy = tmp_path / "copy.so"
    shutil.copy(trp.delegate_path(), copy)
    monkeypatch.setenv(LIBRARY_VARIABLE, str(copy))
    assert trp.delegate_path() == str(copy)


def test_missing_library_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "gone.so"))
    with pytest.raises(LibraryNotFoundError, match=re.escape(LIBRARY_VARIABLE)):
        trp.delegate_path()
    monkeypatch.delenv(LIBRARY_VARIABLE)
    monkeypatch.setattr(
        "tfrewprune.runtime.library.LIBRARY_NAME", "libnot_built_yet.so"
    )
    with pytest.raises(LibraryNotFoundError, match=r"pip install -e"):
        trp.delegate_path()


def test_held_bytes_come_and_go_with_interpreters(models):
    first = trp.Interpreter(model_content=models[1])
    gc.collect()  # interpreters of other tests
    before = first.held_bytes
    second = trp.Interpreter(model_content=models[1])
    second.allocate_tensors()
    assert second.held_bytes > before
    del second
    gc.collect()
    assert first.held_bytes == before
