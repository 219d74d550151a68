# SPDX-License-Identifier: Apache-2.0
"""Reads and writes constant weights, also in TFLite's sparse encoding.

TFLite stores a sparse tensor as in TACO: dimensions are visited in
``traversal_order``, the last ones of it may be blocks (``block_map``), and every level
is either dense or CSR-like (segments and indices). See ``SparsityParameters`` in
``schema.fbs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import (
    NUMPY_TYPES,
    Model,
    index_list,
    tensor_shape,
    text,
)
from tfrewprune.payload.values import INT8, ValueForm, loaded

_TYPE = schema.TensorType
FLOAT_TYPES = {code: NUMPY_TYPES[code] for code in (_TYPE.FLOAT32, _TYPE.FLOAT16)}
WEIGHT_TYPES = FLOAT_TYPES | {_TYPE.INT8: NUMPY_TYPES[_TYPE.INT8]}
_CSR = schema.DimensionType.SPARSE_CSR
_VECTOR = schema.SparseIndexVector
_VECTORS = {
    _VECTOR.Uint8Vector: (schema.Uint8VectorT, np.uint8),
    _VECTOR.Uint16Vector: (schema.Uint16VectorT, np.uint16),
    _VECTOR.Int32Vector: (schema.Int32VectorT, np.int32),
}


@dataclass(frozen=True)
class SparseForm:
    """How a sparse tensor is cut into levels, without what it holds.

    Attributes:
        order: Dimension of each level; blocks are numbered behind the dimensions.
        blocks: Dimension that each block cuts.
        levels: (format, size of a dense level, `SparseIndexVector` of its segments and
            of its indices) of each level.
    """

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: tuple[tuple[int, int, int, int], ...]

    @classmethod
    def of(cls, sparsity: schema.SparsityParametersT) -> SparseForm:
        levels = (
            (k.format, k.denseSize, k.arraySegmentsType, k.arrayIndicesType)
            for k in sparsity.dimMetadata
        )
        return cls(
            tuple(index_list(sparsity.traversalOrder)),
            tuple(index_list(sparsity.blockMap)),
            tuple(tuple(int(value) for value in level) for level in levels),
        )

    @classmethod
    def parse(cls, form: dict[str, Any]) -> SparseForm:
        """The form of its own dict, which may come out of a damaged file."""
        made = cls(
            tuple(map(int, form["order"])),
            tuple(map(int, form["blocks"])),
            tuple(tuple(map(int, level)) for level in form["levels"]),
        )
        if any(len(level) != 4 for level in made.levels):
            raise ValueError("a level has 4 numbers")
        return made


def value_form(tensor: schema.TensorT) -> ValueForm:
    """Returns what a tensor of one of `WEIGHT_TYPES` stores weights as."""
    dtype = WEIGHT_TYPES[tensor.type]
    if dtype != INT8:
        return ValueForm(dtype)
    return ValueForm(dtype, np.asarray(tensor.quantization.scale, np.float32))


def _row(weights: np.ndarray) -> np.ndarray:
    """The output row of each weight, in a shape that broadcasts."""
    return np.arange(len(weights)).reshape(-1, *(1,) * (weights.ndim - 1))


def write_weights(
    tensor: schema.TensorT, weights: np.ndarray, form: SparseForm | None
) -> np.ndarray:
    """Returns the bytes of weights as a constant tensor stores them.

    Args:
        tensor: The tensor, whose type counts; its sparsity is set.
        weights: The weights in the shape of the tensor.
        form: Levels of a sparse tensor; None for a dense one.

    Raises:
        ConversionError: If the form does not fit the weights.
    """
    values = weights
    tensor.sparsity = None
    if form is not None:
        tensor.sparsity, values = _sparsify(weights, form)
    if tensor.type not in FLOAT_TYPES:
        values = value_form(tensor).store(values, _row(values))
    values = np.ascontiguousarray(values, WEIGHT_TYPES[tensor.type])
    return values.reshape(-1).view(np.uint8)


def _sparsify(
    weights: np.ndarray, form: SparseForm
) -> tuple[schema.SparsityParametersT, np.ndarray]:
    rank, depth = weights.ndim, len(form.order)
    if (
        sorted(form.order) != list(range(rank + len(form.blocks)))
        or len(form.levels) != depth
        or not set(form.blocks) <= set(range(rank))
    ):
        raise ConversionError(f"weights of {rank} dimensions cannot be cut by {form}")
    sizes = [1] * rank
    for level, dimension in enumerate(form.order):
        if dimension >= rank:
            sizes[form.blocks[dimension - rank]] = max(1, form.levels[level][1])
    if any(n % size for n, size in zip(weights.shape, sizes, strict=True)):
        raise ConversionError(f"weights {list(weights.shape)} do not fit {form}")
    # Every dimension becomes two axes, its blocks and what is inside; those inside that
    # are no level of their own have length 1 and go last.
    split = [
        part
        for n, size in zip(weights.shape, sizes, strict=True)
        for part in (n // size, size)
    ]
    axes = [
        2 * dimension if dimension < rank else 2 * form.blocks[dimension - rank] + 1
        for dimension in form.order
    ]
    axes += [axis for axis in range(2 * rank) if axis not in axes]
    nodes = weights.reshape(split).transpose(axes)
    lengths = nodes.shape[:depth]
    nodes = nodes.reshape(1, -1)
    metadata = []
    for length, (kind, _, segment_type, index_type) in zip(
        lengths, form.levels, strict=True
    ):
        nodes = nodes.reshape(len(nodes), length, -1)
        level = schema.DimensionMetadataT(format=kind)
        if kind == _CSR:
            alive = nodes.any(axis=2)
            segments = np.concatenate([[0], np.cumsum(alive.sum(axis=1))])
            indices = np.nonzero(alive)[1]
            level.arraySegmentsType, level.arraySegments = _vector(
                segments, segment_type
            )
            level.arrayIndicesType, level.arrayIndices = _vector(indices, index_type)
            nodes = nodes[alive]
        else:
            level.denseSize = length
            nodes = nodes.reshape(len(nodes) * length, -1)
        metadata.append(level)
    sparsity = schema.SparsityParametersT(
        traversalOrder=np.array(form.order, np.int32),
        blockMap=np.array(form.blocks, np.int32) if form.blocks else None,
        dimMetadata=metadata,
    )
    return sparsity, nodes


def _vector(values: np.ndarray, kind: int) -> tuple[int, Any]:
    """Values as a vector of the given type, or of int32 where they do not fit."""
    made, dtype = _VECTORS.get(kind, _VECTORS[_VECTOR.Int32Vector])
    if values.size and values.max() > np.iinfo(dtype).max:
        kind = _VECTOR.Int32Vector
        made, dtype = _VECTORS[kind]
    return kind, made(values=values.astype(dtype))


def stored_bytes(model: Model, tensor: schema.TensorT) -> int:
    """Returns the bytes that a file spends on a constant tensor, indices included."""
    data = model.data(tensor)
    total = 0 if data is None else data.size
    for level in tensor.sparsity.dimMetadata or () if tensor.sparsity else ():
        for vector, kind in (
            (level.arraySegments, level.arraySegmentsType),
            (level.arrayIndices, level.arrayIndicesType),
        ):
            if vector is not None and kind in _VECTORS:
                values = vector.values
                total += (
                    0
                    if values is None
                    else np.asarray(values).size
                    * (np.dtype(_VECTORS[kind][1]).itemsize)
                )
    return total


def read_weights(model: Model, tensor: schema.TensorT) -> np.ndarray:
    """Returns the weights of a constant tensor, dense, float32, in its shape.

    A float32 tensor that is stored densely is returned as a view of the model. Integers
    come back times their scale.

    Raises:
        ConversionError: If the buffer does not hold what the tensor's shape, type and
            sparsity say.
    """
    name, shape = text(tensor.name), tensor_shape(tensor)
    form = value_form(tensor)
    dtype = form.dtype
    data = model.data(tensor)
    count = data.size // dtype.itemsize
    if tensor.sparsity is None:
        expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if min(shape, default=1) < 0 or data.size != expected:
            raise ConversionError(
                f"weights {name!r} of shape {list(shape)} need {expected} bytes, "
                f"their buffer holds {data.size}"
            )
        values = data.view(dtype).reshape(shape)
    else:
        stored = data[: count * dtype.itemsize].view(dtype)
        values = _densify(name, shape, tensor.sparsity, stored)
    if form.scale is not None:
        return loaded(values, form.scale, _row(values))
    return values.astype(np.float32, copy=False)


def _densify(
    name: str,
    shape: tuple[int, ...],
    sparsity: schema.SparsityParametersT,
    values: np.ndarray,
) -> np.ndarray:
    def refuse(why: str) -> None:
        raise ConversionError(f"sparse encoding of weights {name!r}: {why}")

    def integers(array: object) -> np.ndarray:
        return np.zeros(0, np.int64) if array is None else np.asarray(array, np.int64)

    order = integers(sparsity.traversalOrder)
    blocks = integers(sparsity.blockMap)
    levels = sparsity.dimMetadata or []
    rank, depth = len(shape), len(order)
    if sorted(order) != list(range(depth)) or depth != rank + len(blocks):
        refuse(f"traversal order {order} does not fit {rank} + {len(blocks)} levels")
    if len(levels) != depth:
        refuse(f"expected {depth} levels, received {len(levels)}")
    if np.any((blocks < 0) | (blocks >= rank)) or len(set(blocks)) != len(blocks):
        refuse(f"block map {blocks} does not name distinct dimensions of {rank}")
    if any(order[:rank] >= rank):
        refuse("block dimensions must come last in the traversal order")

    # Length of every dimension, blocked dimensions in blocks.
    block_size = {}
    for level, dimension in enumerate(order):
        if dimension >= rank:
            block_size[int(blocks[dimension - rank])] = int(levels[level].denseSize)
    lengths = []
    for dimension, length in enumerate(shape):
        size = block_size.get(dimension, 1)
        if size < 1 or length % size:
            refuse(f"dimension {dimension} of {length} is not cut by blocks of {size}")
        lengths.append(length // size)

    # Every node leads to a stored value or to a stored segment; this bounds memory.
    segment_counts = (
        len(integers(getattr(k.arraySegments, "values", None))) for k in levels
    )
    limit = max(len(values), 1, *segment_counts)

    # Walk the levels; `parent` numbers the nodes of a level, `index` their coordinates.
    nodes = 1
    coordinates: list[np.ndarray] = []
    for level, dimension in enumerate(order):
        known = levels[level]
        length = (
            lengths[dimension]
            if dimension < rank
            else block_size[int(blocks[dimension - rank])]
        )
        if known.format == _CSR:
            segments = integers(getattr(known.arraySegments, "values", None))
            indices = integers(getattr(known.arrayIndices, "values", None))
            if (
                len(segments) != nodes + 1
                or segments[0] != 0
                or np.any(np.diff(segments) < 0)
                or segments[-1] != len(indices)
            ):
                refuse(f"segments of level {level} do not ascend to its indices")
            if np.any((indices < 0) | (indices >= length)):
                refuse(f"an index of level {level} is not below {length}")
            parent = np.repeat(np.arange(nodes), np.diff(segments))
        else:
            if known.denseSize != length:
                refuse(f"level {level} has size {known.denseSize}, expected {length}")
            if nodes * length > limit:
                refuse(f"level {level} describes more nodes than are stored")
            parent = np.repeat(np.arange(nodes), length)
            indices = np.tile(np.arange(length), nodes)
        coordinates = [c[parent] for c in coordinates] + [indices]
        nodes = len(indices)
    if nodes != len(values):
        refuse(f"{nodes} values are described, {len(values)} are stored")

    position: list[np.ndarray] = [np.zeros(0)] * rank
    for level, dimension in enumerate(order):
        if dimension < rank:
            size = block_size.get(int(dimension), 1)
            position[dimension] = coordinates[level] * size
    for level, dimension in enumerate(order):
        if dimension >= rank:
            blocked = int(blocks[dimension - rank])
            position[blocked] = position[blocked] + coordinates[level]
    dense = np.zeros(shape, np.float32)
    dense[tuple(position)] = values
    return dense
