# SPDX-License-Identifier: Apache-2.0
"""Small dense `.tflite` models with built-in operators, to be converted."""

from __future__ import annotations

import numpy as np
import tiny_models
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tiny_models import ACTIVATIONS, Graph, Operator

from tfrewprune.converter.flatbuffer import Model, read_model, write_model

PADDINGS = ("SAME", "VALID")


def block_sparse(shape, keep=0.25, rows=16, seed=0) -> np.ndarray:
    """Random weights, rows first, columns surviving in blocks; at least one each."""
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((shape[0], int(np.prod(shape[1:]))))
    for start in range(0, shape[0], rows):
        kept = generator.random(matrix.shape[1]) < keep
        kept[generator.integers(matrix.shape[1])] = True
        matrix[start : start + rows, ~kept] = 0
    return matrix.reshape(shape).astype(np.float32)


def conv(
    graph: Graph,
    x: int,
    weights: np.ndarray | int,
    bias: np.ndarray | int | None = None,
    stride=(1, 1),
    dilation=(1, 1),
    padding="SAME",
    activation="NONE",
    name="y",
) -> int:
    """Appends a CONV_2D, returns its output."""
    if not isinstance(weights, int):
        weights = graph.constant(f"{name}/weights", weights)
    shape = graph.tensors[weights].shape
    size = []
    for axis in (0, 1):
        length = graph.tensors[x].shape[1 + axis]
        if padding == "VALID":
            length -= (shape[1 + axis] - 1) * dilation[axis]
        size.append(-(-length // stride[axis]))
    options = schema.Conv2DOptionsT(
        padding=PADDINGS.index(padding),
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=ACTIVATIONS.index(activation),
    )
    given = graph.tensors[x]
    signature = given.signature and (given.signature[0], *size, shape[0])
    y = graph.tensor(name, (given.shape[0], *size, shape[0]), signature=signature)
    # LiteRT itself runs no convolution without bias; other readers leave it out.
    inputs = [x, weights, *(_bias(graph, bias, name) if bias is not None else [])]
    _append(graph, "CONV_2D", inputs, y, options, schema.BuiltinOptions.Conv2DOptions)
    return y


def fully_connected(
    graph: Graph,
    x: int,
    weights: np.ndarray | int,
    bias: np.ndarray | int | None = None,
    activation="NONE",
    keep_num_dims=False,
    name="y",
) -> int:
    """Appends a FULLY_CONNECTED, returns its output."""
    if not isinstance(weights, int):
        weights = graph.constant(f"{name}/weights", weights)
    rows, columns = graph.tensors[weights].shape
    given = graph.tensors[x]
    shape = (int(np.prod(given.shape)) // columns, rows)
    if keep_num_dims:
        shape = (*given.shape[:-1], rows)
    options = schema.FullyConnectedOptionsT(
        fusedActivationFunction=ACTIVATIONS.index(activation),
        keepNumDims=keep_num_dims,
    )
    y = graph.tensor(name, shape, signature=given.signature and (-1, rows))
    inputs = [x, weights, *_bias(graph, bias, name)]
    kind = schema.BuiltinOptions.FullyConnectedOptions
    _append(graph, "FULLY_CONNECTED", inputs, y, options, kind)
    return y


def add(graph: Graph, a: int, b: int, activation="NONE", name="sum", **tensor) -> int:
    """Appends an ADD, returns its output."""
    shapes = [graph.tensors[index].shape for index in (a, b)]
    y = graph.tensor(name, np.broadcast_shapes(*shapes), **tensor)
    if "signature" not in tensor:
        graph.tensors[y].signature = graph.tensors[a].signature
    options = schema.AddOptionsT(fusedActivationFunction=ACTIVATIONS.index(activation))
    _append(graph, "ADD", [a, b], y, options, schema.BuiltinOptions.AddOptions)
    return y


def plain(graph: Graph, op: str, inputs: list[int], shape, name="y", **tensor) -> int:
    """Appends an operator without options, returns its output."""
    y = graph.tensor(name, shape, **tensor)
    _append(graph, op, inputs, y, None, 0)
    return y


def _append(graph, op, inputs, output, options, kind) -> None:
    code = getattr(schema.BuiltinOperator, op)
    graph.operators.append(
        Operator(code, inputs, [output], b"", options, kind),
    )


def _bias(graph: Graph, bias, name: str) -> list[int]:
    if bias is None:
        return [-1]
    if isinstance(bias, int):
        return [bias]
    return [graph.constant(f"{name}/bias", bias)]


def finish(graph: Graph, inputs: list[int], outputs: list[int]) -> bytes:
    """The model file of one graph, its constants inside the flatbuffer."""
    graph.inputs, graph.outputs = inputs, outputs
    model = read_model(tiny_models.build(graph))
    model.outside = False
    return write_model(model)


def conv_model(weights, input_shape, bias=None, signature=None, **options) -> bytes:
    """One CONV_2D."""
    graph = Graph()
    x = graph.tensor("x", input_shape, signature=signature)
    return finish(graph, [x], [conv(graph, x, weights, bias, **options)])


def fully_connected_model(
    weights, input_shape, bias=None, signature=None, **options
) -> bytes:
    """One FULLY_CONNECTED."""
    graph = Graph()
    x = graph.tensor("x", input_shape, signature=signature)
    return finish(graph, [x], [fully_connected(graph, x, weights, bias, **options)])


def half(graph: Graph, name: str, array: np.ndarray) -> int:
    """A float16 constant behind DEQUANTIZE, as post-training quantization leaves it."""
    array = np.asarray(array, np.float16)
    code = schema.TensorType.FLOAT16
    constant = graph.tensor(f"{name}/half", array.shape, array.tobytes(), code)
    return plain(graph, "DEQUANTIZE", [constant], array.shape, name)


def half_model() -> bytes:
    """Two convolutions, a shared fully connected layer, an ADD; all in float16."""
    graph = Graph()
    x = graph.tensor("x", (1, 6, 6, 4))
    first = half(graph, "w1", block_sparse((16, 3, 3, 4)))
    bias = half(graph, "b1", np.arange(16))
    y = conv(graph, x, first, bias, name="a")
    second = half(graph, "w2", block_sparse((16, 1, 1, 16), seed=1))
    z = add(graph, conv(graph, y, second, bias, name="b"), y, activation="RELU")
    shared = half(graph, "w3", block_sparse((16, 16), seed=2))
    z = fully_connected(graph, z, shared, bias, keep_num_dims=True, name="c")
    z = fully_connected(graph, z, shared, bias, keep_num_dims=True, name="d")
    return finish(graph, [x], [z])


def dynamic_range(content: bytes, per_channel: bool = True, smallest: int = 0) -> bytes:
    """A float model with its weights as int8: what TensorFlow's default leaves.

    Kernels of fewer than `smallest` weights stay float, as TensorFlow's below 1,024 do.
    """
    model = read_model(content)
    (subgraph,) = model.subgraphs
    weights = {}
    for operator, name in zip(subgraph.operators, operators(model), strict=True):
        if name not in ("CONV_2D", "FULLY_CONNECTED"):
            continue
        if np.prod(subgraph.tensors[operator.inputs[1]].shape) < smallest:
            continue
        weights[int(operator.inputs[1])] = name
        if name == "FULLY_CONNECTED":
            operator.builtinOptions.asymmetricQuantizeInputs = True
        code = model.tree.operatorCodes[operator.opcodeIndex]
        versions = {"CONV_2D": (2, 5), "FULLY_CONNECTED": (9, 12)}
        code.version = versions.get(name, (1, 1))[per_channel]
    for index in weights:
        tensor = subgraph.tensors[index]
        floats = model.data(tensor).view("f4").reshape(tensor.shape)
        largest = np.abs(floats).reshape(len(floats), -1).max(axis=1)
        scale = np.maximum(largest, 1e-3) / np.float32(127)
        scale = scale if per_channel else scale.max(keepdims=True)
        integers = np.rint(floats.reshape(len(floats), -1) / scale[:, None])
        data = integers.astype(np.int8).reshape(-1).view(np.uint8)
        model.tree.buffers[tensor.buffer].data = data
        tensor.type = schema.TensorType.INT8
        tensor.quantization = schema.QuantizationParametersT(
            scale=scale.astype(np.float32), zeroPoint=np.zeros(len(scale), np.int64)
        )
    return write_model(model)


def operators(content: bytes | Model) -> list[str]:
    """Operator names of the first subgraph."""
    from tfrewprune.converter.detect import operator_name

    model = content if isinstance(content, Model) else read_model(content)
    return [operator_name(model, op) for op in model.subgraphs[0].operators]


def run(content: bytes, *inputs: np.ndarray, packed=False) -> list[np.ndarray]:
    """Runs a model in LiteRT, with our delegate if it is packed."""
    if packed:
        from tfrewprune.runtime import Interpreter as PackedInterpreter

        interpreter = PackedInterpreter(model_content=content)
    else:
        interpreter = Interpreter(model_content=content)
    details = interpreter.get_input_details()
    for detail, array in zip(details, inputs, strict=True):
        interpreter.resize_tensor_input(detail["index"], array.shape)
    interpreter.allocate_tensors()
    for detail, array in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [
        interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()
    ]
