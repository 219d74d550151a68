# SPDX-License-Identifier: Apache-2.0
"""Layout 1 of the payload: weights whose rows share no columns.

Specified in ``tflite_ops/format/PAYLOAD.md``. The kernels that run it work on several
output pixels at once, so that rows need not agree (``tflite_ops/kernels/irregular.h``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tfrewprune.payload.container import (
    HEADER_BYTES,
    LAYOUT_IRREGULAR,
    MAX_U32,
    VALUE_ALIGNMENT,
    Fields,
    Section,
    align,
    check_size,
    expect,
    index_bytes_for,
    read_fields,
    read_sections,
    section_view,
    write_payload,
    zeros,
)
from tfrewprune.payload.cost import (
    VECTOR_BATCH,
    CostModel,
    LayerShape,
    default_cost_model,
)
from tfrewprune.payload.values import (
    AS_FLOAT32,
    PayloadError,
    ValueForm,
    check_values,
    loaded,
)

# Chunks of a fully connected layer: 8 KiB of inputs stay in the first cache.
_VECTOR_CHUNK = 2048
# Lifted inputs of a chunk under one block of outputs, in vectors of 64 bytes:
# three quarters of a first cache of 48 KiB.
_CHUNK_VECTORS = 576
_BLOCK_PIXELS = 7


@dataclass(frozen=True, eq=False)
class IrregularMatrix:
    """A row-compressed weight matrix, cut into segments.

    Attributes:
        rows: Output channels O.
        columns: Columns K.
        taps: Kernel height x kernel width; divides ``columns``.
        chunk_channels: Input channels of a chunk.
        row_id: Integers ``[S]``: the output row of every segment.
        segment_start: Integers ``[S + 1]``: segment s owns weights
            ``segment_start[s]:segment_start[s + 1]``.
        column: Integers ``[N]``, channel x taps + tap.
        value: One of `VALUE_TYPES`, ``[N]``.
        scale: float32 ``[1]`` or ``[O]`` of int8 values, see `ValueForm`.
        masked: Whether a payload says by a bit for every weight of the dense matrix
            which are kept, not by lists of columns.
    """

    rows: int
    columns: int
    taps: int
    chunk_channels: int
    row_id: np.ndarray
    segment_start: np.ndarray
    column: np.ndarray
    value: np.ndarray
    scale: np.ndarray | None = None
    masked: bool = False

    @property
    def segment_count(self) -> int:
        return self.row_id.shape[0]

    @property
    def weight_count(self) -> int:
        return self.column.shape[0]

    def to_dense(self) -> np.ndarray:
        """Returns the weight matrix, float32 ``[O, K]`` with columns (tap, channel),
        +0.0 where pruned.

        Raises:
            PayloadError: If the dense matrix is larger than ``MAX_DENSE_BYTES``.
        """
        dense = zeros(self.rows, self.columns)
        column = np.asarray(self.column, np.int64)
        channels = self.columns // self.taps
        at = column % self.taps * channels + column // self.taps
        row = self.row_of_weights()
        dense[row, at] = loaded(self.value, self.scale, row)
        return dense

    def row_of_weights(self) -> np.ndarray:
        """Returns the output row of every weight, ``[N]``."""
        return np.repeat(self.row_id, np.diff(self.segment_start))

    @classmethod
    def from_dense(
        cls, weights: np.ndarray, taps: int, chunk_channels: int, masked: bool = False
    ) -> IrregularMatrix:
        """Keeps the weights other than 0.

        Args:
            weights: float32 ``[O, K]``, columns (tap, channel).
            taps: Kernel height x kernel width.
            chunk_channels: Input channels of a chunk.
            masked: See above.
        """
        rows, columns = weights.shape
        by_channel = weights.reshape(rows, taps, -1).swapaxes(1, 2).reshape(rows, -1)
        row, start, column = _segments(by_channel != 0, taps * chunk_channels)
        value = by_channel[np.repeat(row, np.diff(start)), column]
        return cls(
            *(rows, columns, taps, chunk_channels),
            *(row, start, column, value),
            masked=masked,
        )


def _segments(kept: np.ndarray, chunk: int) -> tuple[np.ndarray, ...]:
    """Cuts what is kept into segments.

    Args:
        kept: Truth values ``[O, K]``, columns (channel, tap).
        chunk: Columns of a chunk.

    Returns:
        row_id, segment_start and column.
    """
    row, column = np.nonzero(kept)
    order = np.argsort(column // chunk, kind="stable")
    row, column = row[order], column[order]
    # A segment begins where row or chunk change.
    begins = np.ones(row.size, bool)
    begins[1:] = (np.diff(row) != 0) | (np.diff(column // chunk) != 0)
    start = np.flatnonzero(begins)
    return row[start], np.append(start, row.size), column


def _chunks(columns: int, chunk: int) -> list[slice]:
    return [slice(k, min(k + chunk, columns)) for k in range(0, columns, chunk)]


def mask_bytes(rows: int, columns: int) -> int:
    """Returns the bytes of a mask: a bit for every weight of the dense matrix."""
    return -(-rows * columns // 8)


def _mask(matrix: IrregularMatrix) -> np.ndarray:
    """The kept weights as bits: chunk by chunk, row by row, column by column."""
    kept = np.zeros((matrix.rows, matrix.columns), bool)
    kept[matrix.row_of_weights(), matrix.column] = True
    chunks = _chunks(matrix.columns, matrix.taps * matrix.chunk_channels)
    bits = np.concatenate([kept[:, chunk].ravel() for chunk in chunks])
    return np.packbits(bits, bitorder="little")


def _unmasked(
    mask: np.ndarray, rows: int, columns: int, chunk: int
) -> tuple[np.ndarray, ...]:
    """row_id, segment_start and column of a mask."""
    bits = np.unpackbits(mask, bitorder="little")
    if bits[rows * columns :].any():
        raise PayloadError("bits behind the last weight of the mask must be 0")
    kept, end = np.empty((rows, columns), bool), 0
    for part in _chunks(columns, chunk):
        begin, end = end, end + rows * (part.stop - part.start)
        kept[:, part] = bits[begin:end].reshape(rows, -1)
    return _segments(kept, chunk)


@dataclass(frozen=True, eq=False)
class IrregularPacking:
    """A weight matrix packed as layout 1; offers what ``packer.Packing`` offers.

    Attributes:
        weights: The matrix, float32 ``[O, K]``.
        taps: Kernel height x kernel width.
        chunk_channels: Input channels of a chunk.
        kept: Weights other than 0.
        segment_count: Segments they make.
        form: What a weight is stored as.
    """

    weights: np.ndarray
    taps: int
    chunk_channels: int
    kept: int
    segment_count: int
    form: ValueForm = AS_FLOAT32

    @classmethod
    def of(
        cls,
        weights: np.ndarray,
        shape: LayerShape,
        form: ValueForm = AS_FLOAT32,
    ) -> IrregularPacking:
        """Packs the weights of a layer of this shape.

        Raises:
            PayloadError: If its taps do not divide the columns.
        """
        rows, columns = weights.shape
        _check_taps(columns, shape.taps)
        channels = columns // shape.taps
        chunk = chunk_channels_for(shape)
        survives = (weights != 0).reshape(rows, shape.taps, channels)
        per_channel = np.count_nonzero(survives, axis=1)
        edges = np.arange(0, channels, chunk)
        per_segment = np.add.reduceat(per_channel, edges, axis=1)
        counts = (int(per_channel.sum()), int(np.count_nonzero(per_segment)))
        return cls(weights, shape.taps, chunk, *counts, form)

    @property
    def _list_bytes(self) -> int:
        """Bytes of row_id, segment_start and column."""
        index_bytes = index_bytes_for(*self.weights.shape)
        starts = align(self.segment_count * index_bytes, 4)
        return starts + (self.segment_count + 1) * 4 + self.kept * index_bytes

    @property
    def masked(self) -> bool:
        """Whether a mask takes fewer bytes than lists of columns."""
        return mask_bytes(*self.weights.shape) < self._list_bytes

    @property
    def payload_bytes(self) -> int:
        index = min(mask_bytes(*self.weights.shape), self._list_bytes)
        end = align(HEADER_BYTES + index, 4) + self.form.scale_bytes
        return align(end, VALUE_ALIGNMENT) + self.kept * self.form.dtype.itemsize

    def predict(self, shape: LayerShape, cost_model: CostModel | None = None) -> float:
        """Returns the predicted microseconds of a packed layer of this shape."""
        model = cost_model or default_cost_model()
        return model.irregular(shape, self.kept, self.segment_count)

    def encode(self) -> bytes:
        """Returns the payload."""
        matrix = IrregularMatrix.from_dense(
            self.weights, self.taps, self.chunk_channels, self.masked
        )
        value = self.form.store(matrix.value, matrix.row_of_weights())
        return encode_irregular(replace(matrix, value=value, scale=self.form.scale))


def chunk_channels_for(shape: LayerShape) -> int:
    """Returns how many input channels make a chunk.

    As many as keep the inputs of a block of outputs in the first cache: more weights
    of a row are then added up before its accumulators change.
    """
    channels = shape.columns // shape.taps
    if shape.taps == 1 and shape.pixels < VECTOR_BATCH:
        return min(channels, _VECTOR_CHUNK)
    kernel = max(1, round(math.sqrt(shape.taps)))
    block = min(_BLOCK_PIXELS, -(-shape.pixels // 16))
    chunk = _CHUNK_VECTORS // (kernel * (block + kernel - 1))
    if chunk >= 16:
        chunk -= chunk % 16
    return max(1, min(channels, chunk))


def encode_irregular(matrix: IrregularMatrix) -> bytes:
    """Writes an irregular matrix as a payload.

    Args:
        matrix: The matrix; it is checked like bytes from outside.

    Returns:
        The payload. Equal matrices give equal bytes.

    Raises:
        PayloadError: If the matrix breaks a rule of the format.

    Example:
        >>> matrix = IrregularMatrix.from_dense(np.eye(4, 9, dtype="f4"), 9, 1)
        >>> decode_irregular(encode_irregular(matrix)).weight_count
        4
    """
    _check_matrix(matrix)
    index_bytes = index_bytes_for(matrix.rows, matrix.columns)
    index_type = np.dtype(f"<u{index_bytes}")
    if matrix.masked:
        index_bytes = 0
        nothing = np.zeros(0, np.uint8)
        indices = (nothing, nothing, _mask(matrix))
    else:
        indices = (
            matrix.row_id.astype(index_type),
            matrix.segment_start.astype("<u4"),
            matrix.column.astype(index_type),
        )
    counts = (matrix.taps, matrix.segment_count, matrix.weight_count)
    fields = (LAYOUT_IRREGULAR, matrix.rows, matrix.columns, *counts, index_bytes)
    return write_payload(
        (*fields, matrix.chunk_channels), indices, matrix.value, matrix.scale
    )


def decode_irregular(payload: bytes | memoryview | np.ndarray) -> IrregularMatrix:
    """Reads and checks a payload of layout 1.

    Args:
        payload: The whole payload.

    Returns:
        The matrix; unless its columns are a mask, its arrays are read-only views of
        ``payload``.

    Raises:
        PayloadError: If anything in the payload breaks a rule of the format.
    """
    fields = read_fields(payload, LAYOUT_IRREGULAR)
    rows, columns, taps, segments, n, index_bytes, chunk_channels = fields.counts
    _check_counts(columns, taps, chunk_channels, n)
    masked = index_bytes == 0
    if not masked:
        expect("index_bytes", index_bytes, index_bytes_for(rows, columns))
    sections = read_sections(
        fields,
        ("row_id", segments * index_bytes),
        ("segment_start", 0 if masked else (segments + 1) * 4),
        ("column", mask_bytes(rows, columns) if masked else n * index_bytes),
        ("value", n * fields.value_type.itemsize),
    )
    read = _read_mask if masked else _read_lists
    matrix = IrregularMatrix(
        *(rows, columns, taps, chunk_channels),
        *read(fields, sections),
        section_view(fields.data, sections[3], fields.value_type),
        fields.read_scale(),
        masked,
    )
    expect("segment_count", segments, matrix.segment_count)
    expect("weight_count", n, matrix.weight_count)
    _check_matrix(matrix)
    return matrix


def _read_mask(fields: Fields, sections: tuple[Section, ...]) -> tuple[np.ndarray, ...]:
    rows, columns, taps, *_, chunk_channels = fields.counts
    mask = section_view(fields.data, sections[2], np.uint8)
    return _unmasked(mask, rows, columns, taps * chunk_channels)


def _read_lists(
    fields: Fields, sections: tuple[Section, ...]
) -> tuple[np.ndarray, ...]:
    index_type = f"<u{fields.counts[5]}"
    return (
        section_view(fields.data, sections[0], index_type),
        section_view(fields.data, sections[1], "<u4"),
        section_view(fields.data, sections[2], index_type),
    )


def _check_taps(columns: int, taps: int) -> None:
    if taps < 1 or columns % taps:
        raise PayloadError(
            f"taps must divide the {columns} columns, received {taps} taps"
        )


def _check_counts(columns: int, taps: int, chunk_channels: int, n: int) -> None:
    _check_taps(columns, taps)
    if not 1 <= chunk_channels <= columns // taps:
        raise PayloadError(
            f"chunk_channels must be from 1 to {columns // taps}, "
            f"received {chunk_channels}"
        )
    if n > MAX_U32:
        raise PayloadError(f"weight_count must be below 2**32, received {n}")


def _check_matrix(matrix: IrregularMatrix) -> None:
    """Raises PayloadError unless every rule on the sections' contents holds."""
    check_size(matrix.rows, matrix.columns)
    segments, n = matrix.segment_count, matrix.weight_count
    _check_counts(matrix.columns, matrix.taps, matrix.chunk_channels, n)
    expect("shape of values", matrix.value.shape, (n,))
    check_values(matrix.value, matrix.scale, matrix.rows)
    expect("shape of segment_start", matrix.segment_start.shape, (segments + 1,))
    start = np.asarray(matrix.segment_start, np.int64)
    if start[0] != 0 or start[-1] != n or np.any(np.diff(start) <= 0):
        raise PayloadError(
            f"segment_start must ascend strictly from 0 to weight_count = {n}, "
            f"received {start[0]} .. {start[-1]}"
        )
    if segments == 0:
        return
    row = np.asarray(matrix.row_id, np.int64)
    if row.max() >= matrix.rows or row.min() < 0:
        raise PayloadError(
            f"row_id must be below rows = {matrix.rows}, received {row.max()}"
        )
    column = np.asarray(matrix.column, np.int64)
    if column.max() >= matrix.columns or column.min() < 0:
        raise PayloadError(
            f"columns must be below {matrix.columns}, received {column.max()}"
        )
    rises = np.diff(column) > 0
    rises[start[1:-1] - 1] = True  # a new segment may begin anywhere
    if not rises.all():
        at = int(np.flatnonzero(~rises)[0])
        raise PayloadError(
            "columns must ascend strictly inside a segment, received "
            f"{column[at]} before {column[at + 1]}"
        )
    size = matrix.taps * matrix.chunk_channels
    chunk = column[start[:-1]] // size
    split = np.flatnonzero(column[start[1:] - 1] // size != chunk)
    if split.size:
        raise PayloadError(f"the columns of segment {split[0]} lie in two chunks")
    if np.any(np.diff(chunk * matrix.rows + row) <= 0):
        raise PayloadError("segments must ascend strictly by chunk and row")
