# SPDX-License-Identifier: Apache-2.0
"""Layout 0 of the payload, banded: bytes to arrays and back, checked both ways.

Specified in ``tflite_ops/format/PAYLOAD.md``. It decides nothing: how rows are cut into
bands is the business of ``tfrewprune.payload.packer``. Layout 1 is in
``tfrewprune.payload.irregular``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfrewprune.payload.container import (
    HEADER_BYTES,
    LAYOUT_BANDED,
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
from tfrewprune.payload.values import (
    AS_FLOAT32,
    PayloadError,
    ValueForm,
    check_values,
    loaded,
)

BAND_ROWS = (4, 8, 16, 32)


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
        neighbours: Whether every band carries neighbouring rows.
        row_id: Section of B x R row numbers; of B, the first of every band, where they
            are neighbours.
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
    neighbours: bool
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
        value: One of `VALUE_TYPES`, ``[N, R]``; lane r of a band's columns belongs to
            row ``row_id[b, r]``.
        scale: float32 ``[1]`` or ``[O]`` of int8 values, see `ValueForm`.
    """

    rows: int
    columns: int
    row_id: np.ndarray
    band_start: np.ndarray
    column: np.ndarray
    value: np.ndarray
    scale: np.ndarray | None = None

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
            stored = self.value[owned, lanes].T
            dense[at] = loaded(stored, self.scale, row[lanes][:, None])
        return dense


def payload_size(
    rows: int,
    columns: int,
    band_rows: int,
    bands: int,
    n: int,
    form: ValueForm = AS_FLOAT32,
    neighbours: bool = False,
) -> int:
    """Returns the bytes of a payload with ``bands`` bands of ``n`` columns in all.

    Args:
        rows: Output channels.
        columns: Columns of the matrix.
        band_rows: Rows of a band.
        bands: Bands.
        n: Columns of all bands together.
        form: What a weight is stored as.
        neighbours: See `are_neighbours`.
    """
    index_bytes = index_bytes_for(rows, columns)
    row_ids = bands * (1 if neighbours else band_rows)
    end = align(HEADER_BYTES + row_ids * index_bytes, 4)
    end = align(end + (bands + 1) * 4 + n * index_bytes, 4) + form.scale_bytes
    return align(end, VALUE_ALIGNMENT) + n * band_rows * form.dtype.itemsize


def are_neighbours(row_id: np.ndarray, rows: int) -> bool:
    """Whether the rows of every band follow each other, so that the first says it all.

    Args:
        row_id: Rows of every band, ``[B, R]``; ``rows`` where a lane carries none.
        rows: Rows of the matrix.
    """
    first = np.asarray(row_id, np.int64)[:, :1]
    wanted = np.minimum(first + np.arange(row_id.shape[1]), rows)
    return len(row_id) > 0 and bool((first < rows).all() and (wanted == row_id).all())


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
    neighbours = are_neighbours(matrix.row_id, matrix.rows)
    row_id = matrix.row_id[:, 0] if neighbours else matrix.row_id
    indices = (
        row_id.astype(index_type),
        matrix.band_start.astype("<u4"),
        matrix.column.astype(index_type),
    )
    counts = (matrix.band_rows, matrix.band_count, matrix.column_count)
    shape = (matrix.rows, matrix.columns)
    fields = (LAYOUT_BANDED, *shape, *counts, index_bytes, int(neighbours))
    return write_payload(fields, indices, matrix.value, matrix.scale)


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
    return _header(read_fields(payload, LAYOUT_BANDED))


def _header(fields: Fields) -> Header:
    rows, columns, band_rows, bands, n, index_bytes, flags = fields.counts
    _check_shape(rows, columns, band_rows)
    expect("index_bytes", index_bytes, index_bytes_for(rows, columns))
    if flags not in (0, 1):
        raise PayloadError(f"flags must be 0 or 1, received {flags}")
    if n > MAX_U32:
        raise PayloadError(f"column_count must be below 2**32, received {n}")
    sections = read_sections(
        fields,
        ("row_id", bands * (1 if flags else band_rows) * index_bytes),
        ("band_start", (bands + 1) * 4),
        ("column", n * index_bytes),
        ("value", n * band_rows * fields.value_type.itemsize),
    )
    return Header(
        *(rows, columns, band_rows, bands, n, index_bytes, bool(flags)),
        *sections,
        fields.value_type,
        len(fields.data),
    )


def decode(payload: bytes | memoryview | np.ndarray) -> BandedMatrix:
    """Reads and checks a payload.

    Args:
        payload: The whole payload.

    Returns:
        The banded matrix; its arrays are read-only, and views of ``payload`` but for
        the rows of neighbours.

    Raises:
        PayloadError: If anything in the payload breaks a rule of the format.
    """
    fields = read_fields(payload, LAYOUT_BANDED)
    data, header = fields.data, _header(fields)
    index_type = f"<u{header.index_bytes}"
    row_id = section_view(data, header.row_id, index_type)
    if header.neighbours:
        lanes = np.arange(header.band_rows, dtype=np.int64)
        if row_id.size and row_id.max() >= header.rows:
            raise PayloadError(
                f"the first row of a band must be below rows = {header.rows}, received "
                f"{row_id.max()}"
            )
        row_id = np.minimum(row_id[:, None] + lanes, header.rows)
        row_id.setflags(write=False)
    value = section_view(data, header.value, header.value_type)
    matrix = BandedMatrix(
        header.rows,
        header.columns,
        row_id.reshape(header.band_count, header.band_rows),
        section_view(data, header.band_start, "<u4"),
        section_view(data, header.column, index_type),
        value.reshape(header.column_count, header.band_rows),
        fields.read_scale(),
    )
    _check_matrix(matrix)
    return matrix


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
    check_values(matrix.value, matrix.scale, rows)
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
