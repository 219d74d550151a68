# SPDX-License-Identifier: Apache-2.0
"""Reads constant float weights, also from TFLite's sparse encoding.

TFLite stores a sparse tensor as in TACO: dimensions are visited in
``traversal_order``, the last ones of it may be blocks (``block_map``), and every level
is either dense or CSR-like (segments and indices). See ``SparsityParameters`` in
``schema.fbs``.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model, tensor_shape, text

FLOAT_TYPES = {
    schema.TensorType.FLOAT32: np.dtype("<f4"),
    schema.TensorType.FLOAT16: np.dtype("<f2"),
}
_CSR = schema.DimensionType.SPARSE_CSR


def read_weights(model: Model, tensor: schema.TensorT) -> np.ndarray:
    """Returns the weights of a constant tensor, dense, float32, in its shape.

    A float32 tensor that is stored densely is returned as a view of the model.

    Raises:
        ConversionError: If the buffer does not hold what the tensor's shape, type and
            sparsity say.
    """
    name, shape = text(tensor.name), tensor_shape(tensor)
    dtype = FLOAT_TYPES[tensor.type]
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
