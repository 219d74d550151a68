# SPDX-License-Identifier: Apache-2.0
"""Checks the skeleton of a ``.tflite`` file before anything else reads it.

Flatbuffer readers trust offsets. This walk visits every table, vector and string of
the schema once, refuses whatever points outside the file, and bounds the work that a
small hostile file can cause (tables that share each other a million times). It also
refuses what this version of the schema does not know: rewriting would lose it.
"""

from __future__ import annotations

import struct
from functools import cache

from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.errors import ConversionError

# LiteRT's own verifier allows no more tables either.
MAX_TABLES = 1_000_000

_STRING = "string"
_BYTES, _SHORTS, _INTS, _LONGS = 1, 2, 4, 8  # vectors, by width of their elements
_SCALAR_1, _SCALAR_4, _SCALAR_8 = "1", "4", "8"
_INDEX_VECTORS = {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"}
_DETAILS = {
    code: name
    for name, code in vars(schema.QuantizationDetails).items()
    if isinstance(code, int)
}

# Fields in the order of schema.fbs: a scalar's width, a vector's element width,
# [table] for a vector of tables, (table,) for a table, {...} for a union whose type is
# the field before it.
_TABLES: dict[str, list] = {
    "Model": [
        *(_SCALAR_4, ["OperatorCode"], ["SubGraph"], _STRING, ["Buffer"], _INTS),
        *(["Metadata"], ["SignatureDef"], ["ExternalBufferGroup"], ["ExternalBuffer"]),
    ],
    "OperatorCode": [_SCALAR_1, _STRING, _SCALAR_4, _SCALAR_4],
    "SubGraph": [["Tensor"], _INTS, _INTS, ["Operator"], _STRING, _SCALAR_4],
    "Tensor": [
        *(_INTS, _SCALAR_1, _SCALAR_4, _STRING, ("QuantizationParameters",)),
        *(_SCALAR_1, ("SparsityParameters",), _INTS, _SCALAR_1, ["VariantSubType"]),
        _SCALAR_4,
    ],
    "QuantizationParameters": [
        *(_INTS, _INTS, _INTS, _LONGS, _SCALAR_1, _DETAILS, _SCALAR_4),
    ],
    "CustomQuantization": [_BYTES],
    "SparsityParameters": [_INTS, _INTS, ["DimensionMetadata"]],
    "DimensionMetadata": [
        *(_SCALAR_1, _SCALAR_4, _SCALAR_1, _INDEX_VECTORS, _SCALAR_1, _INDEX_VECTORS),
    ],
    "Int32Vector": [_INTS],
    "Uint16Vector": [_SHORTS],
    "Uint8Vector": [_BYTES],
    "VariantSubType": [_INTS, _SCALAR_1, _SCALAR_1],
    "Operator": [
        *(_SCALAR_4, _INTS, _INTS, _SCALAR_1, "options 1", _BYTES, _SCALAR_1, _BYTES),
        *(_INTS, _SCALAR_8, _SCALAR_8, _SCALAR_1, "options 2", _SCALAR_4),
    ],
    "Buffer": [_BYTES, _SCALAR_8, _SCALAR_8],
    "Metadata": [_STRING, _SCALAR_4],
    "SignatureDef": [["TensorMap"], ["TensorMap"], _STRING, _STRING, _SCALAR_4],
    "TensorMap": [_STRING, _SCALAR_4],
    "ExternalBufferGroup": [_STRING],
    "ExternalBuffer": [_SCALAR_4, _SCALAR_4, _SCALAR_8, _SCALAR_8, _STRING],
}
_OPTIONS = {
    "options 1": schema.BuiltinOptions,
    "options 2": schema.BuiltinOptions2,
}


def check_bounds(content: memoryview) -> None:
    """Raises ConversionError unless ``content`` is a sound ``.tflite`` flatbuffer."""
    if len(content) < 8 or bytes(content[4:8]) != b"TFL3":
        raise ConversionError(
            "not a .tflite file: expected the identifier TFL3 at byte 4, received "
            f"{bytes(content[4:8])!r} in {len(content)} bytes"
        )
    _Walk(content).table("Model", 0, "the model")


@cache
def field_count(table: str) -> int:
    """Returns how many fields the installed schema knows of a table."""

    class Probe:
        def StartObject(self, count: int) -> None:  # noqa: N802 (flatbuffers' name)
            self.count = count

    probe = Probe()
    getattr(schema, f"{table}Start")(probe)
    return probe.count


@cache
def _options_table(options: str, code: int) -> str | None:
    for name, known in vars(_OPTIONS[options]).items():
        if known == code and isinstance(known, int):
            return name
    return None


class _Walk:
    def __init__(self, content: memoryview):
        self.content = content
        self.size = len(content)
        self.tables = 0
        # Vectors and strings may share bytes, but not without end.
        self.bytes_left = 16 * self.size + (1 << 24)
        self.u16 = struct.Struct("<H").unpack_from
        self.u32 = struct.Struct("<I").unpack_from
        self.i32 = struct.Struct("<i").unpack_from

    def refuse(self, what: str, why: str) -> None:
        raise ConversionError(
            f"not a valid .tflite file of {self.size} bytes: {what} {why}"
        )

    def follow(self, position: int, what: str) -> int:
        """Returns where the offset at a position points."""
        if position < 0 or position + 4 > self.size:
            self.refuse(what, f"has an offset at byte {position}")
        target = position + self.u32(self.content, position)[0]
        if target + 4 > self.size:
            self.refuse(what, f"lies at byte {target}")
        return target

    def vector(self, position: int, width: int, what: str) -> tuple[int, int]:
        """Returns the first byte and the length of the vector an offset leads to."""
        start = self.follow(position, what)
        length = self.u32(self.content, start)[0]
        if start + 4 + length * width > self.size:
            self.refuse(what, f"has {length} elements at byte {start}")
        self.bytes_left -= length * width
        if self.bytes_left < 0:
            self.refuse(what, "shares its bytes too often")
        return start + 4, length

    def table(self, kind: str, position: int, what: str) -> None:
        """Checks the table an offset leads to, and everything below it."""
        self.tables += 1
        if self.tables > MAX_TABLES:
            self.refuse(what, f"is the table after {MAX_TABLES}, the most allowed")
        start = self.follow(position, what)
        fields = self.fields(kind, start, what)
        layout = _TABLES.get(kind)
        if layout is None:
            return
        for number, at in enumerate(fields):
            if at == 0:
                continue
            place = start + at
            field = layout[number]
            label = f"{kind} field {number} of {what}" if kind == "Model" else what
            if isinstance(field, int):
                self.vector(place, field, label)
            elif isinstance(field, list):
                first, length = self.vector(place, 4, label)
                for index in range(length):
                    name = f"{field[0]} {index}"
                    self.table(field[0], first + 4 * index, name)
            elif isinstance(field, tuple):
                self.table(field[0], place, f"{field[0]} of {what}")
            elif field == _STRING:
                self.vector(place, 1, label)
            elif isinstance(field, dict) or field in _OPTIONS:
                self.union(field, place, start, fields[number - 1], what)
            elif place + int(field) > self.size:
                self.refuse(what, f"has a field at byte {place}")

    def union(
        self, field: dict | str, place: int, start: int, type_at: int, what: str
    ) -> None:
        code = self.content[start + type_at] if type_at else 0
        if isinstance(field, dict):
            name = field.get(code)
        else:
            name = _options_table(field, code)
        if name is None or name == "NONE":
            self.refuse(what, f"has options of type {code}, unknown to this LiteRT")
        self.table(name, place, f"{name} of {what}")

    def fields(self, kind: str, start: int, what: str) -> list[int]:
        """Returns the offset of every field inside a table, 0 when absent."""
        vtable = start - self.i32(self.content, start)[0]
        if vtable < 0 or vtable + 4 > self.size:
            self.refuse(what, f"has its field table at byte {vtable}")
        length, inline = struct.unpack_from("<HH", self.content, vtable)
        if length < 4 or length % 2 or vtable + length > self.size:
            self.refuse(what, f"has a field table of {length} bytes")
        if inline < 4 or start + inline > self.size:
            self.refuse(what, f"has {inline} bytes at byte {start}")
        count = length // 2 - 2
        fields = list(struct.unpack_from(f"<{count}H", self.content, vtable + 4))
        if any(at and not 4 <= at < inline for at in fields):
            self.refuse(what, "has a field outside of it")
        known = field_count(kind)
        if any(fields[known:]):
            self.refuse(
                what,
                f"has more than the {known} fields of {kind} this LiteRT knows; "
                "update ai-edge-litert",
            )
        return fields[:known]
