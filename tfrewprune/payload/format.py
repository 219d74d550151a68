# SPDX-License-Identifier: Apache-2.0
"""The payload: bytes of one packed weight matrix, checked on the way in and out.

The bytes are specified in ``tflite_ops/format/PAYLOAD.md``; the C++ half reads the
same ones. This file holds what both layouts share, and turns layout 0, banded, into
arrays and back. It decides nothing: how rows are cut into bands is the business of
``tfrewprune.payload.packer``. Layout 1 is in ``tfrewprune.payload.irregular``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

MAGIC = b"TFRP"
VERSION = 1
HEADER_BYTES = 128
LAYOUT_BANDED = 0
LAYOUT_IRREGULAR = 1
FLOAT32, FLOAT16 = np.dtype("<f4"), np.dtype("<f2")
VALUE_TYPES = (FLOAT32, FLOAT16)
"""What values are stored as, by value_type."""
BAND_ROWS = (4, 8, 16, 32)
VALUE_ALIGNMENT = 64
# A few hostile bytes must not make a reader allocate terabytes.
MAX_DENSE_BYTES = 1 << 33

_HEADER = struct.Struct("<4sHH6IQII8QQQ")
assert _HEADER.size == HEADER_BYTES
_MAX_U32 = 0xFFFFFFFF


class PayloadError(ValueError):
    """A payload, or a matrix to be packed, that the format does not allow."""


@dataclass(frozen=True)
class Section:
    """Where a section lies, in bytes from the first byte of the payload."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True)
class Header:
    """The checked header of a payload.

    Attributes:
        rows: Output channels O of the weight matrix.
        columns: Columns K = kernel height x kernel width x input channels.
        band_rows: Packed rows R of a band.
        band_count: Bands B.
        column_count: Columns N of all bands together.
        index_bytes: Width of row and column numbers, 2 or 4.
        row_id: Section of B x R row numbers.
        band_start: Section of B + 1 u32 values.
        column: Section of N column numbers.
        value: Section of N x R values.
        value_type: What a value is, one of `VALUE_TYPES`.
        payload_bytes: Length of the whole payload.
    """

    rows: int
    columns: int
    band_rows: int
    band_count: int
    column_count: int
    index_bytes: int
    row_id: Section
    band_start: Section
    column: Section
    value: Section
    value_type: np.dtype
    payload_bytes: int


@dataclass(frozen=True, eq=False)
class BandedMatrix:
    """A weight matrix cut into bands of rows that share their columns.

    Attributes:
        rows: Output channels O.
        columns: Columns K.
        row_id: Integers ``[B, R]``: the output row of every lane, ``rows`` where a
            lane carries no row.
        band_start: Integers ``[B + 1]``: band b owns columns
            ``band_start[b]:band_start[b + 1]``.
        column: Integers ``[N]``, strictly ascending inside a band.
        value: float32 or float16 ``[N, R]``; lane r of a band's columns belongs to row
            ``row_id[b, r]``.
    """

    rows: int
    columns: int
    row_id: np.ndarray
    band_start: np.ndarray
    column: np.ndarray
    value: np.ndarray

    @property
    def band_rows(self) -> int:
        return self.row_id.shape[1]

    @property
    def band_count(self) -> int:
        return self.row_id.shape[0]

    @property
    def column_count(self) -> int:
        return self.column.shape[0]

    def to_dense(self) -> np.ndarray:
        """Returns the weight matrix, float32 ``[O, K]``, +0.0 where pruned.

        Raises:
            PayloadError: If the dense matrix is larger than ``MAX_DENSE_BYTES``.
        """
        dense = zeros(self.rows, self.columns)
        for band, row in enumerate(self.row_id):
            lanes = np.flatnonzero(row < self.rows)
            owned = slice(self.band_start[band], self.band_start[band + 1])
            at = np.ix_(row[lanes], self.column[owned])
            dense[at] = self.value[owned, lanes].T
        return dense


def index_bytes_for(rows: int, columns: int) -> int:
    """Returns the width in bytes of row and column numbers: 2 or 4."""
    return 2 if rows <= 65535 and columns <= 65536 else 4


def zeros(rows: int, columns: int) -> np.ndarray:
    """Returns a dense matrix of zeros, float32 ``[O, K]``.

    Raises:
        PayloadError: If it is larger than ``MAX_DENSE_BYTES``.
    """
    if rows * columns * 4 > MAX_DENSE_BYTES:
        raise PayloadError(
            f"a dense matrix of {rows} x {columns} float32 weights is "
            f"larger than {MAX_DENSE_BYTES} bytes"
        )
    return np.zeros((rows, columns), np.float32)


def align(offset: int, alignment: int) -> int:
    """Returns the first multiple of ``alignment`` from ``offset`` on."""
    return -(-offset // alignment) * alignment


def payload_size(
    rows: int, columns: int, band_rows: int, bands: int, n: int, value_bytes: int = 4
) -> int:
    """Returns the bytes of a payload with ``bands`` bands of ``n`` columns in all."""
    index_bytes = index_bytes_for(rows, columns)
    end = align(HEADER_BYTES + bands * band_rows * index_bytes, 4)
    end = align(end + (bands + 1) * 4, 4) + n * index_bytes
    return align(end, VALUE_ALIGNMENT) + n * band_rows * value_bytes


def encode(matrix: BandedMatrix) -> bytes:
    """Writes a banded matrix as a payload.

    Args:
        matrix: The matrix; it is checked like bytes from outside.

    Returns:
        The payload. Equal matrices give equal bytes.

    Raises:
        PayloadError: If the matrix breaks a rule of the format.
    """
    if matrix.row_id.ndim != 2 or matrix.value.ndim != 2:
        raise PayloadError(
            "row_id and value must have two dimensions, received shapes "
            f"{matrix.row_id.shape} and {matrix.value.shape}"
        )
    _check_matrix(matrix)
    index_bytes = index_bytes_for(matrix.rows, matrix.columns)
    index_type = np.dtype(f"<u{index_bytes}")
    parts = (
        (matrix.row_id.astype(index_type), 4),
        (matrix.band_start.astype("<u4"), 4),
        (matrix.column.astype(index_type), 4),
        (stored_values(matrix.value), VALUE_ALIGNMENT),
    )
    counts = (matrix.band_rows, matrix.band_count, matrix.column_count)
    return write_payload(
        (LAYOUT_BANDED, matrix.rows, matrix.columns, *counts, index_bytes, 0), parts
    )


def write_payload(
    fields: tuple[int, ...], parts: tuple[tuple[np.ndarray, int], ...]
) -> bytes:
    """Puts a header and four sections together.

    Args:
        fields: layout, rows, columns, and the five header fields from offset 24 on.
        parts: Each section with its alignment in bytes; the last holds the values.
    """
    sections, end = [], HEADER_BYTES
    for array, alignment in parts:
        offset = align(end, alignment)
        sections += [offset, array.nbytes]
        end = offset + array.nbytes
    payload = bytearray(end)
    layout, *counts = fields
    value_type = VALUE_TYPES.index(parts[-1][0].dtype)
    start = (MAGIC, VERSION, HEADER_BYTES, layout, value_type)
    _HEADER.pack_into(payload, 0, *start, *counts, *sections, end, 0)
    view = memoryview(payload)
    for i, (array, _) in enumerate(parts):
        if array.nbytes:
            offset = sections[2 * i]
            view[offset : offset + array.nbytes] = memoryview(array).cast("B")
    return bytes(payload)


def read_header(payload: bytes | memoryview | np.ndarray) -> Header:
    """Reads and checks the header of a payload.

    Args:
        payload: The whole payload; its length is checked too.

    Returns:
        The header; every section is known to lie inside the payload and to have the
        length that follows from the counts.

    Raises:
        PayloadError: If the header is damaged, or of a kind this reader does not know.
    """
    data, counts, places, value_type = read_fields(payload, LAYOUT_BANDED)
    rows, columns, band_rows, bands, n, index_bytes, flags = counts
    _check_shape(rows, columns, band_rows)
    expect("flags", flags, 0)
    if n > _MAX_U32:
        raise PayloadError(f"column_count must be below 2**32, received {n}")
    sections = read_sections(
        data,
        places,
        ("row_id", bands * band_rows * index_bytes),
        ("band_start", (bands + 1) * 4),
        ("column", n * index_bytes),
        ("value", n * band_rows * value_type.itemsize),
    )
    return Header(
        *(rows, columns, band_rows, bands, n, index_bytes),
        *sections,
        value_type,
        len(data),
    )


def payload_layout(payload: bytes | memoryview | np.ndarray) -> int:
    """Returns the layout that a payload claims to have.

    Raises:
        PayloadError: If it is too short to say, or claims an unknown one.
    """
    layout = _fields(as_bytes_view(payload))[3]
    if layout not in (LAYOUT_BANDED, LAYOUT_IRREGULAR):
        raise PayloadError(
            f"payload layout: expected {LAYOUT_BANDED} or {LAYOUT_IRREGULAR}, "
            f"received {layout}"
        )
    return layout


def read_fields(
    payload: bytes | memoryview | np.ndarray, layout: int
) -> tuple[memoryview, tuple[int, ...], tuple[int, ...], np.dtype]:
    """Reads a header and checks what all layouts share.

    Args:
        payload: The whole payload.
        layout: The layout it must have.

    Returns:
        The bytes; the seven fields from offset 16 on; offset and length of the four
        sections; the type of the values.

    Raises:
        PayloadError: If the header is damaged or of another layout.
    """
    data = as_bytes_view(payload)
    fields = _fields(data)
    magic, version, header_bytes, found, value_type = fields[:5]
    payload_bytes, reserved = fields[20:22]
    expect("magic", magic, MAGIC)
    expect("version", version, VERSION)
    expect("header_bytes", header_bytes, HEADER_BYTES)
    expect("layout", found, layout)
    if value_type >= len(VALUE_TYPES):
        raise PayloadError(
            f"payload value_type: expected 0 (float32) or 1 (float16), received "
            f"{value_type}"
        )
    rows, columns, index_bytes = fields[5], fields[6], fields[10]
    check_size(rows, columns)
    expect("index_bytes", index_bytes, index_bytes_for(rows, columns))
    expect("reserved", reserved, 0)
    expect("payload_bytes (the bytes given)", payload_bytes, len(data))
    return data, fields[5:12], fields[12:20], VALUE_TYPES[value_type]


def read_sections(
    data: memoryview, places: tuple[int, ...], *lengths: tuple[str, int]
) -> list[Section]:
    """Checks the four sections: in order, aligned, inside, with zeros between them.

    Args:
        data: The whole payload.
        places: Offset and length of every section, from the header.
        lengths: Name and expected bytes of every section; the last holds the values.

    Raises:
        PayloadError: If a section is not where or as long as it must be.
    """
    sections, end = [], HEADER_BYTES
    for i, (name, length) in enumerate(lengths):
        alignment = VALUE_ALIGNMENT if i == len(lengths) - 1 else 4
        section = Section(places[2 * i], places[2 * i + 1])
        expect(f"length of section {name}", section.length, length)
        if section.offset % alignment:
            raise PayloadError(
                f"section {name} must start at a multiple of {alignment} bytes, "
                f"received offset {section.offset}"
            )
        if section.offset < end or section.end > len(data):
            raise PayloadError(
                f"section {name} must lie in bytes {end} to {len(data)}, "
                f"received {section.offset} to {section.end}"
            )
        if any(data[end : section.offset]):
            raise PayloadError(f"the gap before section {name} must be zero bytes")
        sections.append(section)
        end = section.end
    expect(f"end of section {lengths[-1][0]}", end, len(data))
    return sections


def stored_values(values: np.ndarray) -> np.ndarray:
    """Returns values as a payload stores them, little-endian.

    Raises:
        PayloadError: If they are neither float32 nor float16.
    """
    dtype = np.dtype(values.dtype).newbyteorder("<")
    if dtype not in VALUE_TYPES:
        raise PayloadError(f"values must be float32 or float16, received {dtype}")
    return np.ascontiguousarray(values, dtype)


def section_view(
    data: memoryview, section: Section, dtype: str | np.dtype
) -> np.ndarray:
    """Returns a section as a read-only array."""
    array = np.frombuffer(data, np.uint8, section.length, section.offset).view(dtype)
    array.flags.writeable = False
    return array


def decode(payload: bytes | memoryview | np.ndarray) -> BandedMatrix:
    """Reads and checks a payload.

    Args:
        payload: The whole payload.

    Returns:
        The banded matrix; its arrays are read-only views of ``payload``.

    Raises:
        PayloadError: If anything in the payload breaks a rule of the format.
    """
    data = as_bytes_view(payload)
    header = read_header(data)
    index_type = f"<u{header.index_bytes}"
    row_id = section_view(data, header.row_id, index_type)
    value = section_view(data, header.value, header.value_type)
    matrix = BandedMatrix(
        header.rows,
        header.columns,
        row_id.reshape(header.band_count, header.band_rows),
        section_view(data, header.band_start, "<u4"),
        section_view(data, header.column, index_type),
        value.reshape(header.column_count, header.band_rows),
    )
    _check_matrix(matrix)
    return matrix


def _fields(data: memoryview) -> tuple:
    if len(data) < HEADER_BYTES:
        raise PayloadError(
            f"payload too short: expected at least {HEADER_BYTES} bytes, "
            f"received {len(data)}"
        )
    return _HEADER.unpack_from(data, 0)


def as_bytes_view(payload: bytes | memoryview | np.ndarray) -> memoryview:
    """Returns a payload as a flat view of bytes.

    Raises:
        PayloadError: If it has no bytes.
    """
    try:
        view = memoryview(payload)
        return view if view.format == "B" and view.ndim == 1 else view.cast("B")
    except TypeError as error:
        raise PayloadError(
            f"a payload must be bytes, received {type(payload).__name__}: {error}"
        ) from None


def expect(name: str, received: object, expected: object) -> None:
    """Raises PayloadError unless a field has its one allowed value."""
    if received != expected:
        raise PayloadError(
            f"payload {name}: expected {expected!r}, received {received!r}"
        )


def check_size(rows: int, columns: int) -> None:
    """Raises PayloadError unless there is at least one row and one column."""
    if not 1 <= rows < _MAX_U32 or not 1 <= columns <= _MAX_U32:
        raise PayloadError(
            f"rows and columns must be at least 1, received {rows} x {columns}"
        )


def _check_shape(rows: int, columns: int, band_rows: int) -> None:
    check_size(rows, columns)
    if band_rows not in BAND_ROWS:
        raise PayloadError(
            f"band_rows must be one of {BAND_ROWS}, received {band_rows}"
        )


def _check_matrix(matrix: BandedMatrix) -> None:
    """Raises PayloadError unless every rule on the sections' contents holds."""
    rows, columns = matrix.rows, matrix.columns
    _check_shape(rows, columns, matrix.band_rows)
    bands, n, lanes = matrix.band_count, matrix.column_count, matrix.band_rows
    expect("shape of values", matrix.value.shape, (n, lanes))
    expect("shape of band_start", matrix.band_start.shape, (bands + 1,))

    start = np.asarray(matrix.band_start, np.int64)
    if start[0] != 0 or start[-1] != n or np.any(np.diff(start) < 0):
        raise PayloadError(
            f"band_start must ascend from 0 to column_count = {n}, received "
            f"{start[0]} .. {start[-1]}"
        )
    row_id = np.asarray(matrix.row_id, np.int64)
    used = row_id < rows
    if row_id.size and (row_id.max() > rows or row_id.min() < 0):
        raise PayloadError(
            f"row_id must be at most rows = {rows}, received {row_id.max()}"
        )
    carried = np.sort(row_id[used])
    repeated = np.flatnonzero(carried[1:] == carried[:-1])
    if repeated.size:
        raise PayloadError(f"output row {carried[repeated[0]]} appears more than once")
    idle = ~used.any(axis=1) & (np.diff(start) == 0)
    if idle.any():
        raise PayloadError(
            f"band {np.flatnonzero(idle)[0]} has neither rows nor columns"
        )

    column = np.asarray(matrix.column, np.int64)
    if n and (column.max() >= columns or column.min() < 0):
        raise PayloadError(f"columns must be below {columns}, received {column.max()}")
    rises = np.diff(column) > 0
    first = start[1:-1]
    first = first[(first > 0) & (first < n)]
    rises[first - 1] = True  # a new band may begin anywhere
    if not rises.all():
        at = int(np.flatnonzero(~rises)[0])
        raise PayloadError(
            "columns must ascend strictly inside a band, received "
            f"{column[at]} before {column[at + 1]}"
        )
    if not used.all():
        for band in np.flatnonzero(~used.all(axis=1)):
            lanes_idle = matrix.value[start[band] : start[band + 1], ~used[band]]
            if np.any(lanes_idle != 0):
                raise PayloadError(
                    f"band {band} holds weights in a lane that carries no row"
                )
