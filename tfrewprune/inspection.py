# SPDX-License-Identifier: Apache-2.0
"""Describes the layers of a `.tflite` model, dense or packed, as data."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.cases import entries
from tfrewprune.converter.conversion import read_content
from tfrewprune.converter.densify import FLOAT_TYPES, read_weights
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    NUMPY_TYPES,
    Model,
    read_model,
    tensor_shape,
    tensor_signature,
)
from tfrewprune.converter.hosts import RUNS_IN, read_hosts
from tfrewprune.converter.layer import Layer, weight_buffers
from tfrewprune.converter.open_sizes import check_size, sized_shape
from tfrewprune.converter.options import BUILTIN_NAMES
from tfrewprune.converter.plan import Cache, Settings, decide, layer_shape
from tfrewprune.converter.reasons import SkipReason
from tfrewprune.converter.sized import Shapes, at_one_size
from tfrewprune.converter.sources import recall
from tfrewprune.converter.unpack import dense_shape, read_payload
from tfrewprune.payload.cost import LayerShape, default_cost_model
from tfrewprune.payload.reading import predict_payload
from tfrewprune.structures import (
    Block,
    Channel,
    Column,
    Filter,
    Structure,
    Unstructured,
)
from tfrewprune.structures.layout import KernelShape

# A structure fits when at least this share of the groups it keeps is not 0.
_FITS = 0.95


@dataclass(frozen=True)
class LayerRecord:
    """One operator with weights.

    Attributes:
        subgraph: Index of its subgraph.
        operator: Index of its operator in the subgraph.
        name: Its name, from the output tensor.
        op: TFLite's operator, such as `CONV_2D`; also for packed layers the operator
            they were.
        shape: Weights as TFLite stores them, such as `[O, kh, kw, I]` or `[O, K]`; of
            several matrices the largest.
        weights: Number of weights, of all matrices.
        kept: Weights other than 0; None when they cannot be read.
        sparsity: Share of weights that are 0; None as above.
        structure: The coarsest structure that the zeros follow, such as
            `Block(16, 1)`; None without zeros, and for operators that are
            never packed.
        bytes_dense: Bytes of the weights stored densely, in the type that the file
            has, or had before it was packed; None for types of less than a byte.
        bytes_packed: Bytes of the payload, in the file or as it would be; None when
            the layer cannot be packed.
        macs: Multiply-adds of the dense layer, for a batch of one where the batch is
            unknown; None when another dimension is unknown.
        packed: Whether the layer is packed in this file.
        adds: Whether the packed layer took over the ADD behind it.
        shares: Name of the operator before that reads the very same weights, as of a
            layer that is called several times; the file has their bytes once. None
            for weights of its own.
        skip: Why `convert` leaves it dense; None when it is or would be packed.
        reason: The same as a sentence that tells what was found.
        predicted_dense_us: Predicted microseconds of the dense layer on one thread.
        predicted_packed_us: Predicted microseconds of the packed layer.
    """

    subgraph: int
    operator: int
    name: str
    op: str
    shape: tuple[int, ...]
    weights: int
    kept: int | None = None
    sparsity: float | None = None
    structure: str | None = None
    bytes_dense: int | None = None
    bytes_packed: int | None = None
    macs: int | None = None
    packed: bool = False
    adds: bool = False
    shares: str | None = None
    skip: SkipReason | None = None
    reason: str | None = None
    predicted_dense_us: float | None = None
    predicted_packed_us: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the record as a dict that `json.dumps` takes."""
        return asdict(self) | {
            "shape": list(self.shape),
            "skip": self.skip and self.skip.name,
        }


def inspect_model(
    tflite: bytes | str | os.PathLike[str],
    minimum_gain: float = 1.0,
    *,
    size: tuple[int, int] | None = None,
) -> list[LayerRecord]:
    """Describes every operator of a model that has weights.

    Args:
        tflite: A `.tflite` model, dense or converted, as bytes or as a path.
        minimum_gain: As for `tfrewprune.convert`; it decides which layers of a dense
            model would be packed.
        size: Height and width that times are predicted for, where both are open. None
            assumes what `tfrewprune.convert` does, which is 32 x 32 if that runs.

    Returns:
        One record an operator, in execution order, packed or not. Those that cannot be
        read or packed carry the reason.

    Raises:
        ConversionError: If the file is no valid `.tflite` model.
        OSError: If the file cannot be read.

    Example:
        >>> for layer in trp.inspect_model("model.tflite"):  # doctest: +SKIP
        ...     print(layer.name, layer.sparsity, layer.reason or "packed")
    """
    content, _ = at_size(read_content(tflite, may_export=False), size)
    model = read_model(content)
    return describe_layers(model, find_layers(model), minimum_gain)


def check_sizes_known(content: bytes) -> None:
    """Raises a ValueError if height and width of an input are open."""
    entry = entries(read_model(content))[0]
    for name, signature in zip(entry.names, entry.shapes, strict=True):
        sized_shape(name, signature, signature, 1, None)


def at_size(
    content: bytes, size: tuple[int, int] | None
) -> tuple[bytes, Shapes | None]:
    """As `at_one_size`, with a size for what is height and width.

    Raises:
        ConversionError: If the model is damaged.
        ValueError: If it has no open height and width, or LiteRT does not run the size.
    """
    if size is None:
        return at_one_size(content)
    entry = entries(read_model(content))[0]
    check_size(size, entry.shapes)
    pairs = zip(entry.names, entry.shapes, entry.shapes_at(1), strict=True)
    shapes = [sized_shape(name, open_, one, 1, size) for name, open_, one in pairs]
    sized, found = at_one_size(content, shapes)
    if found is None:
        raise ValueError(f"LiteRT does not run the model on inputs of shape {shapes}")
    return sized, found


def describe_layers(
    model: Model, layers: Iterable[Layer], minimum_gain: float = 1.0
) -> list[LayerRecord]:
    """As `inspect_model`, of a model that is read already.

    Args:
        model: The model.
        layers: Layers of it, as `find_layers` returned them.
        minimum_gain: As in `inspect_model`.
    """
    settings = Settings(minimum_gain)
    cache: Cache = {}
    records = []
    names: dict[tuple[int, ...], str] = {}
    for layer in layers:
        record = (
            _packed_record(model, layer)
            if layer.packed
            else _dense_record(model, layer, settings, cache)
        )
        place = weight_buffers(model, layer)
        records.append(_with(record, shares=names.get(place)))
        if place:
            names.setdefault(place, layer.name)
    return records


def mac_rate(records: Iterable[LayerRecord]) -> float:
    """Multiplications of all layers whose weights are known, dense over surviving."""
    known = [r for r in records if r.macs is not None and r.kept is not None]
    kept = sum(record.macs * record.kept / record.weights for record in known)
    return sum(record.macs for record in known) / kept


def runs_in(tflite: bytes | str | os.PathLike[str]) -> dict[str, str]:
    """Returns the hosts that run a packed model, and by what they do.

    Args:
        tflite: A `.tflite` model as bytes or as a path.

    Returns:
        What the file says of itself, with what a host needs where this version knows
        it. Nothing for a dense model, which every TFLite runs.

    Raises:
        ConversionError: If the file is damaged.
        OSError: If it cannot be read.

    Example:
        >>> list(runs_in("packed.tflite"))[1]  # doctest: +SKIP
        'LiteRT CompiledModel >= 2.1.6'
    """
    return hosts_of(read_model(read_content(tflite, may_export=False)))


def hosts_of(model: Model) -> dict[str, str]:
    """As `runs_in`, of a model that is read already."""
    return {host: RUNS_IN.get(host, "") for host in read_hosts(model)}


def _dense_record(
    model: Model, layer: Layer, settings: Settings, cache: Cache
) -> LayerRecord:
    tensors = model.subgraphs[layer.subgraph].tensors
    weights = [tensors[source.tensor] for source in layer.sources]
    if not weights and layer.weight >= 0:
        weights = [tensors[layer.weight]]
    counts = [_count(tensor_shape(tensor)) for tensor in weights]
    sizes = [_item_bytes(tensor) for tensor in weights]
    start = LayerRecord(
        *(layer.subgraph, layer.operator, layer.name, layer.op, layer.weight_shape),
        weights=sum(counts),
        bytes_dense=None
        if None in sizes
        else sum(np.multiply(counts, sizes, dtype=np.int64).tolist()),
    )
    try:
        decision = decide(model, layer, settings, cache)
        if decision.packing is None:
            return _with(
                start,
                skip=decision.skip,
                reason=decision.reason,
                **_zeros(model, layer),
            )
    except ConversionError as error:
        return _with(start, skip=SkipReason.DAMAGED, reason=str(error))
    tensor = tensors[layer.source.tensor]
    matrix = read_weights(model, tensor).reshape(layer.weight_shape[0], -1)
    return _with(
        start,
        **_figures(model, layer, decision.shape, matrix),
        predicted_dense_us=decision.dense_us,
        bytes_packed=decision.packing.payload_bytes,
        skip=decision.skip,
        reason=decision.reason,
        predicted_packed_us=decision.packed_us,
    )


def _packed_record(model: Model, layer: Layer) -> LayerRecord:
    op = BUILTIN_NAMES[layer.op]
    start = LayerRecord(
        *(layer.subgraph, layer.operator, layer.name, op, ()),
        weights=0,
        packed=True,
        adds=layer.residual is not None,
    )
    if layer.reason is not None:
        return _with(start, skip=SkipReason.DAMAGED, reason=layer.reason)
    payload = model.data(model.subgraphs[layer.subgraph].tensors[layer.weight])
    try:
        matrix = read_payload(model, layer)
        stored = dense_shape(layer, matrix)
    except ConversionError as error:
        return _with(start, skip=SkipReason.DAMAGED, reason=str(error))
    shape = layer_shape(model, layer, stored)
    return _with(
        start,
        shape=stored,
        weights=matrix.size,
        bytes_dense=matrix.size * _stored_size(model, layer),
        bytes_packed=len(payload),
        predicted_dense_us=default_cost_model().dense(
            shape, _was_dynamic_range(model, layer)
        ),
        predicted_packed_us=predict_payload(payload, shape),
        **_figures(model, layer, shape, matrix),
    )


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _zeros(model: Model, layer: Layer) -> dict[str, Any]:
    """How many weights are not 0, where all are floats."""
    tensors = model.subgraphs[layer.subgraph].tensors
    kept = count = 0
    for source in layer.sources:
        tensor = tensors[source.tensor]
        if tensor.type not in FLOAT_TYPES:
            return {}
        weights = read_weights(model, tensor)
        kept += int(np.count_nonzero(weights))
        count += weights.size
    return {"kept": kept, "sparsity": 1 - kept / count} if count else {}


def _stored_size(model: Model, layer: Layer) -> int:
    """Bytes of one weight of a packed layer as it was before."""
    source = recall(model).get((layer.subgraph, layer.weight))
    if source is None:
        return 4
    tensors = model.subgraphs[layer.subgraph].tensors
    return _item_bytes(tensors[source.constant]) or 4


def _item_bytes(tensor: schema.TensorT) -> int | None:
    stored = NUMPY_TYPES.get(tensor.type)
    return None if stored is None else stored.itemsize


def _was_dynamic_range(model: Model, layer: Layer) -> bool:
    source = recall(model).get((layer.subgraph, layer.weight))
    return source is not None and source.weights is not None


def _with(record: LayerRecord, **fields: Any) -> LayerRecord:
    return LayerRecord(**{**record.__dict__, **fields})


def _figures(
    model: Model, layer: Layer, shape: LayerShape, matrix: np.ndarray
) -> dict[str, Any]:
    kept = int(np.count_nonzero(matrix))
    structure = None
    if kept < matrix.size:
        structure = str(detect_structure(matrix, shape.taps))
    subgraph = model.subgraphs[layer.subgraph]
    output = int(subgraph.operators[layer.operator].outputs[0])
    known = min(tensor_signature(subgraph.tensors[output])[1:], default=1) >= 0
    return {
        "kept": kept,
        "sparsity": 1 - kept / matrix.size,
        "structure": structure,
        "macs": matrix.size * shape.pixels if known else None,
    }


def detect_structure(matrix: np.ndarray, taps: int = 1) -> Structure:
    """Returns the coarsest structure that the zeros of a weight matrix follow.

    A structure fits when nearly all weights in the groups it keeps are not 0.

    Args:
        matrix: Weights ``[O, K]``, columns in (kh, kw, cin) order.
        taps: Kernel height x kernel width.

    Returns:
        `Filter`, `Channel`, `Column`, `Block` with rows and columns that are powers of
        two, or `Unstructured`.

    Example:
        >>> print(detect_structure(np.repeat(np.eye(4, 9), 16, axis=0)))
        Block(16, 1)
    """
    rows, columns = matrix.shape
    shape = KernelShape(taps, columns // taps, rows)
    kept = (matrix != 0).T.astype(np.float32).reshape(shape)
    total = float(kept.sum())

    def fits(structure: Structure) -> bool:
        survives = structure.sums(kept, shape) > 0
        size = structure.kept(survives, shape)
        return total >= _FITS * size

    for structure in (Filter(), Channel(), Column()):
        if fits(structure):
            return structure
    best = Block(1, 1)
    # A block that fits is cut into halves that fit too: grow as long as it fits.
    while 2 * best.rows <= rows and fits(Block(2 * best.rows, 1)):
        best = Block(2 * best.rows, 1)
    while 2 * best.columns <= columns and fits(Block(best.rows, 2 * best.columns)):
        best = Block(best.rows, 2 * best.columns)
    return best if best.rows * best.columns > 1 else Unstructured()
