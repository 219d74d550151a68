# SPDX-License-Identifier: Apache-2.0
"""Single-layer `.tflite` models with pruned random weights, without TensorFlow."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

SHAPE_FILES = ("goals", "resnet50", "vgg16", "mobilenet_v2", "gemv")


@dataclass(frozen=True)
class Layer:
    """The geometry of one convolution or fully connected layer.

    Attributes:
        name: How rows of the table are called.
        height: Input height; 1 for fully connected.
        width: Input width; the batch size for fully connected.
        inputs: Input channels.
        outputs: Output channels.
        kernel: Kernel height and width; (0, 0) marks fully connected.
        stride: Stride both ways.
        dilation: Dilation both ways.
        batch: Images of a convolution.
        same: SAME padding of a convolution; else VALID.
    """

    name: str
    height: int
    width: int
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (0, 0)
    stride: int = 1
    dilation: int = 1
    batch: int = 1
    same: bool = True

    @property
    def is_dense(self) -> bool:
        return self.kernel == (0, 0)

    @property
    def columns(self) -> int:
        """Columns of the GEMM matrix: kernel height x kernel width x inputs."""
        return max(1, self.kernel[0] * self.kernel[1]) * self.inputs

    @property
    def input_shape(self) -> tuple[int, ...]:
        if self.is_dense:
            return (self.width, self.inputs)
        return (self.batch, self.height, self.width, self.inputs)

    @property
    def pixels(self) -> int:
        """Output pixels of all images, or the batch of a fully connected layer."""
        return int(np.prod(self.output_shape[:-1]))

    @property
    def output_shape(self) -> tuple[int, ...]:
        if self.is_dense:
            return (self.width, self.outputs)
        height = self._output_size(self.height, self.kernel[0])
        width = self._output_size(self.width, self.kernel[1])
        return (self.batch, height, width, self.outputs)

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense layer; those with padding are no work."""
        return int(self.tap_pixels.sum()) * self.inputs * self.outputs

    @property
    def tap_pixels(self) -> np.ndarray:
        """For each kernel position how many output pixels it meets inside an image.

        int64 `[kernel height, kernel width]`; `[[batch]]` for fully connected.
        """
        if self.is_dense:
            return np.array([[self.width]])
        rows = self._tap_counts(self.height, self.kernel[0])
        columns = self._tap_counts(self.width, self.kernel[1])
        return self.batch * np.outer(rows, columns)

    def _output_size(self, size: int, taps: int) -> int:
        if not self.same:
            size = max(0, size - (taps - 1) * self.dilation)
        return -(-size // self.stride)

    def _tap_counts(self, size: int, taps: int) -> np.ndarray:
        count = self._output_size(size, taps)
        reach = (taps - 1) * self.dilation + 1
        before = max((count - 1) * self.stride + reach - size, 0) // 2
        starts = np.arange(count)[:, None] * self.stride - before
        places = starts + np.arange(taps) * self.dilation
        return ((places >= 0) & (places < size)).sum(axis=0)


_CONV = re.compile(
    r"(?P<name>\S+)\s+conv\s+(?P<h>\d+)x(?P<w>\d+)\s+(?P<i>\d+)\s*->\s*(?P<o>\d+)"
    r"\s+k(?P<kh>\d+)x(?P<kw>\d+)(?:\s+s(?P<s>\d+))?(?:\s+d(?P<d>\d+))?"
)
_DENSE = re.compile(
    r"(?P<name>\S+)\s+fc\s+(?P<i>\d+)\s*->\s*(?P<o>\d+)(?:\s+batch(?P<b>\d+))?"
)


def parse_layers(text: str, *, where: str = "the shapes") -> list[Layer]:
    """Reads layers from text, one a line, `#` starting a comment.

    Lines look like `name conv 56x56 64->64 k3x3 s1 d1` (stride and dilation may be
    left out) or `name fc 1024->1024 batch1`.

    Raises:
        ValueError: If a line is neither; it names the line.
    """
    layers = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        if match := _CONV.fullmatch(line):
            size = {k: int(v) for k, v in match.groupdict("1").items() if k != "name"}
            layers.append(
                Layer(
                    name=match["name"],
                    height=size["h"],
                    width=size["w"],
                    inputs=size["i"],
                    outputs=size["o"],
                    kernel=(size["kh"], size["kw"]),
                    stride=size["s"],
                    dilation=size["d"],
                )
            )
        elif match := _DENSE.fullmatch(line):
            layers.append(
                Layer(
                    match["name"], 1, int(match["b"] or 1), int(match["i"]),
                    int(match["o"]),
                )
            )  # fmt: skip
        else:
            raise ValueError(
                f"Line {number} of {where} must be `name conv HxW IN->OUT kHxW [sN] "
                f"[dN]` or `name fc IN->OUT [batchN]`. Received: {line!r}"
            )
        if min(layers[-1].pixels, layers[-1].columns, layers[-1].outputs) < 1:
            raise ValueError(f"Line {number} of {where} has a size of 0: {line!r}")
    return layers


def load_layers(name: str) -> list[Layer]:
    """Reads one of the files in `shapes/` (by name) or any other file (by path).

    Raises:
        ValueError: If there is no such list.
    """
    if name in SHAPE_FILES:
        folder = resources.files("tfrewprune.benchmark").joinpath("shapes")
        text = folder.joinpath(f"{name}.txt").read_text("utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text("utf-8")
    else:
        raise ValueError(
            f"Invalid list of shapes. Expected one of {SHAPE_FILES} or a file. "
            f"Received: {name!r}"
        )
    return parse_layers(text, where=name)


def build_model(layer: Layer, weights: np.ndarray, bias: np.ndarray) -> bytes:
    """Writes a dense single-layer `.tflite` model.

    Args:
        layer: The geometry.
        weights: GEMM matrix `[outputs, columns]`, float32, columns in OHWI order.
        bias: `[outputs]`, float32.

    Returns:
        The bytes of the model.

    Raises:
        ValueError: If a shape does not match the layer.
    """
    if weights.shape != (layer.outputs, layer.columns):
        raise ValueError(
            f"Argument `weights` must have shape {(layer.outputs, layer.columns)} for "
            f"layer {layer.name}. Received: {weights.shape}"
        )
    if bias.shape != (layer.outputs,):
        raise ValueError(
            f"Argument `bias` must have shape {(layer.outputs,)} for layer "
            f"{layer.name}. Received: {bias.shape}"
        )
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    if layer.is_dense:
        code = schema.BuiltinOperator.FULLY_CONNECTED
        weight_shape: Iterable[int] = weights.shape
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT()
    else:
        code = schema.BuiltinOperator.CONV_2D
        weight_shape = (layer.outputs, *layer.kernel, layer.inputs)
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.SAME if layer.same else schema.Padding.VALID
        options.strideH = options.strideW = layer.stride
        options.dilationHFactor = options.dilationWFactor = layer.dilation
        operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
        operator.builtinOptions = options
    subgraph = schema.SubGraphT()
    subgraph.name = b"main"
    subgraph.tensors = [
        _tensor(b"input", layer.input_shape, buffer=0),
        _tensor(b"weights", weight_shape, buffer=1),
        _tensor(b"bias", bias.shape, buffer=2),
        _tensor(b"output", layer.output_shape, buffer=0),
    ]
    subgraph.inputs, subgraph.outputs = [0], [3]
    subgraph.operators = [operator]
    model = schema.ModelT()
    model.version = 3
    model.description = b"tfrewprune benchmark layer"
    model.operatorCodes = [schema.OperatorCodeT(code, None, 1, code)]
    model.subgraphs = [subgraph]
    model.buffers = [_buffer(None), _buffer(weights), _buffer(bias)]
    builder = flatbuffers.Builder(weights.nbytes + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: bytes, shape: Iterable[int], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, list(shape), buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor


def _buffer(values: np.ndarray | None) -> schema.BufferT:
    buffer = schema.BufferT()
    if values is not None:
        values = np.ascontiguousarray(values, np.float32)
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    return buffer
