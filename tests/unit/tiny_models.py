# SPDX-License-Identifier: Apache-2.0
"""Small `.tflite` models with our custom operators, built without the converter.

Everything here follows PAYLOAD.md by hand, so that tests of the delegate do not
depend on `tfrewprune.convert`, and numpy gives the expected numbers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.payload import pack_matrix

ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
CONV_2D = "TfrewpruneConv2D (run it in tfrewprune.Interpreter)"
FULLY_CONNECTED = "TfrewpruneFullyConnected (run it in tfrewprune.Interpreter)"
OPTIONS_MAGIC = 0x4F504654
FILE_IDENTIFIER = b"TFL3"


@dataclass
class Tensor:
    """A tensor of the model; `data` makes it a constant."""

    name: str
    shape: tuple[int, ...]
    data: bytes | None = None
    dtype: int = schema.TensorType.FLOAT32
    signature: tuple[int, ...] | None = None
    """Shape with -1 for what is unknown."""


@dataclass
class Operator:
    """A node; `code` is a custom name or a number of schema.BuiltinOperator."""

    code: str | int
    inputs: list[int]
    outputs: list[int]
    options: bytes = b""
    builtin_options: object | None = None
    builtin_options_type: int = 0


@dataclass
class Graph:
    """One subgraph; tensors and operators refer to each other by number."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def tensor(self, *args, **kwargs) -> int:
        """Adds a tensor, returns its number."""
        self.tensors.append(Tensor(*args, **kwargs))
        return len(self.tensors) - 1

    def constant(self, name: str, array: np.ndarray) -> int:
        """Adds a float32 constant, returns its number."""
        array = np.ascontiguousarray(array, np.float32)
        return self.tensor(name, array.shape, array.tobytes())

    def payload(self, name: str, payload: bytes) -> int:
        """Adds a packed weight matrix, returns its number."""
        uint8 = schema.TensorType.UINT8
        return self.tensor(name, (len(payload),), payload, uint8)

    def to_bytes(self, alignment: int = 64, shift: int = 0) -> bytes:
        """The model file. Constants lie at a multiple of `alignment`, plus `shift`."""
        return build(self, alignment=alignment, shift=shift)


def build(*graphs: Graph, alignment: int = 64, shift: int = 0) -> bytes:
    """Serialises the subgraphs, the first is the main one."""
    constants = [t.data for g in graphs for t in g.tensors if t.data is not None]
    # Constants follow the flatbuffer. Their offsets are fields of fixed size, so a
    # first pass with made-up offsets tells where they will be.
    start = len(_pack(graphs, [1] * len(constants)))
    offsets = []
    for data in constants:
        start = -(-start // alignment) * alignment + shift
        offsets.append(start)
        start += len(data)
    file = bytearray(_pack(graphs, offsets))
    for offset, data in zip(offsets, constants, strict=True):
        file += bytes(offset - len(file)) + data
    return bytes(file)


def _pack(graphs: tuple[Graph, ...], offsets: list[int]) -> bytes:
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    model.operatorCodes = []
    model.subgraphs = []
    codes: dict[str | int, int] = {}
    remaining = iter(offsets)
    for graph in graphs:
        subgraph = schema.SubGraphT()
        subgraph.inputs, subgraph.outputs = list(graph.inputs), list(graph.outputs)
        subgraph.tensors, subgraph.operators = [], []
        for tensor in graph.tensors:
            packed = schema.TensorT()
            packed.name = tensor.name
            packed.shape = list(tensor.shape)
            packed.type = tensor.dtype
            packed.buffer = 0
            if tensor.signature is not None:
                packed.shapeSignature = list(tensor.signature)
            if tensor.data is not None:
                buffer = schema.BufferT()
                buffer.offset, buffer.size = next(remaining), len(tensor.data)
                packed.buffer = len(model.buffers)
                model.buffers.append(buffer)
            subgraph.tensors.append(packed)
        for operator in graph.operators:
            if operator.code not in codes:
                codes[operator.code] = len(model.operatorCodes)
                model.operatorCodes.append(_operator_code(operator.code))
            packed = schema.OperatorT()
            packed.opcodeIndex = codes[operator.code]
            packed.inputs, packed.outputs = operator.inputs, operator.outputs
            if operator.options:
                packed.customOptions = np.frombuffer(operator.options, np.uint8)
            packed.builtinOptions = operator.builtin_options
            packed.builtinOptionsType = operator.builtin_options_type
            subgraph.operators.append(packed)
        model.subgraphs.append(subgraph)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


def _operator_code(code: str | int) -> schema.OperatorCodeT:
    packed = schema.OperatorCodeT()
    packed.version = 1
    if isinstance(code, str):
        packed.customCode = code
        code = schema.BuiltinOperator.CUSTOM
    packed.builtinCode = code
    packed.deprecatedBuiltinCode = min(code, 127)
    return packed


def conv2d_options(
    kernel: tuple[int, int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    activation: str = "NONE",
) -> bytes:
    """The options block of TfrewpruneConv2D; `kernel` = (height, width, channels)."""
    return struct.pack(
        "<16i",
        OPTIONS_MAGIC,
        1,
        0,
        ACTIVATIONS.index(activation),
        *kernel,
        *stride,
        *dilation,
        ("SAME", "VALID").index(padding),
        *[0] * 4,
    )


def fully_connected_options(
    activation: str = "NONE", keep_num_dims: bool = False
) -> bytes:
    """The options block of TfrewpruneFullyConnected."""
    fused = ACTIVATIONS.index(activation)
    return struct.pack(
        "<16i", OPTIONS_MAGIC, 1, 1, fused, *[0] * 7, keep_num_dims, *[0] * 4
    )


def activate(values: np.ndarray, activation: str) -> np.ndarray:
    """TFLite's fused activations on an array."""
    functions = {
        "NONE": lambda v: v,
        "RELU": lambda v: np.maximum(v, 0),
        "RELU_N1_TO_1": lambda v: np.clip(v, -1, 1),
        "RELU6": lambda v: np.clip(v, 0, 6),
        "TANH": np.tanh,
        "SIGN_BIT": lambda v: np.signbit(v).astype(v.dtype),
    }
    return functions[activation](values)


def conv2d(
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | float = 0.0,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    activation: str = "NONE",
) -> np.ndarray:
    """Conv2D in float64 by definition; x NHWC, weights OHWI."""
    x, weights = x.astype(np.float64), weights.astype(np.float64)
    lengths, pads = [], []
    for axis in (0, 1):
        extent = (weights.shape[1 + axis] - 1) * dilation[axis] + 1
        size = x.shape[1 + axis]
        if padding == "SAME":
            length = -(-size // stride[axis])
            total = max((length - 1) * stride[axis] + extent - size, 0)
            pads.append((total // 2, total - total // 2))
        else:
            length = (size - extent) // stride[axis] + 1
            pads.append((0, 0))
        lengths.append(length)
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    y = np.zeros((x.shape[0], *lengths, weights.shape[0]))
    for i in range(weights.shape[1]):
        for j in range(weights.shape[2]):
            top, left = i * dilation[0], j * dilation[1]
            tap = x[
                :,
                top : top + (lengths[0] - 1) * stride[0] + 1 : stride[0],
                left : left + (lengths[1] - 1) * stride[1] + 1 : stride[1],
            ]
            y += tap @ weights[:, i, j].T
    return activate(y + bias, activation)


def sparse_weights(
    rng: np.random.Generator, shape: tuple[int, ...], keep: float = 0.4
) -> np.ndarray:
    """Random weights, rows first, whose columns survive in blocks of up to 16 rows."""
    rows, columns = shape[0], int(np.prod(shape[1:]))
    weights = rng.standard_normal((rows, columns)).astype(np.float32)
    for start in range(0, rows, 16):
        weights[start : start + 16, rng.random(columns) >= keep] = 0
    return weights.reshape(shape)


def conv2d_model(
    weights: np.ndarray,
    input_shape: tuple[int, ...],
    bias: np.ndarray | str | None = None,
    payload: bytes | None = None,
    custom_options: bytes | None = None,
    signature: tuple[int, ...] | None = None,
    band_rows: int | None = None,
    **options,
) -> Graph:
    """One TfrewpruneConv2D. `bias="input"` makes the bias a second model input."""
    if payload is None:
        payload = pack_matrix(weights.reshape(len(weights), -1), band_rows)
    if custom_options is None:
        custom_options = conv2d_options(weights.shape[1:], **options)
    graph = Graph()
    x = graph.tensor("x", input_shape, signature=signature)
    inputs = [x, graph.payload("weights", payload), _bias(graph, bias, weights)]
    y = graph.tensor("y", (1, 1, 1, 1), signature=signature and (-1,) * 4)
    graph.operators = [Operator(CONV_2D, inputs, [y], custom_options)]
    graph.inputs, graph.outputs = [x], [y]
    if isinstance(bias, str):
        graph.inputs.append(inputs[2])
    return graph


def fully_connected_model(
    weights: np.ndarray,
    input_shape: tuple[int, ...],
    bias: np.ndarray | str | None = None,
    payload: bytes | None = None,
    custom_options: bytes | None = None,
    signature: tuple[int, ...] | None = None,
    band_rows: int | None = None,
    **options,
) -> Graph:
    """One TfrewpruneFullyConnected; as `conv2d_model`."""
    if payload is None:
        payload = pack_matrix(weights, band_rows)
    if custom_options is None:
        custom_options = fully_connected_options(**options)
    graph = Graph()
    x = graph.tensor("x", input_shape, signature=signature)
    inputs = [x, graph.payload("weights", payload), _bias(graph, bias, weights)]
    y = graph.tensor("y", (1, 1))
    name = FULLY_CONNECTED
    graph.operators = [Operator(name, inputs, [y], custom_options)]
    graph.inputs, graph.outputs = [x], [y]
    if isinstance(bias, str):
        graph.inputs.append(inputs[2])
    return graph


def _bias(graph: Graph, bias: np.ndarray | str | None, weights: np.ndarray) -> int:
    if bias is None:
        return -1
    if isinstance(bias, str):
        return graph.tensor("bias", (len(weights),))
    return graph.constant("bias", bias)
