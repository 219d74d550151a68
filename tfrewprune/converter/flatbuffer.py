# SPDX-License-Identifier: Apache-2.0
"""Reads and writes ``.tflite`` models; takes no decisions.

A model is held as LiteRT's own object tree (``ModelT``), whose buffers are views of
the bytes it was read from, never copies. Two things of the file format are not in that
tree and are handled here: buffers and custom options that lie outside the flatbuffer
(needed above 2 GiB), and a ZIP archive of associated files behind it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.archive import read_archive
from tfrewprune.converter.bounds import check_bounds
from tfrewprune.converter.errors import ConversionError
from tfrewprune.payload.container import MAGIC, VALUE_ALIGNMENT

IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16
# A flatbuffer addresses 2 GiB; above this its buffers are written behind it.
MAX_INLINE_BYTES = (1 << 31) - (1 << 27)
OPERATOR_NAMES = {
    code: name
    for name, code in vars(schema.BuiltinOperator).items()
    if isinstance(code, int)
}
"""TFLite's names of built-in operators."""
NUMPY_TYPES = {
    getattr(schema.TensorType, name): np.dtype(stored)
    for name, stored in (
        *(("FLOAT32", "<f4"), ("FLOAT16", "<f2"), ("FLOAT64", "<f8")),
        *(("INT8", "i1"), ("INT16", "<i2"), ("INT32", "<i4"), ("INT64", "<i8")),
        *(("UINT8", "u1"), ("UINT16", "<u2"), ("UINT32", "<u4"), ("UINT64", "<u8")),
        *(("BOOL", "?"), ("COMPLEX64", "<c8"), ("COMPLEX128", "<c16")),
    )
}
"""What a tensor of each type of whole bytes is in NumPy."""
# What generated flatbuffer readers raise over damaged options tables, the one kind that
# check_bounds does not look into.
_READ_ERRORS = (
    *(struct.error, IndexError, ValueError, TypeError, OverflowError),
    *(AttributeError, MemoryError),
)


@dataclass
class Model:
    """A ``.tflite`` model in memory.

    Attributes:
        tree: LiteRT's object tree. Buffers outside the flatbuffer are in it as
            ordinary data; large custom options as ordinary custom options.
        archive: Bytes of a ZIP archive behind the model (labels and other files of
            TFLite metadata), or empty.
        alignment: Alignment in bytes of buffers that need more than 16, by index;
            payloads that were read are in it.
        outside: Whether the buffers lie behind the flatbuffer.
    """

    tree: schema.ModelT
    archive: bytes = b""
    alignment: dict[int, int] = field(default_factory=dict)
    outside: bool = False

    @property
    def subgraphs(self) -> list[schema.SubGraphT]:
        return self.tree.subgraphs

    def builtin_code(self, operator: schema.OperatorT) -> int:
        """Returns the ``BuiltinOperator`` of an operator."""
        return builtin_of(self.tree.operatorCodes[operator.opcodeIndex])

    def custom_code(self, operator: schema.OperatorT) -> str | None:
        """Returns the name of a custom operator, or None for a built-in one."""
        if self.builtin_code(operator) != schema.BuiltinOperator.CUSTOM:
            return None
        name = self.tree.operatorCodes[operator.opcodeIndex].customCode
        return text(name)

    def data(self, tensor: schema.TensorT) -> np.ndarray | None:
        """Returns a constant tensor's bytes as uint8, or None if it is not constant."""
        data = self.tree.buffers[tensor.buffer].data
        return None if data is None or len(data) == 0 else np.asarray(data, np.uint8)


def builtin_of(code: schema.OperatorCodeT) -> int:
    """Returns the ``BuiltinOperator`` of an operator code, old or new."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def text(name: bytes | str | None) -> str:
    """Returns a flatbuffer string as str; broken UTF-8 is escaped."""
    if isinstance(name, bytes):
        return name.decode("utf-8", "backslashreplace")
    return name or ""


def tensor_shape(tensor: schema.TensorT) -> tuple[int, ...]:
    """Returns the shape stored for a tensor; unknown dimensions are 1 in it."""
    return () if tensor.shape is None else tuple(int(n) for n in tensor.shape)


def tensor_signature(tensor: schema.TensorT) -> tuple[int, ...]:
    """Returns the shape of a tensor with -1 for unknown dimensions."""
    if tensor.shapeSignature is None or len(tensor.shapeSignature) == 0:
        return tensor_shape(tensor)
    return tuple(int(n) for n in tensor.shapeSignature)


def count_readers(subgraph: schema.SubGraphT) -> Counter[int]:
    """Returns how often each tensor is read: by operators, or as an output."""
    readers: Counter[int] = Counter()
    for operator in subgraph.operators:
        readers.update(int(i) for i in operator.inputs)
    readers.update(int(i) for i in subgraph.outputs)
    # An input that is a weight at the same time could be written from outside.
    readers.update(int(i) for i in subgraph.inputs)
    return readers


def operator_code(model: Model, builtin: int, version: int) -> int:
    """Returns the code of a built-in operator, if possible one the model had."""
    codes = model.tree.operatorCodes
    versions = {
        code.version: index
        for index, code in enumerate(codes)
        if builtin_of(code) == builtin
    }
    fitting = [known for known in versions if known >= version]
    if versions:
        return versions[min(fitting, default=max(versions))]
    codes.append(new_code(builtin, version))
    return len(codes) - 1


def new_code(builtin: int, version: int) -> schema.OperatorCodeT:
    """Returns the code of a built-in operator, readable by old and new readers."""
    return schema.OperatorCodeT(
        deprecatedBuiltinCode=min(builtin, 127), builtinCode=builtin, version=version
    )


def custom_operator_code(model: Model, name: str) -> int:
    """Returns the code of a custom operator, which is added if it is not there."""
    codes = model.tree.operatorCodes
    for index, code in enumerate(codes):
        if code.customCode in (name, name.encode()):
            return index
    codes.append(
        schema.OperatorCodeT(
            deprecatedBuiltinCode=schema.BuiltinOperator.CUSTOM,
            builtinCode=schema.BuiltinOperator.CUSTOM,
            customCode=name,
            version=1,
        )
    )
    return len(codes) - 1


def drop_unused_codes(
    model: Model, which: Callable[[schema.OperatorCodeT], bool] = lambda _: True
) -> None:
    """Drops operator codes that nothing uses; the others keep their order.

    Args:
        model: The model.
        which: Whether a code goes if nothing uses it.
    """
    operators = [op for graph in model.subgraphs for op in graph.operators or ()]
    codes = model.tree.operatorCodes
    used = {operator.opcodeIndex for operator in operators}
    kept = [n for n, code in enumerate(codes) if n in used or not which(code)]
    renumbered = {old: new for new, old in enumerate(kept)}
    for operator in operators:
        operator.opcodeIndex = renumbered[operator.opcodeIndex]
    model.tree.operatorCodes = [codes[index] for index in kept]


def drop_unused(model: Model) -> None:
    """Empties buffers and constants that nothing uses.

    The indices of tensors never move: those that no operator and no signature names
    stay, without a name and a shape.
    """
    for subgraph in model.subgraphs:
        named = set(index_list(subgraph.inputs)) | set(index_list(subgraph.outputs))
        for operator in subgraph.operators or ():
            for indices in (operator.inputs, operator.outputs, operator.intermediates):
                named |= set(index_list(indices))
        tensors = subgraph.tensors
        for index in range(len(tensors)):
            if index not in named and tensors[index].buffer:
                tensors[index] = schema.TensorT(shape=np.zeros(1, np.int32))
    needed = {t.buffer for graph in model.subgraphs for t in graph.tensors}
    needed |= {entry.buffer for entry in model.tree.metadata or ()}
    buffers = model.tree.buffers
    for index in set(range(len(buffers))) - needed:
        buffers[index] = schema.BufferT()
        model.alignment.pop(index, None)
    while len(buffers) - 1 > max(needed):
        buffers.pop()


def index_list(indices: np.ndarray | list | None) -> list[int]:
    """Returns the indices in a flatbuffer vector; an absent one has none."""
    return [] if indices is None else [int(i) for i in indices]


def read_model(content: bytes | bytearray | memoryview) -> Model:
    """Reads a ``.tflite`` model, checking every offset and index first.

    Args:
        content: The whole file.

    Returns:
        The model; its buffers are views of ``content``.

    Raises:
        ConversionError: If ``content`` is not a whole, valid ``.tflite`` file.
    """
    content = memoryview(content).cast("B")
    check_bounds(content)
    try:
        tree = schema.ModelT.InitFromPackedBuf(content, 0)
    except _READ_ERRORS as error:
        raise ConversionError(f"not a valid .tflite file: {error}") from error
    _fill_absent_vectors(tree)
    model = Model(tree, read_archive(content))
    _pull_in_outside_data(model, content)
    _check_indices(tree)
    return model


def _fill_absent_vectors(tree: schema.ModelT) -> None:
    """An absent vector means an empty one; nobody after this has to know both."""
    none = np.zeros(0, np.int32)
    for name in ("operatorCodes", "subgraphs", "buffers"):
        setattr(tree, name, getattr(tree, name) or [])
    for subgraph in tree.subgraphs:
        subgraph.tensors = subgraph.tensors or []
        subgraph.operators = subgraph.operators or []
        for holder in (subgraph, *subgraph.operators):
            holder.inputs = none if holder.inputs is None else holder.inputs
            holder.outputs = none if holder.outputs is None else holder.outputs


def _pull_in_outside_data(model: Model, content: memoryview) -> None:
    def slice_of(offset: int, size: int, what: str) -> np.ndarray:
        if offset + size > len(content):
            raise ConversionError(
                f"{what} must lie inside the file of {len(content)} bytes, received "
                f"bytes {offset} to {offset + size}"
            )
        return np.frombuffer(content, np.uint8, size, offset)

    for index, buffer in enumerate(model.tree.buffers or ()):
        if buffer.offset > 1:
            buffer.data = slice_of(buffer.offset, buffer.size, f"buffer {index}")
            model.outside = True
        buffer.offset = buffer.size = 0
        if buffer.data is not None and bytes(buffer.data[:4]) == MAGIC:
            model.alignment[index] = VALUE_ALIGNMENT
    for subgraph in model.subgraphs or ():
        for operator in subgraph.operators or ():
            if operator.largeCustomOptionsOffset > 1:
                operator.customOptions = slice_of(
                    operator.largeCustomOptionsOffset,
                    operator.largeCustomOptionsSize,
                    "large custom options",
                )
                model.outside = True
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0


def _check_indices(tree: schema.ModelT) -> None:
    """Raises ConversionError unless every index in the tree points at something."""

    def check(what: str, index: int, count: int, lowest: int = 0) -> None:
        if not lowest <= index < count:
            raise ConversionError(
                f"{what} must be an index below {count}, received {index}"
            )

    buffers, codes = tree.buffers or [], tree.operatorCodes or []
    if not tree.subgraphs:
        raise ConversionError("the model has no subgraph; expected at least one")
    for where, subgraph in enumerate(tree.subgraphs):
        tensors, place = subgraph.tensors or [], f"of subgraph {where}"
        for tensor in tensors:
            check(
                f"buffer of tensor {text(tensor.name)!r}", tensor.buffer, len(buffers)
            )
        for kind in ("inputs", "outputs"):
            for index in index_list(getattr(subgraph, kind)):
                check(f"{kind} {place}", index, len(tensors))
        for number, operator in enumerate(subgraph.operators or ()):
            check(
                f"code of operator {number} {place}", operator.opcodeIndex, len(codes)
            )
            for index in index_list(operator.inputs):
                check(f"input of operator {number} {place}", index, len(tensors), -1)
            for kind in ("outputs", "intermediates"):
                for index in index_list(getattr(operator, kind)):
                    check(f"{kind} of operator {number} {place}", index, len(tensors))
    for metadata in tree.metadata or ():
        check(
            f"buffer of metadata {text(metadata.name)!r}", metadata.buffer, len(buffers)
        )
    for index in index_list(tree.metadataBuffer):
        check("metadata buffer", index, len(buffers))
    for signature in tree.signatureDefs or ():
        name = text(signature.signatureKey)
        check(
            f"subgraph of signature {name!r}",
            signature.subgraphIndex,
            len(tree.subgraphs),
        )
        tensors = tree.subgraphs[signature.subgraphIndex].tensors or []
        for entry in [*(signature.inputs or ()), *(signature.outputs or ())]:
            check(f"tensor of signature {name!r}", entry.tensorIndex, len(tensors))


class _PlacedBuffer:
    """Packs one buffer: aligned inside the flatbuffer, or as a place behind it."""

    def __init__(self, data: np.ndarray | None, alignment: int, outside: int | None):
        self.data, self.alignment, self.outside = data, alignment, outside

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (schema's name)
        vector = None
        if self.data is not None and self.outside is None:
            vector = create_bytes(builder, self.data, self.alignment)
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        if self.outside is not None:
            schema.BufferAddOffset(builder, self.outside)
            schema.BufferAddSize(builder, len(self.data))
        return schema.BufferEnd(builder)


def create_bytes(builder: flatbuffers.Builder, data: np.ndarray, alignment: int) -> int:
    """Writes a byte vector whose first byte is aligned in the finished file."""
    size = len(data)
    builder.StartVector(1, size, alignment)
    # StartVector aligned the end of the vector for `size` bytes still to come.
    head = builder.head - size
    builder.Bytes[head : head + size] = memoryview(data)
    builder.head = head
    builder.vectorNumElems = size
    return builder.EndVector()


def write_model(model: Model) -> bytes:
    """Writes a model as the bytes of a ``.tflite`` file.

    Buffers start at multiples of 16 bytes in the file, or of what
    ``model.alignment`` asks for. They lie inside the flatbuffer (every TFLite reads
    that) unless they need more than a flatbuffer can hold or came from outside.

    Raises:
        ConversionError: If the model does not fit a flatbuffer.
    """
    inline = sum(
        len(buffer.data) + 64
        for buffer in model.tree.buffers or ()
        if buffer.data is not None
    )
    outside = model.outside or inline > MAX_INLINE_BYTES
    return b"".join(_pieces(model, outside, 0 if outside else inline))


def _pieces(model: Model, outside: bool, inline: int) -> list[bytes | memoryview]:
    if not outside:
        return [_build(model, None, inline), model.archive]
    # Offsets do not change the length of the flatbuffer as long as none is 0.
    blobs = {
        index: np.asarray(buffer.data, np.uint8)
        for index, buffer in enumerate(model.tree.buffers)
        if buffer.data is not None and len(buffer.data)
    }
    places = dict.fromkeys(blobs, 2)
    end = len(_build(model, places, inline))
    pieces: list[bytes | memoryview] = []
    for index, blob in blobs.items():
        alignment = model.alignment.get(index, BUFFER_ALIGNMENT)
        places[index] = -(-end // alignment) * alignment
        pieces += [bytes(places[index] - end), memoryview(blob)]
        end = places[index] + len(blob)
    return [_build(model, places, inline), *pieces, model.archive]


def _build(model: Model, places: dict[int, int] | None, inline: int) -> memoryview:
    tree = model.tree
    originals = tree.buffers
    places = places or {}
    tree.buffers = [
        _PlacedBuffer(
            buffer.data,
            model.alignment.get(index, BUFFER_ALIGNMENT),
            places.get(index),
        )
        for index, buffer in enumerate(originals)
    ]
    builder = flatbuffers.Builder(inline + (1 << 16))
    try:
        builder.Finish(tree.Pack(builder), IDENTIFIER)
    except (flatbuffers.builder.BuilderSizeError, struct.error, TypeError) as error:
        raise ConversionError(f"the model cannot be written: {error}") from error
    finally:
        tree.buffers = originals
    return memoryview(builder.Bytes)[builder.head :]
