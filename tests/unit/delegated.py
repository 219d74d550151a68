# SPDX-License-Identifier: Apache-2.0
"""Models of our own operators in the real LiteRT interpreter with our delegate."""

import ctypes

import numpy as np
import tiny_models as tiny
from ai_edge_litert.interpreter import Interpreter, load_delegate

from tfrewprune.benchmark.compare import run_once
from tfrewprune.payload import pack_matrix
from tfrewprune.runtime.library import delegate_path


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
    return run_once(interpreter, inputs)[0]


def assert_close(received: np.ndarray, expected: np.ndarray):
    assert received.shape == expected.shape
    np.testing.assert_allclose(received, expected, rtol=2e-5, atol=2e-5)


def normal(rng, *shape) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


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
