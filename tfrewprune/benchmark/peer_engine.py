# SPDX-License-Identifier: Apache-2.0
"""Runs one layer in another engine, as a child process that takes orders.

A script for an interpreter that has the engines (onnx with onnxruntime, deepsparse or
MNN); it needs nothing of tfrewprune, because their dependencies rarely agree with ours.
Orders come as JSON lines on standard input, answers go to standard output:

    {"load": "layer.npz", "engine": "onnxruntime", "threads": 1, "output": "out.npy"}
        -> {"version": "1.20.0"}      and the layer's output in out.npy
    {"time": 0.02}
        -> {"seconds": 1.2e-4}        median of one call over blocks of that length
"""

import json
import os
import statistics
import sys
import time

import numpy as np

os.environ["NM_DISABLE_ANALYTICS"] = "1"
_BATCH_SECONDS = 50e-6


def build_onnx(layer) -> bytes:
    """An ONNX model of one Conv (NCHW) or Gemm from the arrays of `layer`."""
    from onnx import TensorProto, helper, numpy_helper

    weights, pads = layer["weights"], layer["pads"].tolist()
    if weights.ndim == 4:
        node = helper.make_node(
            "Conv",
            ["input", "weights", "bias"],
            ["output"],
            pads=pads,
            strides=layer["strides"].tolist(),
            dilations=layer["dilations"].tolist(),
        )
    else:
        node = helper.make_node(
            "Gemm", ["input", "weights", "bias"], ["output"], transB=1
        )
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(layer["bias"], "bias"),
    ]
    graph = helper.make_graph(
        [node],
        "layer",
        [
            helper.make_tensor_value_info(
                "input", TensorProto.FLOAT, layer["input"].shape
            )
        ],
        [
            helper.make_tensor_value_info(
                "output", TensorProto.FLOAT, layer["output_shape"].tolist()
            )
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model.SerializeToString()


def load(order):
    """Builds the layer in the engine; returns (version, run, output)."""
    layer = np.load(order["load"])
    return _ENGINES[order["engine"]](layer, order["load"], order["threads"])


def load_onnxruntime(layer, path: str, threads: int):
    """ONNX Runtime on one processor, dense."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        build_onnx(layer), options, providers=["CPUExecutionProvider"]
    )
    feed = {"input": np.ascontiguousarray(layer["input"])}
    output = session.run(None, feed)[0]
    return onnxruntime.__version__, lambda: session.run(None, feed), output


def load_deepsparse(layer, path: str, threads: int):
    """DeepSparse, which finds the zeros by itself."""
    import deepsparse

    values = [np.ascontiguousarray(layer["input"])]
    engine = deepsparse.Engine(_write_onnx(layer, path), 1, num_cores=threads)
    output = engine.run(values)[0]
    return deepsparse.__version__, lambda: engine.run(values, val_inp=False), output


def load_mnn(layer, path: str, threads: int):
    """MNN's sparse convolution; `block` filters share their columns.

    Its command line tools install a logging package and report to their maker when
    imported: the converter is called without them.
    """
    import _tools
    import MNN

    with open(path + ".compression", "wb") as file:
        file.write(mnn_compression(int(layer["block"])))
    order = f"mnnconvert -f ONNX --bizCode layer --modelFile {_write_onnx(layer, path)}"
    order += f" --MNNModel {path}.mnn --detectSparseSpeedUp"
    _tools.mnnconvert(
        [*order.split(), "--compressionParamsFile", path + ".compression"]
    )
    config = {"backend": "CPU", "numThread": threads, "precision": "high"}
    module = MNN.nn.load_module_from_file(
        path + ".mnn",
        ["input"],
        ["output"],
        runtime_manager=MNN.nn.create_runtime_manager((config,)),
    )
    expr = MNN.expr
    values = expr.const(layer["input"], list(layer["input"].shape), expr.NCHW)
    if layer["weights"].ndim == 4:  # its own order of channels, as inside of a model
        values = expr.convert(values, expr.NC4HW4)
    output = expr.convert(module.forward(values), expr.NCHW).read()
    output = np.array(output).reshape(layer["output_shape"])
    return MNN.version(), lambda: module.forward(values).read(), output


def mnn_compression(block: int) -> bytes:
    """MNN's message `Compression.Pipeline`: the weights come in blocks of filters."""

    def number(field: int, value: int) -> bytes:
        return bytes([field << 3, value])

    def bytes_of(field: int, value: bytes) -> bytes:
        return bytes([field << 3 | 2, len(value)]) + value

    blocks = bytes_of(1, b"weights") + bytes_of(3, b"output") + number(4, block)
    prune = number(1, 1) + bytes_of(3, blocks)  # 1 = SIMD_OC
    algorithm = number(1, 1) + bytes_of(3, prune)  # 1 = PRUNE
    return bytes_of(1, b"0.0.0") + bytes_of(2, algorithm)


def _write_onnx(layer, path: str) -> str:
    with open(path + ".onnx", "wb") as file:
        file.write(build_onnx(layer))
    return path + ".onnx"


_ENGINES = {
    "onnxruntime": load_onnxruntime,
    "deepsparse": load_deepsparse,
    "mnn": load_mnn,
}


def time_call(run, seconds: float, clock) -> float:
    """Median seconds of one call in a block of that length."""
    start = clock()
    run()
    batch = max(1, round(_BATCH_SECONDS / max(clock() - start, 1e-9)))
    times = []
    begin = clock()
    while not times or clock() - begin < seconds:
        start = clock()
        for _ in range(batch):
            run()
        times.append((clock() - start) / batch)
    return statistics.median(times)


def main() -> None:
    """Obeys orders until standard input ends."""
    # Engines greet on standard output; answers keep the real one to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run, clock = None, time.perf_counter
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "load" in order:
                # Processor time, as for our side: engines may not hide behind threads.
                clock = time.process_time if order["threads"] == 1 else clock
                version, run, output = load(order)
                np.save(order["output"], output)
                answer = {"version": version}
            else:
                answer = {"seconds": time_call(run, order["time"], clock)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
