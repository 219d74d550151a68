# SPDX-License-Identifier: Apache-2.0
"""A `.tflite` model as a network: LiteRT runs it up to the layer that is looked at."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tfrewprune.calibration.columns import Geometry
from tfrewprune.calibration.network import Network, Site
from tfrewprune.converter.densify import (
    FLOAT_TYPES,
    SparseForm,
    read_weights,
    write_weights,
)
from tfrewprune.converter.detect import DECODERS, find_layers
from tfrewprune.converter.flatbuffer import (
    Model,
    index_list,
    read_model,
    tensor_shape,
    write_model,
)
from tfrewprune.converter.layer import Layer
from tfrewprune.converter.options import ConvOptions
from tfrewprune.structures import KernelShape, kernel_from_matrix, matrix_from_kernel

#: Inputs that run through the model at a time, where it can be resized.
BATCH = 64


class TFLiteNetwork(Network):
    """The float convolutions and dense layers of a `.tflite` model.

    Args:
        content: The file.
        data: Input arrays, one input of the model each, in the file's order.

    Attributes:
        layers: Every operator with weights, in execution order.
        reasons: Why a layer cannot be measured, by its place in `layers`.

    Raises:
        ConversionError: The file is damaged.
        ValueError: LiteRT cannot run it.
    """

    def __init__(self, content: bytes, data: list[np.ndarray]):
        self.model = read_model(content)
        self.layers = find_layers(self.model)
        self.reasons = why_not_measured(self.model, self.layers)
        self.sites: list[Site] = []
        self._kernels: dict[int, np.ndarray] = {}
        for number, layer in enumerate(self.layers):
            if number in self.reasons:
                continue
            self._own_constants(layer)
            stored = self._stored(layer)
            positions = int(np.prod(layer.weight_shape[1:-1], dtype=np.int64))
            matrix = read_weights(self.model, stored).reshape(layer.weight_shape[0], -1)
            kernel = kernel_from_matrix(matrix, positions)
            self._kernels[number] = np.array(kernel)
            shape = KernelShape(*kernel.shape)
            self.sites.append(Site(layer.name, shape, _geometry(layer), True, number))
        self._batch = self._largest_batch(data) if self.sites else BATCH

    def batches(self, data: list[np.ndarray]) -> int:
        return -(-len(data[0]) // self._batch)

    def activations(self, site: Site, data: list[np.ndarray]) -> Iterator[np.ndarray]:
        layer = self.layers[site.key]
        operator = self.model.subgraphs[0].operators[layer.operator]
        wanted = int(operator.inputs[0])
        given = index_list(self.model.subgraphs[0].inputs)
        if wanted in given:
            array = data[given.index(wanted)]
            starts = range(0, len(array), self._batch)
            runs = ([array[start : start + self._batch]] for start in starts)
        else:
            runs = self._run(data, [wanted], layer.operator)
        for (seen,) in runs:
            if not site.geometry.kernel:
                seen = seen.reshape(-1, site.shape.columns)
            yield seen

    def outputs(self, data: list[np.ndarray]) -> list[np.ndarray]:
        graph = self.model.subgraphs[0]
        parts = list(self._run(data, index_list(graph.outputs), len(graph.operators)))
        columns = zip(*parts, strict=True)
        return [np.concatenate(part).astype(np.float32) for part in columns]

    def kernel(self, site: Site) -> np.ndarray:
        return self._kernels[site.key]

    def assign(self, site: Site, kernel: np.ndarray, shift: np.ndarray | None) -> None:
        layer = self.layers[site.key]
        stored = self._stored(layer)
        form = None
        if stored.sparsity is not None:
            form = SparseForm.of(stored.sparsity)
        weights = matrix_from_kernel(kernel).reshape(layer.weight_shape)
        data = write_weights(stored, weights, form)
        self.model.tree.buffers[stored.buffer] = schema.BufferT(data=data)
        self._kernels[site.key] = read_weights(self.model, stored).reshape(
            site.shape.outputs, -1
        )
        self._kernels[site.key] = np.array(
            kernel_from_matrix(self._kernels[site.key], site.shape.positions)
        )
        bias = self._bias(layer)
        before = read_weights(self.model, bias).astype(np.float64).reshape(-1)
        after = (before + shift).astype(np.float32)
        self.model.tree.buffers[bias.buffer] = schema.BufferT(data=after.view(np.uint8))

    def state(self) -> tuple:
        return list(self.model.tree.buffers), dict(self._kernels)

    def restore(self, state: tuple) -> None:
        buffers, kernels = state
        self.model.tree.buffers = list(buffers)
        self._kernels = dict(kernels)

    def content(self) -> bytes:
        """The model as it is now, as a `.tflite` file."""
        return write_model(self.model)

    def _stored(self, layer: Layer) -> schema.TensorT:
        return self.model.subgraphs[0].tensors[layer.source.tensor]

    def _bias(self, layer: Layer) -> schema.TensorT:
        operator = self.model.subgraphs[0].operators[layer.operator]
        return self.model.subgraphs[0].tensors[int(operator.inputs[2])]

    def _own_constants(self, layer: Layer) -> None:
        """Gives a layer a float32 bias and buffers that nothing else shares.

        Converters merge equal constants, so that layers may share a bias of zeros; and
        in files of float16 biases are decoded.
        """
        graph = self.model.subgraphs[0]
        operator = graph.operators[layer.operator]
        stored = self._stored(layer)
        stored.buffer = self._copy_of(stored.buffer)
        inputs = index_list(operator.inputs)
        if len(inputs) > 2 and inputs[2] >= 0:
            values = _constant(self.model, inputs[2])
        else:
            values = np.zeros(layer.weight_shape[0], np.float32)
        data = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)
        self.model.tree.buffers.append(schema.BufferT(data=data))
        graph.tensors.append(
            schema.TensorT(
                shape=np.array([layer.weight_shape[0]], np.int32),
                type=schema.TensorType.FLOAT32,
                buffer=len(self.model.tree.buffers) - 1,
                name=f"{layer.name}/bias".encode(),
            )
        )
        operator.inputs = np.array([*inputs[:2], len(graph.tensors) - 1], np.int32)

    def _copy_of(self, buffer: int) -> int:
        buffers = self.model.tree.buffers
        users = sum(
            tensor.buffer == buffer
            for graph in self.model.subgraphs
            for tensor in graph.tensors
        )
        if users < 2:
            return buffer
        buffers.append(schema.BufferT(data=buffers[buffer].data))
        return len(buffers) - 1

    def _run(
        self, data: list[np.ndarray], wanted: list[int], operators: int
    ) -> Iterator[list[np.ndarray]]:
        """The tensors wanted, batch by batch; the first `operators` run."""
        interpreter = Interpreter(
            model_content=self._head(wanted, operators), num_threads=2
        )
        details = interpreter.get_input_details()
        ready = None
        for start in range(0, len(data[0]), self._batch):
            parts = [array[start : start + self._batch] for array in data]
            if len(parts[0]) != ready:
                ready = len(parts[0])
                for detail, part in zip(details, parts, strict=True):
                    interpreter.resize_tensor_input(detail["index"], part.shape)
                interpreter.allocate_tensors()
            interpreter.reset_all_variables()
            for detail, part in zip(details, parts, strict=True):
                interpreter.set_tensor(detail["index"], part.astype(detail["dtype"]))
            try:
                interpreter.invoke()
            except RuntimeError as error:  # such as numbers that a table has no row for
                given = (f"{a.dtype} from {a.min():g} to {a.max():g}" for a in data)
                raise ValueError(
                    "LiteRT cannot run the model on the calibration data: "
                    f"{str(error).rstrip('. ')}. Received: {', '.join(given)}"
                ) from error
            yield [
                interpreter.get_tensor(detail["index"])
                for detail in interpreter.get_output_details()
            ]

    def _head(self, wanted: list[int], operators: int) -> bytes:
        """The model up to an operator, with other outputs."""
        tree = copy.copy(self.model.tree)
        graph = copy.copy(tree.subgraphs[0])
        graph.operators = graph.operators[:operators]
        graph.outputs = np.array(wanted, np.int32)
        tree.subgraphs = [graph, *tree.subgraphs[1:]]
        tree.signatureDefs = None
        tree.metadata = tree.metadataBuffer = None
        return write_model(dataclasses.replace(self.model, tree=tree, archive=b""))

    def _largest_batch(self, data: list[np.ndarray]) -> int:
        """`BATCH`, if the model gives the same for inputs together as one by one.

        Some files reshape to a batch that is written into them.
        """
        fixed = {
            tensor_shape(self.model.subgraphs[0].tensors[index])[:1]
            for index in index_list(self.model.subgraphs[0].inputs)
        }
        alone = max((shape[0] for shape in fixed if shape), default=1) or 1
        few = [array[: 2 * alone] for array in data]
        if len(few[0]) < 2 * alone:
            return alone
        self._batch = alone
        try:
            one_by_one = self.outputs(few)
        except RuntimeError as error:
            raise ValueError(f"LiteRT cannot run the model: {error}") from error
        self._batch = 2 * alone
        try:
            together = self.outputs(few)
        except (RuntimeError, ValueError):
            return alone
        same = all(
            a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4)
            for a, b in zip(one_by_one, together, strict=True)
        )
        return BATCH if same else alone


def why_not_measured(model: Model, layers: list[Layer]) -> dict[int, str]:
    """Why layers cannot be measured and written, by their place in `layers`."""
    readers = Counter(
        (place, index)
        for place, graph in enumerate(model.subgraphs)
        for operator in graph.operators
        for index in index_list(operator.inputs)
    )
    reasons = {n: _reason(model, layer, readers) for n, layer in enumerate(layers)}
    return {number: why for number, why in reasons.items() if why is not None}


def _geometry(layer: Layer) -> Geometry:
    conv = layer.options
    if not isinstance(conv, ConvOptions):
        return Geometry()
    return Geometry(
        (conv.kernel_height, conv.kernel_width),
        (conv.stride_height, conv.stride_width),
        (conv.dilation_height, conv.dilation_width),
        ("same", "valid")[conv.padding],
    )


def _constant(model: Model, tensor: int) -> np.ndarray | None:
    """A float constant of the first subgraph, decoded; None if it is computed."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if tensor in index_list(operator.outputs):
            if model.builtin_code(operator) not in DECODERS:
                return None
            return _constant(model, int(operator.inputs[0]))
    stored = graph.tensors[tensor]
    if model.data(stored) is None or stored.type not in FLOAT_TYPES:
        return None
    return read_weights(model, stored)


def _reason(model: Model, layer: Layer, readers: Counter) -> str | None:
    """Why a layer cannot be measured and written; None if it can."""
    if layer.packed:
        return "packed already; `unpack` gives the dense model back"
    if layer.reason is not None:
        return layer.reason
    stored = model.subgraphs[layer.subgraph].tensors[layer.source.tensor]
    if stored.type not in FLOAT_TYPES:
        return "its weights are integers: prune the float model, then quantize"
    if layer.subgraph != 0:
        return "inside a loop or branch: it is not calibrated"
    if readers[layer.subgraph, layer.weight] > 1:
        return "another operator reads its weights too"
    if layer.source.decoders and readers[layer.subgraph, layer.source.tensor] > 1:
        return "another operator reads its weights too"
    inputs = index_list(model.subgraphs[0].operators[layer.operator].inputs)
    if len(inputs) > 2 and inputs[2] >= 0 and _constant(model, inputs[2]) is None:
        return "its bias is computed, not constant"
    return None
