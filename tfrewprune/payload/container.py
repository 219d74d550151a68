# SPDX-License-Identifier: Apache-2.0
"""What both layouts of a payload share: the header, and sections behind it.

The bytes are specified in ``tflite_ops/format/PAYLOAD.md``; the C++ half reads the
same ones.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from tfrewprune.payload.values import VALUE_NAMES, VALUE_TYPES, PayloadError

MAGIC = b"TFRP"
VERSION = 1
HEADER_BYTES = 128
LAYOUT_BANDED = 0
LAYOUT_IRREGULAR = 1
VALUE_ALIGNMENT = 64
MAX_U32 = 0xFFFFFFFF
# A few hostile bytes must not make a reader allocate terabytes.
MAX_DENSE_BYTES = 1 << 33

_HEADER = struct.Struct("<4sHH6IQII8QQII")
assert _HEADER.size == HEADER_BYTES


@dataclass(frozen=True)
class Section:
    """Where a section lies, in bytes from the first byte of the payload."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


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


def write_payload(
    fields: tuple[int, ...],
    indices: tuple[np.ndarray, np.ndarray, np.ndarray],
    value: np.ndarray,
    scale: np.ndarray | None,
) -> bytes:
    """Puts a header and its sections together.

    Args:
        fields: layout, rows, columns, and the five header fields from offset 24 on.
        indices: The three sections before the scale.
        value: The values.
        scale: Their scale, or None.
    """
    value = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    scale = np.zeros(0, "<f4") if scale is None else scale.astype("<f4")
    parts = [(array, 4) for array in (*indices, scale)] + [(value, VALUE_ALIGNMENT)]
    places, end = [], HEADER_BYTES
    for array, alignment in parts:
        offset = align(end, alignment)
        places.append((offset, array.nbytes))
        end = offset + array.nbytes
    payload = bytearray(end)
    layout, *counts = fields
    start = (MAGIC, VERSION, HEADER_BYTES, layout, VALUE_TYPES.index(value.dtype))
    sections = (number for place in (*places[:3], places[4]) for number in place)
    scales = (places[3][0] if scale.size else 0, scale.size)
    _HEADER.pack_into(payload, 0, *start, *counts, *sections, end, *scales)
    view = memoryview(payload)
    for (array, _), (offset, length) in zip(parts, places, strict=True):
        if length:
            view[offset : offset + length] = memoryview(array).cast("B")
    return bytes(payload)


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


@dataclass(frozen=True)
class Fields:
    """A header whose fields that all layouts share were checked.

    Attributes:
        data: The whole payload.
        counts: The seven fields from offset 16 on.
        places: Offset and length of four sections; the last holds the values.
        value_type: What a value is, one of `VALUE_TYPES`.
        scale: The section of scales; empty unless values are int8.
    """

    data: memoryview
    counts: tuple[int, ...]
    places: tuple[Section, ...]
    value_type: np.dtype
    scale: Section

    def read_scale(self) -> np.ndarray | None:
        """Returns the scales as a read-only array, or None where there are none."""
        if not self.scale.length:
            return None
        return section_view(self.data, self.scale, "<f4")


def read_fields(payload: bytes | memoryview | np.ndarray, layout: int) -> Fields:
    """Reads a header and checks what all layouts share.

    Args:
        payload: The whole payload.
        layout: The layout it must have.

    Raises:
        PayloadError: If the header is damaged or of another layout.
    """
    data = as_bytes_view(payload)
    fields = _fields(data)
    magic, version, header_bytes, found, value_type = fields[:5]
    payload_bytes, scale_offset, scale_count = fields[20:23]
    expect("magic", magic, MAGIC)
    expect("version", version, VERSION)
    expect("header_bytes", header_bytes, HEADER_BYTES)
    expect("layout", found, layout)
    if value_type >= len(VALUE_TYPES):
        raise PayloadError(
            f"payload value_type: expected 0, 1 or 2 ({VALUE_NAMES}), received "
            f"{value_type}"
        )
    check_size(fields[5], fields[6])
    expect("payload_bytes (the bytes given)", payload_bytes, len(data))
    places = fields[12:20]
    return Fields(
        data,
        fields[5:12],
        tuple(Section(places[i], places[i + 1]) for i in range(0, 8, 2)),
        VALUE_TYPES[value_type],
        Section(scale_offset, 4 * scale_count),
    )


def read_sections(fields: Fields, *lengths: tuple[str, int]) -> tuple[Section, ...]:
    """Checks the sections: in order, aligned, inside, with zeros between them.

    Args:
        fields: The header.
        lengths: Name and expected bytes of the four sections of the layout; the last
            holds the values.

    Returns:
        These four.

    Raises:
        PayloadError: If a section is not where or as long as it must be.
    """
    data = fields.data
    for (name, length), section in zip(lengths, fields.places, strict=True):
        expect(f"length of section {name}", section.length, length)
    *indices, value = fields.places
    named = [(lengths[i][0], section, 4) for i, section in enumerate(indices)]
    if fields.scale.length:
        named.append(("scale", fields.scale, 4))
    else:
        expect("scale_offset without scales", fields.scale.offset, 0)
    end = HEADER_BYTES
    for name, section, alignment in (*named, ("value", value, VALUE_ALIGNMENT)):
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
        end = section.end
    expect("end of section value", end, len(data))
    return fields.places


def section_view(
    data: memoryview, section: Section, dtype: str | np.dtype
) -> np.ndarray:
    """Returns a section as a read-only array."""
    array = np.frombuffer(data, np.uint8, section.length, section.offset).view(dtype)
    array.flags.writeable = False
    return array


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
    if not 1 <= rows < MAX_U32 or not 1 <= columns <= MAX_U32:
        raise PayloadError(
            f"rows and columns must be at least 1, received {rows} x {columns}"
        )
