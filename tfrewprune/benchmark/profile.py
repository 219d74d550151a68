# SPDX-License-Identifier: Apache-2.0
"""Times every layer of a model by itself, dense and packed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter

from tfrewprune.benchmark.compare import (
    DEFAULT_TOLERANCE,
    check_in_float,
    random_inputs,
    time_pair,
)
from tfrewprune.benchmark.measure import Ratio, Timing
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.converter import unpack
from tfrewprune.converter.detect import DECODERS, find_layers
from tfrewprune.converter.flatbuffer import (
    Model,
    index_list,
    read_model,
    write_model,
)
from tfrewprune.converter.layer import Layer
from tfrewprune.payload.container import VALUE_ALIGNMENT
from tfrewprune.runtime import Interpreter


@dataclass(frozen=True)
class LayerTime:
    """One layer by itself. The model's other layers may leave warmer or colder caches.

    Attributes:
        subgraph: Index of its subgraph.
        operator: Index of its operator in the subgraph.
        name: Name of its output tensor.
        shape: Shape of its weights, `[O, kh, kw, I]` or `[O, K]`.
        packed_in_model: Whether the model holds it packed; if not, `packed` is what
            packing it would give.
        dense: Time in LiteRT's XNNPACK.
        packed: Time in our kernels.
        ratio: How many times faster packed is.
    """

    subgraph: int
    operator: int
    name: str
    shape: tuple[int, ...]
    packed_in_model: bool
    dense: Timing
    packed: Timing
    ratio: Ratio


def time_layers(
    model: bytes,
    *,
    threads: int = 1,
    isa: str | None = None,
    min_seconds: float = 0.2,
    only_packed: bool = False,
) -> Iterator[LayerTime]:
    """Times each layer with a weight matrix, dense and packed in turn.

    Every layer is cut out into a model of its own, so that LiteRT runs it with the
    delegate it would have, but without its neighbours.

    Args:
        model: A packed or a dense `.tflite` model.
        threads: Threads of both.
        isa: Kernels; None is the best of this CPU.
        min_seconds: Time for one layer.
        only_packed: Leave out the layers that the model does not hold packed.

    Yields:
        The figures, in the order of the operators. Layers that cannot be packed are
        left out.

    Raises:
        ConversionError: If the model is damaged.
        WrongResultError: If a packed layer computes something else than LiteRT.
    """
    source = read_model(model)
    dense_source = read_model(unpack(model))
    # One operator stands for one in both models, so their layers come in pairs.
    pairs = zip(_packable(source), _packable(dense_source), strict=True)
    for layer, dense_layer in pairs:
        if only_packed and not layer.packed:
            continue
        cut = [dense_layer.operator]
        if layer.residual is not None:
            cut.append(dense_layer.operator + 1)  # the ADD it took over
        dense = _cut_out(dense_source, layer.subgraph, cut)
        packed = (
            _cut_out(source, layer.subgraph, [layer.operator])
            if layer.packed
            else pack_every_layer(dense)[0]
        )
        baseline = LiteRtInterpreter(model_content=dense, num_threads=threads)
        candidate = Interpreter(model_content=packed, num_threads=threads, isa=isa)
        inputs = random_inputs(baseline)
        checked = check_in_float(dense, packed, inputs, isa=isa)
        measurement, _ = time_pair(
            baseline,
            candidate,
            inputs,
            threads=threads,
            tolerance=DEFAULT_TOLERANCE if checked is None else float("inf"),
            min_seconds=min_seconds,
        )
        yield LayerTime(
            subgraph=layer.subgraph,
            operator=layer.operator,
            name=layer.name,
            shape=dense_layer.weight_shape,
            packed_in_model=layer.packed,
            dense=measurement.timing("dense"),
            packed=measurement.timing("packed"),
            ratio=measurement.ratio("dense", "packed"),
        )


def _packable(model: Model) -> list[Layer]:
    # A matrix of a recurrent layer is no operator of its own.
    return [
        layer
        for layer in find_layers(model)
        if layer.reason is None and not layer.recurrent
    ]


def _with_decoders(
    model: Model, subgraph: schema.SubGraphT, numbers: list[int]
) -> list[int]:
    """The operators with those before them that decode their constants."""
    writers = {
        index: number
        for number, operator in enumerate(subgraph.operators)
        if model.builtin_code(operator) in DECODERS
        for index in index_list(operator.outputs)
    }
    found, waiting = set(numbers), list(numbers)
    while waiting:
        for index in index_list(subgraph.operators[waiting.pop()].inputs):
            number = writers.get(index)
            if number is not None and number not in found:
                found.add(number)
                waiting.append(number)
    return sorted(found)


def _cut_out(model: Model, subgraph_index: int, numbers: list[int]) -> bytes:
    """A model that holds a few operators of another, their constants included."""
    subgraph = model.subgraphs[subgraph_index]
    numbers = _with_decoders(model, subgraph, numbers)
    operators = [subgraph.operators[number] for number in numbers]
    computed = {
        index for operator in operators for index in index_list(operator.outputs)
    }
    tensors, buffers, places = [], [schema.BufferT()], {-1: -1}
    graph_inputs = []
    used = (
        index
        for operator in operators
        for vector in (operator.inputs, operator.outputs)
        for index in index_list(vector)
    )
    for index in used:
        if index in places:
            continue
        tensor = _copy(subgraph.tensors[index])
        tensor.shapeSignature = None  # it is timed at the size that is stored
        data = model.data(tensor)
        if data is not None:
            tensor.buffer = len(buffers)
            buffers.append(_copy(model.tree.buffers[subgraph.tensors[index].buffer]))
        else:
            tensor.buffer = 0
            if index not in computed:
                graph_inputs.append(len(tensors))
        places[index] = len(tensors)
        tensors.append(tensor)
    cut = []
    for code, operator in enumerate(operators):
        cut.append(_copy(operator))
        cut[-1].opcodeIndex = code
        for name in ("inputs", "outputs"):
            indices = [places[i] for i in index_list(getattr(operator, name))]
            setattr(cut[-1], name, np.array(indices, np.int32))
    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.operators = b"layer", tensors, cut
    graph.inputs = np.array(graph_inputs, np.int32)
    graph.outputs = cut[-1].outputs
    tree = schema.ModelT()
    tree.version = model.tree.version
    codes = model.tree.operatorCodes
    tree.operatorCodes = [codes[operator.opcodeIndex] for operator in operators]
    tree.subgraphs, tree.buffers = [graph], buffers
    alignment = dict.fromkeys(range(1, len(buffers)), VALUE_ALIGNMENT)
    return write_model(replace(model, tree=tree, archive=b"", alignment=alignment))


def _copy(node):
    """A shallow copy of a flatbuffer object."""
    made = type(node)()
    made.__dict__.update(node.__dict__)
    return made
