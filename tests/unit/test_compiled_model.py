# SPDX-License-Identifier: Apache-2.0
"""Packed models in LiteRT's CompiledModel, beside the interpreter."""

import gc
import platform

import dense_models as dense
import numpy as np
import pytest
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.benchmark.compare import run_once
from tfrewprune.runtime import litert_library
from tfrewprune.runtime.library import driver_names


@pytest.fixture(scope="module")
def packed() -> bytes:
    """Convolutions, one with a fused addition, and fully connected layers."""
    content = bytes(trp.convert(dense.half_model(), minimum_gain=0))
    assert sum(op.startswith("Tfrewprune") for op in dense.operators(content)) == 4
    return content


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((1, 6, 6, 4)).astype(np.float32)


def expected(packed: bytes, images: np.ndarray) -> np.ndarray:
    return dense.run(packed, images, packed=True)[0]


@pytest.mark.parametrize("source", ["bytes", "path"])
def test_equals_the_interpreter(packed, images, tmp_path, source):
    model = packed
    if source == "path":
        model = tmp_path / "packed.tflite"
        model.write_bytes(packed)
    with trp.CompiledModel(model) as compiled:
        for _ in range(2):
            (output,) = compiled.run({"x": images}).values()
            np.testing.assert_array_equal(output, expected(packed, images))


def test_threads_and_instruction_set_change_nothing_but_time(packed, images):
    with trp.CompiledModel(packed, num_threads=2, isa="portable") as compiled:
        (output,) = compiled.run([images]).values()
    np.testing.assert_allclose(output, expected(packed, images), rtol=1e-5, atol=1e-5)


def test_float16_arithmetic_is_close(packed, images):
    """And where the CPU has none, float32 it stays."""
    with trp.CompiledModel(packed, precision="float16") as compiled:
        (output,) = compiled.run([images]).values()
    interpreter = trp.Interpreter(packed, precision="float16")
    (same,) = run_once(interpreter, [images])
    np.testing.assert_allclose(output, same, rtol=1e-5, atol=1e-5)
    error = 1e-5 if platform.machine() == "x86_64" else 5e-3
    np.testing.assert_allclose(output, expected(packed, images), error, error)


def test_every_driver_can_be_asked_for(packed, images, capfd):
    for name in driver_names():
        with trp.CompiledModel(packed, driver=name) as compiled:
            (output,) = compiled.run(images).values()
        np.testing.assert_allclose(output, expected(packed, images), 1e-5, 1e-5)
    # The option arrived: the library says where it had to take another one.
    assert "driver dots cannot do this layer" in capfd.readouterr().err


def test_what_was_measured_is_kept_for_the_interpreter(
    packed, images, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    tuning = {"tune": "once", "cache_path": "tuned.txt"}
    with trp.CompiledModel(packed, **tuning, tune_ms=5) as compiled:
        monkeypatch.chdir("/")  # a path is that of the folder it was given in
        (output,) = compiled.run(images).values()
    np.testing.assert_allclose(output, expected(packed, images), 1e-5, 1e-5)
    tuning["cache_path"] = tmp_path / "tuned.txt"
    capfd.readouterr()
    trp.Interpreter(packed, log_level="debug", **tuning).allocate_tensors()
    log = capfd.readouterr().err
    assert " is remembered, " in log and " is measured, " not in log


def test_another_batch_resizes_the_model(packed, images):
    with trp.CompiledModel(packed) as compiled:
        for batch in (3, 1, 2):
            given = np.repeat(images, batch, axis=0)
            (output,) = compiled.run(given).values()
            np.testing.assert_array_equal(output, expected(packed, given))


def test_two_models_live_side_by_side_and_die_in_any_order(packed, images):
    first, second = trp.CompiledModel(packed), trp.CompiledModel(packed)
    del first
    gc.collect()
    (output,) = second.run(images).values()
    np.testing.assert_array_equal(output, expected(packed, images))


def test_a_model_without_packed_layers_runs_too(images):
    weights = dense.block_sparse((8, 3, 3, 4))
    model = dense.conv_model(weights, (1, 6, 6, 4), np.zeros(8, np.float32))
    with trp.CompiledModel(model) as compiled:
        (output,) = compiled.run(images).values()
    np.testing.assert_allclose(output, dense.run(model, images)[0], atol=1e-6)


def test_a_scalar_stays_one():
    graph = Graph()
    x, c = graph.tensor("x", (1, 32)), graph.tensor("c", ())
    y = dense.fully_connected(graph, x, dense.block_sparse((16, 32)))
    packed = trp.convert(
        dense.finish(graph, [x, c], [dense.add(graph, y, c)]), minimum_gain=0
    )
    feed = [np.ones((1, 32), "f4"), np.array(2, "f4")]
    with trp.CompiledModel(bytes(packed)) as compiled:
        (output,) = compiled.run(feed).values()
    (same,) = run_once(trp.Interpreter(packed), feed)
    np.testing.assert_allclose(output, same, rtol=1e-6)


def test_signatures_name_inputs_and_outputs(packed):
    with trp.CompiledModel(packed) as compiled:
        (names,) = compiled.get_signature_list().values()
    assert names == {"inputs": ["x"], "outputs": ["d"]}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": np.zeros((1, 6, 6, 4), np.float32)}, r"must name \['x'\].*\['y'\]"),
        ([], "must hold 1 arrays"),
        (np.zeros((1, 6, 6, 4)), "must have type float32. Received: float64"),
        (np.zeros((6, 6, 4), np.float32), "must have 4 dimensions"),
    ],
)
def test_inputs_of_another_kind_are_refused(packed, inputs, message):
    with (
        trp.CompiledModel(packed) as compiled,
        pytest.raises(ValueError, match=message),
    ):
        compiled.run(inputs)


def test_an_impossible_shape_is_refused_and_the_model_lives_on(packed, images):
    with trp.CompiledModel(packed) as compiled:
        with pytest.raises(RuntimeError, match="runtime failure"):
            compiled.run(np.zeros((1, 6, 6, 5), np.float32))
        (output,) = compiled.run(images).values()
    np.testing.assert_array_equal(output, expected(packed, images))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"isa": "mmx"}, ValueError, "isa must be auto.*'mmx'"),
        ({"driver": "fastest"}, ValueError, "auto, direct.* Received: 'fastest'"),
        ({"tune": "always"}, ValueError, "off or once. Received: 'always'"),
        ({"tune_ms": 5}, ValueError, 'need tune="once". Received: tune=None'),
        ({"num_threads": 0}, ValueError, "from 1 to 64.*Received: 0"),
        ({"num_threads": True}, ValueError, "from 1 to 64.*Received: True"),
        ({"log_level": "loud"}, ValueError, "`log_level`.*'loud'"),
        ({"model": "no/such/file"}, ValueError, "there is no such file"),
        ({"model": b"not a model"}, RuntimeError, "invalid flatbuffer"),
    ],
)
def test_bad_arguments(packed, arguments, error, message):
    with pytest.raises(error, match=message):
        trp.CompiledModel(**{"model": packed, **arguments})


def test_a_damaged_payload_is_an_error(packed):
    damaged = bytearray(packed)
    places = [i for i in range(len(packed)) if packed.startswith(b"TFRP", i)]
    assert places
    damaged[places[0] + 4] ^= 0xFF
    with pytest.raises(RuntimeError, match="LiteRtCreateCompiledModel failed"):
        trp.CompiledModel(bytes(damaged))


def test_closed_models_say_so(packed, images):
    compiled = trp.CompiledModel(packed)
    compiled.close()
    compiled.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        compiled.run(images)
    with pytest.raises(RuntimeError, match="has been closed"):
        compiled.get_signature_list()


def test_an_older_litert_is_named(monkeypatch):
    monkeypatch.setitem(litert_library._SIGNATURES, "OfTomorrow", ())
    path = litert_library.litert().library._name
    with pytest.raises(RuntimeError, match=r"2\.1\.6 or newer.*LiteRtOfTomorrow"):
        litert_library.LiteRt(path)
