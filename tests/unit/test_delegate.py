# SPDX-License-Identifier: Apache-2.0
"""The native delegate inside the real LiteRT interpreter, against numpy."""

import ctypes
import os
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
import tiny_models as tiny
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, load_delegate

from tfrewprune.payload import pack_matrix
from tfrewprune.runtime.library import delegate_path


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(params=["auto", "reference"])
def isa(request):
    return request.param


def start(model: bytes, delegate=None, num_threads=None, **options) -> Interpreter:
    """An interpreter with our delegate; it keeps the delegate alive."""
    delegate = delegate or load_delegate(delegate_path(), options)
    interpreter = Interpreter(
        model_content=model,
        experimental_delegates=[delegate],
        num_threads=num_threads,
    )
    interpreter.our_delegate = delegate
    return interpreter


def ask(delegate, symbol: str, result=ctypes.c_int):
    function = getattr(delegate._library, symbol)
    function.argtypes, function.restype = [ctypes.c_void_p], result
    return function(delegate._get_native_delegate_pointer())


def run(interpreter: Interpreter, *inputs: np.ndarray) -> np.ndarray:
    """Resizes to the inputs, runs, returns a copy of the first output."""
    details = interpreter.get_input_details()
    for detail, value in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != value.shape:
            interpreter.resize_tensor_input(detail["index"], value.shape)
    interpreter.allocate_tensors()
    for detail, value in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def assert_close(received: np.ndarray, expected: np.ndarray):
    assert received.shape == expected.shape
    np.testing.assert_allclose(received, expected, rtol=2e-5, atol=2e-5)


def normal(rng, *shape) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


# Convolution


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    "kernel, stride, dilation",
    [
        ((1, 1), (1, 1), (1, 1)),
        ((3, 3), (1, 1), (1, 1)),
        ((3, 3), (2, 2), (1, 1)),
        ((3, 3), (1, 1), (2, 3)),
        ((5, 2), (2, 1), (1, 2)),
        ((1, 1), (2, 3), (1, 1)),
        ((4, 7), (3, 2), (1, 1)),
        ((2, 2), (3, 3), (2, 2)),
    ],
)
def test_conv2d_geometries(rng, isa, kernel, stride, dilation, padding):
    weights = tiny.sparse_weights(rng, (24, *kernel, 5))
    bias = normal(rng, 24)
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    graph = tiny.conv2d_model(weights, (2, 11, 13, 5), bias, **options)
    x = normal(rng, 2, 11, 13, 5)
    interpreter = start(graph.to_bytes(), isa=isa)
    assert_close(run(interpreter, x), tiny.conv2d(x, weights, bias, **options))


@pytest.mark.parametrize("activation", tiny.ACTIVATIONS)
def test_every_activation(rng, isa, activation):
    weights = tiny.sparse_weights(rng, (20, 3, 3, 4))
    bias = normal(rng, 20)
    x = 2 * normal(rng, 1, 7, 6, 4)
    graph = tiny.conv2d_model(weights, x.shape, bias, activation=activation)
    expected = tiny.conv2d(x, weights, bias, activation=activation)
    assert_close(run(start(graph.to_bytes(), isa=isa), x), expected)

    matrix = tiny.sparse_weights(rng, (20, 30))
    x = 2 * normal(rng, 3, 30)
    graph = tiny.fully_connected_model(matrix, x.shape, bias, activation=activation)
    expected = tiny.activate(x.astype(np.float64) @ matrix.T + bias, activation)
    assert_close(run(start(graph.to_bytes(), isa=isa), x), expected)


@pytest.mark.parametrize("band_rows", [4, 8, 16, 32])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_band_heights_and_threads(rng, band_rows, threads):
    weights = tiny.sparse_weights(rng, (50, 3, 3, 6))
    x = normal(rng, 1, 12, 12, 6)
    graph = tiny.conv2d_model(weights, x.shape, band_rows=band_rows)
    interpreter = start(graph.to_bytes(), threads=threads)
    assert_close(run(interpreter, x), tiny.conv2d(x, weights))
    assert ask(interpreter.our_delegate, "tfrewprune_threads") == threads


def test_conv2d_without_a_single_weight_gives_the_bias(rng, isa):
    weights = np.zeros((9, 3, 3, 2), np.float32)
    bias = normal(rng, 9)
    graph = tiny.conv2d_model(weights, (1, 4, 4, 2), bias, activation="RELU")
    y = run(start(graph.to_bytes(), isa=isa), normal(rng, 1, 4, 4, 2))
    np.testing.assert_array_equal(y, np.broadcast_to(np.maximum(bias, 0), (1, 4, 4, 9)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_not_finite_stays_where_it_belongs(rng, isa, value):
    weights = tiny.sparse_weights(rng, (16, 1, 1, 4), keep=1.0)
    x = normal(rng, 1, 3, 3, 4)
    x[0, 1, 1, 2] = value
    graph = tiny.conv2d_model(weights, x.shape)
    y = run(start(graph.to_bytes(), isa=isa), x)
    finite = np.isfinite(y).all(axis=-1)[0]
    assert not finite[1, 1]
    assert finite.sum() == 8


# Shapes that change


def test_unknown_batch_and_resize(rng, isa):
    weights = tiny.sparse_weights(rng, (18, 3, 3, 3))
    bias = normal(rng, 18)
    graph = tiny.conv2d_model(
        weights, (1, 8, 8, 3), bias, signature=(-1, 8, 8, 3), stride=(2, 2)
    )
    interpreter = start(graph.to_bytes(), isa=isa)
    for shape in [(1, 8, 8, 3), (5, 8, 8, 3), (2, 13, 6, 3), (1, 1, 1, 3)]:
        x = normal(rng, *shape)
        assert_close(run(interpreter, x), tiny.conv2d(x, weights, bias, stride=(2, 2)))


def test_resize_to_an_unfit_shape_is_refused_and_the_next_one_works(rng):
    weights = tiny.sparse_weights(rng, (18, 3, 3, 3))
    interpreter = start(tiny.conv2d_model(weights, (1, 8, 8, 3)).to_bytes())
    with pytest.raises(RuntimeError, match=r"height, width, 3\]. Received: \[1, 8, 8"):
        run(interpreter, normal(rng, 1, 8, 8, 4))
    x = normal(rng, 1, 9, 9, 3)
    assert_close(run(interpreter, x), tiny.conv2d(x, weights))


def test_an_empty_batch_gives_an_empty_output(rng):
    matrix = tiny.sparse_weights(rng, (12, 8))
    interpreter = start(tiny.fully_connected_model(matrix, (1, 8)).to_bytes())
    interpreter.resize_tensor_input(0, (0, 8))
    interpreter.allocate_tensors()
    interpreter.invoke()
    index = interpreter.get_output_details()[0]["index"]
    assert tuple(interpreter.get_tensor(index).shape) == (0, 12)


def test_input_whose_shape_is_known_only_while_running(rng):
    # RESHAPE with a computed shape makes its output dynamic.
    weights = tiny.sparse_weights(rng, (16, 3, 3, 2))
    graph = tiny.conv2d_model(weights, (1, 6, 6, 2))
    conv = graph.operators.pop()
    flat = graph.tensor("flat", (72,), signature=(-1,))
    int32 = schema.TensorType.INT32
    wanted = graph.tensor("wanted", (4,), dtype=int32)
    reshape = tiny.Operator(
        schema.BuiltinOperator.RESHAPE, [flat, wanted], [conv.inputs[0]]
    )
    graph.operators = [reshape, conv]
    graph.inputs = [flat, wanted]
    interpreter = start(graph.to_bytes())
    for shape in [(1, 6, 6, 2), (3, 4, 3, 2), (2, 9, 7, 2)]:
        x = normal(rng, *shape)
        y = run(interpreter, x.reshape(-1), np.array(shape, np.int32))
        assert_close(y, tiny.conv2d(x, weights))


# Fully connected


@pytest.mark.parametrize("keep_num_dims", [False, True])
@pytest.mark.parametrize(
    "shape", [(24,), (1, 24), (7, 24), (2, 3, 24), (2, 1, 3, 24), (64, 24)]
)
def test_fully_connected_ranks(rng, isa, shape, keep_num_dims):
    weights = tiny.sparse_weights(rng, (33, 24))
    bias = normal(rng, 33)
    x = normal(rng, *shape)
    graph = tiny.fully_connected_model(
        weights, shape, bias, keep_num_dims=keep_num_dims
    )
    expected = x.astype(np.float64) @ weights.T + bias
    if not keep_num_dims:
        expected = expected.reshape(-1, 33)
    assert_close(run(start(graph.to_bytes(), isa=isa), x), expected)


def test_fully_connected_flattens_across_the_last_dimension(rng):
    weights = tiny.sparse_weights(rng, (16, 24))
    x = normal(rng, 2, 6, 8)  # 96 values = 4 rows of 24
    interpreter = start(tiny.fully_connected_model(weights, x.shape).to_bytes())
    assert_close(run(interpreter, x), x.reshape(4, 24).astype(np.float64) @ weights.T)


def test_bias_computed_by_the_model(rng, isa):
    weights = tiny.sparse_weights(rng, (40, 12))
    x, bias = normal(rng, 3, 12), normal(rng, 40)
    graph = tiny.fully_connected_model(weights, x.shape, "input")
    interpreter = start(graph.to_bytes(), isa=isa)
    for _ in range(2):
        assert_close(run(interpreter, x, bias), x.astype(np.float64) @ weights.T + bias)
        bias = bias[::-1].copy()


# Graphs


def two_layers(rng):
    first = tiny.sparse_weights(rng, (16, 3, 3, 4))
    second = tiny.sparse_weights(rng, (24, 1, 1, 16))
    graph = tiny.conv2d_model(first, (1, 6, 6, 4), activation="RELU")
    weights = graph.payload("second", pack_matrix(second.reshape(24, 16)))
    z = graph.tensor("z", (1, 6, 6, 24))
    options = tiny.conv2d_options((1, 1, 16))
    graph.operators.append(
        tiny.Operator(tiny.CONV_2D, [graph.outputs[0], weights], [z], options)
    )
    graph.outputs = [z]

    def expected(x):
        return tiny.conv2d(tiny.conv2d(x, first, activation="RELU"), second)

    return graph, expected


def test_neighbouring_layers_pass_their_tensor_on(rng):
    graph, expected = two_layers(rng)
    interpreter = start(graph.to_bytes())
    assert ask(interpreter.our_delegate, "tfrewprune_claimed_nodes") == 2
    for shape in [(1, 6, 6, 4), (3, 5, 9, 4)]:
        x = normal(rng, *shape)
        assert_close(run(interpreter, x), expected(x))


def test_tensor_between_two_layers_is_an_output_too(rng):
    graph, expected = two_layers(rng)
    middle = graph.operators[0].outputs[0]
    graph.outputs = [*graph.outputs, middle]
    interpreter = start(graph.to_bytes())
    x = normal(rng, 1, 6, 6, 4)
    assert_close(run(interpreter, x), expected(x))
    index = interpreter.get_output_details()[1]["index"]
    between = interpreter.get_tensor(index)
    assert between.shape == (1, 6, 6, 16)
    assert between.min() == 0 and between.max() > 0


def test_one_payload_serves_two_layers(rng):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 16))
    graph = tiny.conv2d_model(weights, (1, 6, 6, 16))
    first = graph.operators[0]
    z = graph.tensor("z", (1, 6, 6, 16))
    graph.operators.append(
        tiny.Operator(
            first.code, [first.outputs[0], *first.inputs[1:]], [z], first.options
        )
    )
    graph.outputs = [z]
    x = normal(rng, 1, 6, 6, 16)
    expected = tiny.conv2d(tiny.conv2d(x, weights), weights)
    received = run(start(graph.to_bytes()), x)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-3)


def test_layers_inside_the_branches_of_an_if(rng):
    branches = [tiny.sparse_weights(rng, (16, 12)) for _ in range(2)]
    graphs = [tiny.fully_connected_model(w, (2, 12)) for w in branches]
    for graph in graphs:
        graph.tensors[graph.outputs[0]].shape = (2, 16)
    main = tiny.Graph()
    condition = main.tensor("condition", (), dtype=schema.TensorType.BOOL)
    x, y = main.tensor("x", (2, 12)), main.tensor("y", (2, 16))
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    main.operators = [
        tiny.Operator(
            schema.BuiltinOperator.IF,
            [condition, x],
            [y],
            builtin_options=options,
            builtin_options_type=schema.BuiltinOptions.IfOptions,
        )
    ]
    main.inputs, main.outputs = [condition, x], [y]
    interpreter = start(tiny.build(main, *graphs))
    assert ask(interpreter.our_delegate, "tfrewprune_claimed_nodes") == 2
    values = normal(rng, 2, 12)
    for taken, weights in zip([True, False], branches, strict=True):
        received = run(interpreter, np.array(taken), values)
        assert_close(received, values.astype(np.float64) @ weights.T)


def test_xnnpack_takes_what_is_not_ours(rng):
    graph, expected = two_layers(rng)
    last = graph.outputs[0]
    y = graph.tensor("doubled", (1, 6, 6, 24))
    options = schema.AddOptionsT()
    graph.operators.append(
        tiny.Operator(
            schema.BuiltinOperator.ADD,
            [last, last],
            [y],
            builtin_options=options,
            builtin_options_type=schema.BuiltinOptions.AddOptions,
        )
    )
    graph.outputs = [y]
    x = normal(rng, 1, 6, 6, 4)
    assert_close(run(start(graph.to_bytes(), num_threads=2), x), 2 * expected(x))


def test_threads_follow_the_interpreter(rng):
    graph, _ = two_layers(rng)
    for asked, expected in [(None, 1), (1, 1), (3, 3)]:
        interpreter = start(graph.to_bytes(), num_threads=asked)
        interpreter.allocate_tensors()
        assert ask(interpreter.our_delegate, "tfrewprune_threads") == expected


@pytest.mark.parametrize("shift", [0, 1, 2, 4, 8])
def test_payload_at_any_address(rng, capfd, shift):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 4))
    x = normal(rng, 1, 5, 5, 4)
    interpreter = start(tiny.conv2d_model(weights, x.shape).to_bytes(shift=shift))
    assert_close(run(interpreter, x), tiny.conv2d(x, weights))
    assert ("bytes were copied" in capfd.readouterr().err) == (shift % 4 != 0)


def test_payload_is_used_in_place_of_a_mapped_file(rng, tmp_path, capfd):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 4))
    x = normal(rng, 1, 5, 5, 4)
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny.conv2d_model(weights, x.shape).to_bytes())
    delegate = load_delegate(delegate_path())
    interpreter = Interpreter(str(path), experimental_delegates=[delegate])
    assert_close(run(interpreter, x), tiny.conv2d(x, weights))
    assert "copied" not in capfd.readouterr().err


def test_two_interpreters_in_two_threads(rng):
    graph, expected = two_layers(rng)
    model = graph.to_bytes()
    x = [normal(rng, 2, 20, 20, 4) for _ in range(2)]
    wrong = []

    def work(i):
        interpreter = start(model, num_threads=2)
        for _ in range(30):
            y = run(interpreter, x[i])
            if not np.allclose(y, expected(x[i]), atol=1e-4):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


# Refusals


def test_without_the_delegate_litert_names_the_operator(rng):
    graph, _ = two_layers(rng)
    with pytest.raises(RuntimeError, match="TfrewpruneConv2D"):
        Interpreter(model_content=graph.to_bytes()).allocate_tensors()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda p: p[:100], "shorter than its header of 128 bytes"),
        (lambda p: p[:-1], "truncated"),
        (lambda p: b"ELF!" + p[4:], "magic bytes TFRP"),
        (lambda p: p[:24] + struct.pack("<I", 12) + p[28:], "band_rows 12"),
        (lambda p: p + b"\0", "trailing bytes"),
    ],
)
def test_damaged_payload(rng, damage, message):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 4))
    payload = damage(pack_matrix(weights.reshape(16, -1)))
    graph = tiny.conv2d_model(weights, (1, 5, 5, 4), payload=payload)
    with pytest.raises(RuntimeError, match="the payload is damaged") as caught:
        start(graph.to_bytes()).allocate_tensors()
    assert message in str(caught.value)
    assert "TfrewpruneConv2D (node 0, output 'y')" in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        (b"", "length in bytes must be from 64 to 64. Received: 0"),
        (bytes(64), "magic"),
        (tiny.fully_connected_options(), "operator kind"),
        (tiny.conv2d_options((3, 3, 5)), "3 x 3 x 5 columns. Received: 36 columns"),
        (tiny.conv2d_options((3, 3, 4), stride=(0, 1)), "stride height"),
        (tiny.conv2d_options((3, 3, 4))[:60], "Received: 60"),
    ],
)
def test_damaged_options(rng, options, message):
    weights = tiny.sparse_weights(rng, (16, 3, 3, 4))
    graph = tiny.conv2d_model(weights, (1, 5, 5, 4), custom_options=options)
    with pytest.raises(RuntimeError) as caught:
        start(graph.to_bytes()).allocate_tensors()
    assert message in str(caught.value)


def test_random_damage_is_refused_or_harmless(rng):
    weights = tiny.sparse_weights(rng, (20, 3, 3, 4))
    payload = pack_matrix(weights.reshape(20, -1))
    options = tiny.conv2d_options((3, 3, 4))
    x = normal(rng, 1, 5, 5, 4)
    refused = 0
    for _ in range(300):
        damaged = [bytearray(payload), bytearray(options)]
        part = damaged[rng.integers(2)]
        for _ in range(rng.integers(1, 4)):
            # The head of a payload decides most.
            place = rng.integers(min(len(part), int(rng.choice([32, 300, 10**6]))))
            part[place] = rng.integers(256)
        graph = tiny.conv2d_model(
            weights,
            x.shape,
            payload=bytes(damaged[0]),
            custom_options=bytes(damaged[1]),
        )
        try:
            y = run(start(graph.to_bytes()), x)
        except RuntimeError as error:
            assert "tfrewprune: TfrewpruneConv2D (node 0" in str(error)
            refused += 1
        else:
            assert y.shape[0] == 1 and y.shape[-1] >= 20
    assert 50 < refused < 300


def test_payload_that_is_computed(rng):
    graph = tiny.conv2d_model(tiny.sparse_weights(rng, (16, 3, 3, 4)), (1, 5, 5, 4))
    uint8 = schema.TensorType.UINT8
    graph.operators[0].inputs[1] = graph.tensor("computed", (500,), dtype=uint8)
    graph.inputs.append(graph.operators[0].inputs[1])
    with pytest.raises(RuntimeError, match="must be a constant of the model"):
        start(graph.to_bytes()).allocate_tensors()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"threads": 0}, "from 1 to 64. Received: '0'"),
        ({"threads": "many"}, "Received: 'many'"),
        ({"isa": "sse2"}, "neon, portable or reference. Received: 'sse2'"),
        ({"log_level": "all"}, "error, warning, info or debug"),
        ({"precision": "half"}, "float32 or float16. Received: 'half'"),
        ({"num_threads": 2}, "threads, isa and log_level. Received: 'num_threads'"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError) as caught:
        load_delegate(delegate_path(), options)
    assert message in str(caught.value)


def test_log_levels(rng, capfd):
    graph, _ = two_layers(rng)
    printed = {}
    for level in ["error", "warning", "info", "debug"]:
        start(graph.to_bytes(), log_level=level).allocate_tensors()
        text = capfd.readouterr().err
        printed[level] = [line for line in text.splitlines() if "tfrewprune" in line]
    assert printed["error"] == printed["warning"] == []
    assert len(printed["info"]) == 1
    assert "claimed 2 of 2 nodes" in printed["info"][0]
    assert len(printed["debug"]) == 3
    assert "Conv2D 1x6x6x4 -> 6x6x16, kernel 3x3" in printed["debug"][1]


def test_a_graph_without_packed_layers_is_reported(capfd):
    graph = tiny.Graph()
    x, y = graph.tensor("x", (4,)), graph.tensor("y", (4,))
    graph.operators = [tiny.Operator(schema.BuiltinOperator.ABS, [x], [y])]
    graph.inputs, graph.outputs = [x], [y]
    interpreter = start(graph.to_bytes())
    assert ask(interpreter.our_delegate, "tfrewprune_claimed_nodes") == 0
    assert "claimed none of 1 nodes" in capfd.readouterr().err
    np.testing.assert_array_equal(
        run(interpreter, np.array([-1, 2, -3, 4], np.float32)), [1, 2, 3, 4]
    )


# The library file


def test_environment_variable_selects_the_isa():
    code = (
        "import ctypes; from ai_edge_litert.interpreter import load_delegate\n"
        "from tfrewprune.runtime.library import delegate_path\n"
        "d = load_delegate(delegate_path())\n"
        "f = d._library.tfrewprune_isa_name\n"
        "f.argtypes, f.restype = [ctypes.c_void_p], ctypes.c_char_p\n"
        "print(f(d._get_native_delegate_pointer()).decode())"
    )

    def start_with(value):
        environment = {**os.environ, "TFREWPRUNE_ISA": value}
        return subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
        )

    assert start_with("reference").stdout.strip() == "reference"
    refused = start_with("mmx")
    assert refused.returncode != 0
    assert "TFREWPRUNE_ISA must be auto" in refused.stderr


def _tool(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        pytest.skip(f"{command[0]} (binutils) is not installed")


def test_library_needs_only_libc_libm_and_pthread():
    lines = _tool("readelf", "-d", delegate_path()).splitlines()
    needed = {line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line}
    allowed = ("libc.so", "libm.so", "libpthread.so", "ld-linux")
    assert needed and all(name.startswith(allowed) for name in needed), needed


def test_library_exports_only_its_interface():
    lines = _tool("nm", "-D", "--defined-only", delegate_path()).splitlines()
    assert {line.split()[-1] for line in lines} == {
        "tflite_plugin_create_delegate",
        "tflite_plugin_destroy_delegate",
        "tfrewprune_claimed_nodes",
        "tfrewprune_driver_name",
        "tfrewprune_held_bytes",
        "tfrewprune_isa_name",
        "tfrewprune_register_accelerator",
        "tfrewprune_threads",
        "tfrewprune_trace",
        "tfrewprune_version",
    }


def test_library_has_the_version_of_the_package():
    import tfrewprune

    version = ctypes.CDLL(delegate_path()).tfrewprune_version
    version.restype = ctypes.c_char_p
    assert version().decode() == tfrewprune.__version__
