# SPDX-License-Identifier: Apache-2.0
"""Writes the golden payloads that the Python and the C++ tests both read.

Run ``python tests/golden/generate.py`` only when PAYLOAD.md changes. Files:

- ``payloads.txt``: one line a payload,
  ``name rows columns band_rows band_count column_count``;
- ``NAME.payload``: the bytes; ``NAME.weights``: its weights other than 0 in row-major
  order, 12 bytes each: u32 row, u32 column, float32 value;
- ``refused.txt``: one line a damaged payload, ``name what-is-wrong``;
- ``NAME.refused``: the bytes every reader must refuse;
- ``irregular.txt``, ``irregular_refused.txt``: the same for layout 1, a line being
  ``name rows columns taps chunk_channels segment_count weight_count``.

``half_NAME`` holds the weights of ``NAME`` as float16 (value_type 1), ``int8_NAME`` as
int8 with a scale for each row (value_type 2), ``int8_one_scale_NAME`` with one of all;
``masked_NAME`` has a mask instead of columns, ``neighbours_NAME`` the first row of
every band instead of all.

The bytes are put together here by hand, not by ``tfrewprune.payload``.
"""

from __future__ import annotations

import struct
from pathlib import Path

FOLDER = Path(__file__).parent


def align(n: int, to: int) -> int:
    return -(-n // to) * to


def weight(row: int, column: int) -> float:
    """A value that float16 holds exactly and that is never 0."""
    return ((row * 37 + column * 11) % 64 - 32 + 0.5) / 16.0


#: value_type -> struct's letter.
LETTERS = "feb"
FLOAT, HALF, INT8 = range(3)


def scales_of(rows, form):
    """The scales of int8 weights: powers of two, so that they hold every `weight`."""
    value_type, one_scale = form
    if value_type != INT8:
        return []
    return [1 / 32] if one_scale else [1 / 32 / (1 + row % 2) for row in range(rows)]


def stored(value, row, scales):
    if not scales:
        return value
    return round(value / scales[row if len(scales) > 1 else 0])


def build(rows, columns, lanes, bands, form=(FLOAT, False), neighbours=False):
    """Returns (payload, weights) of ``bands``: a list of (row ids, columns)."""
    width = 2 if rows <= 65535 and columns <= 65536 else 4
    letter = {2: "H", 4: "I"}[width]
    row_id, start, column, value = [], [0], [], []
    weights, scales = {}, scales_of(rows, form)
    for ids, owned in bands:
        ids = list(ids) + [rows] * (lanes - len(ids))
        row_id += ids[:1] if neighbours else ids
        column += owned
        start.append(len(column))
        for k in owned:
            for row in ids:
                survives = row < rows and (row * 7 + k) % 13 != 0
                value.append(stored(weight(row, k), row, scales) if survives else 0)
                if survives:
                    weights[row, k] = weight(row, k)
    parts = [
        (struct.pack(f"<{len(row_id)}{letter}", *row_id), 4),
        (struct.pack(f"<{len(start)}I", *start), 4),
        (struct.pack(f"<{len(column)}{letter}", *column), 4),
    ]
    counts = (rows, columns, lanes, len(bands), len(column), width, int(neighbours))
    return assemble(0, form, counts, parts, scales, value), records(weights)


def assemble(layout, form, counts, parts, scales, value):
    value_type = form[0]
    body, sections = bytearray(128), []
    values = struct.pack(f"<{len(value)}{LETTERS[value_type]}", *value)
    for data, to in (
        *parts,
        (struct.pack(f"<{len(scales)}f", *scales), 4),
        (values, 64),
    ):
        body += bytes(align(len(body), to) - len(body))
        sections.append((len(body), len(data)))
        body += data
    where, _ = sections.pop(3)
    scale = (where if scales else 0, len(scales))
    places = [number for section in sections for number in section]
    body[:128] = struct.pack(
        "<4sHHIIIIIIQIIQQQQQQQQQII",
        *(b"TFRP", 1, 128, layout, value_type, *counts, *places, len(body), *scale),
    )
    return bytes(body)


def records(weights):
    return b"".join(struct.pack("<IIf", *at, weights[at]) for at in sorted(weights))


def build_irregular(
    rows, columns, taps, chunk_channels, segments, form=(FLOAT, False), masked=False
):
    """Returns (payload, weights) of ``segments``: a list of (row, columns)."""
    width = 2 if rows <= 65535 and columns <= 65536 else 4
    letter = {2: "H", 4: "I"}[width]
    start, column, value = [0], [], []
    weights, scales = {}, scales_of(rows, form)
    for row, owned in segments:
        column += owned
        start.append(len(column))
        for k in owned:
            channel, tap = divmod(k, taps)
            weights[row, tap * (columns // taps) + channel] = weight(row, k)
            value.append(stored(weight(row, k), row, scales))
    rows_of = [row for row, _ in segments]
    parts = [
        (struct.pack(f"<{len(rows_of)}{letter}", *rows_of), 4),
        (struct.pack(f"<{len(start)}I", *start), 4),
        (struct.pack(f"<{len(column)}{letter}", *column), 4),
    ]
    if masked:
        width = 0
        parts = [
            (b"", 4),
            (b"", 4),
            (mask_of(rows, columns, taps * chunk_channels, segments), 4),
        ]
    counts = (rows, columns, taps, len(segments), len(column), width, chunk_channels)
    return assemble(1, form, counts, parts, scales, value), records(weights)


def mask_of(rows, columns, chunk, segments):
    """A bit for every weight: by chunks of columns, in them row by row."""
    order = [
        (row, k)
        for first in range(0, columns, chunk)
        for row in range(rows)
        for k in range(first, min(first + chunk, columns))
    ]
    kept = {(row, k) for row, owned in segments for k in owned}
    bits = sum(1 << i for i, at in enumerate(order) if at in kept)
    return bits.to_bytes(align(len(order), 8) // 8, "little")


PAYLOADS = {
    "empty": (3, 5, 4, []),
    "one_weight": (1, 1, 4, [([0], [0])]),
    "two_bands": (
        *(32, 27, 16),
        [(range(16), [0, 3, 4, 26]), (range(16, 32), [1, 2, 25])],
    ),
    "ragged": (19, 36, 8, [(range(8), [5, 35]), ([16, 17, 18], [0, 1, 2, 34])]),
    "reordered": (
        *(12, 50, 4),
        [([11, 2, 7, 5], [49]), ([0, 1, 10, 3], [0, 7, 48]), ([9], [])],
    ),
    "wide_band": (40, 64, 32, [(range(1, 33), [0, 63]), ([0, 39], [1, 62])]),
    "wide_index": (5, 65537, 4, [([4, 0], [0, 65535, 65536])]),
    "widest_short_index": (3, 65536, 4, [([2], [0, 65535])]),
}


IRREGULAR = {
    "irregular_empty": (3, 18, 9, 2, []),
    "irregular_one": (1, 1, 1, 1, [(0, [0])]),
    "irregular_conv": (
        *(5, 45, 9, 2),
        [(0, [0, 8, 9]), (3, [17]), (1, [18, 35]), (3, [20, 21, 34]), (4, [36, 44])],
    ),
    "irregular_dense_layer": (4, 7, 1, 7, [(1, [0, 3, 6]), (3, [2])]),
    "irregular_wide": (2, 65538, 9, 7282, [(1, [0, 65536, 65537])]),
}


def put(payload, offset, letter, value):
    damaged = bytearray(payload)
    struct.pack_into("<" + letter, damaged, offset, value)
    return bytes(damaged)


def refused(payload):
    """Yields (name, what is wrong, bytes) from the payload "ragged"."""
    row_id, start, column, value = (
        struct.unpack_from("<Q", payload, 48 + 16 * i)[0] for i in range(4)
    )
    fields = {
        "magic": (0, "I", 0),
        "version": (4, "H", 2),
        "header_bytes": (6, "H", 64),
        "layout": (8, "I", 1),
        "value_type": (12, "I", 3),
        "value_type_of_half_the_length": (12, "I", 1),
        "int8_without_scale": (12, "I", 2),
        "rows_zero": (16, "I", 0),
        "rows_huge": (16, "I", 0xFFFFFFFF),
        "columns_zero": (20, "I", 0),
        "columns_small": (20, "I", 35),
        "band_rows": (24, "I", 5),
        "band_count": (28, "I", 3),
        "band_count_huge": (28, "I", 0xFFFFFFFF),
        "column_count": (32, "Q", 7),
        "column_count_huge": (32, "Q", 1 << 62),
        "index_bytes": (40, "I", 4),
        "flags": (44, "I", 1),
        "flags_unknown": (44, "I", 2),
        "row_id_offset": (48, "Q", 132),
        "row_id_in_header": (48, "Q", 64),
        "row_id_length": (56, "Q", 34),
        "band_start_offset": (64, "Q", 1 << 63),
        "column_offset": (80, "Q", 0xFFFFFFFFFFFFFFFC),
        "column_length": (88, "Q", 0xFFFFFFFFFFFFFFFF),
        "value_offset": (96, "Q", value + 4),
        "value_length": (104, "Q", 0),
        "payload_bytes": (112, "Q", len(payload) + 64),
        "scale_offset_of_floats": (120, "I", 1),
        "scale_count_of_floats": (124, "I", 1),
        "row_repeated": (row_id + 2, "H", 0),
        "row_out_of_range": (row_id, "H", 20),
        "band_start_first": (start, "I", 1),
        "band_start_falls": (start + 4, "I", 7),
        "band_start_last": (start + 8, "I", 5),
        "column_out_of_range": (column + 2, "H", 36),
        "column_repeated": (column + 2, "H", 5),
        "column_falls": (column + 6, "H", 0),
        "gap_not_zero": (column + 12, "B", 1),
        "idle_lane_not_zero": (value + 4 * (2 * 8 + 7), "f", 1.0),
    }
    for name, (offset, letter, new) in fields.items():
        what = f"{letter} at byte {offset} is {new}"
        yield name, what, put(payload, offset, letter, new)
    yield "truncated", "last byte missing", payload[:-1]
    yield "trailing", "four bytes too many", payload + bytes(4)
    yield "header_only", "nothing after the header", payload[:128]
    yield "short_header", "127 bytes", payload[:127]
    yield "no_bytes", "nothing", b""
    halves, _ = build(*PAYLOADS["ragged"], (HALF, False))
    yield "half_of_twice_the_length", "value_type 0", put(halves, 12, "I", 0)
    # A lane without a row: the last half of column 2 of the band of three rows.
    lane = value + 2 * (4 * 8 + 3)
    yield "half_idle_lane_not_zero", "2^-24 there", put(halves, lane, "H", 1)
    integers, _ = build(*PAYLOADS["ragged"], (INT8, False))
    scale, count = struct.unpack_from("<II", integers, 120)
    for name, what, offset, letter, new in (
        ("scale_count", "one of 19 missing", 124, "I", count - 1),
        ("scale_in_columns", "offset 4 less", 120, "I", scale - 4),
        ("scale_offset", "no multiple of 4", 120, "I", scale + 2),
        ("scale_behind_the_end", "beyond the payload", 120, "I", 0xFFFFFFFC),
        ("scale_zero", "0", scale, "f", 0.0),
        ("scale_negative", "below 0", scale + 4, "f", -1.0),
        ("scale_infinite", "infinite", scale + 4, "f", float("inf")),
        ("scale_nan", "not a number", scale + 4 * 18, "f", float("nan")),
    ):
        yield f"int8_{name}", what, put(integers, offset, letter, new)
    near, _ = build(*PAYLOADS["ragged"], neighbours=True)
    (row_id,), (value,) = (struct.unpack_from("<Q", near, at) for at in (48, 96))
    lane = value + 4 * (2 * 8 + 3)
    for name, what, offset, letter, new in (
        ("flags", "0", 44, "I", 0),
        ("flags_unknown", "3", 44, "I", 3),
        ("row_repeated", "rows 7 and 8 twice", row_id + 2, "H", 7),
        ("row_out_of_range", "a first row that there is not", row_id + 2, "H", 19),
        ("idle_lane_not_zero", "1.0 in the lane behind the last row", lane, "f", 1.0),
    ):
        yield f"neighbours_{name}", what, put(near, offset, letter, new)
    idle, _ = build(8, 9, 4, [(range(4), [1]), ([], [])])
    yield "idle_band", "a band with neither rows nor columns", idle


def refused_irregular(payload):
    """Yields (name, what is wrong, bytes) from the payload "irregular_conv"."""
    row_id, start, column, value = (
        struct.unpack_from("<Q", payload, 48 + 16 * i)[0] for i in range(4)
    )
    fields = {
        "layout": (8, "I", 2),
        "value_type": (12, "I", 3),
        "value_type_of_half_the_length": (12, "I", 1),
        "index_bytes_of_a_mask": (40, "I", 0),
        "rows_small": (16, "I", 4),
        "columns_not_of_taps": (20, "I", 46),
        "taps_zero": (24, "I", 0),
        "taps": (24, "I", 7),
        "segment_count": (28, "I", 4),
        "weight_count_huge": (32, "Q", 1 << 62),
        "chunk_zero": (44, "I", 0),
        "chunk_too_large": (44, "I", 6),
        "chunk_splits_a_segment": (44, "I", 1),
        "row_id_length": (56, "Q", 8),
        "column_length": (88, "Q", 20),
        "value_offset": (96, "Q", value - 64),
        "row_out_of_range": (row_id + 8, "H", 5),
        "row_repeated_in_chunk": (row_id + 2, "H", 0),
        "start_first": (start, "I", 1),
        "start_repeated": (start + 8, "I", 3),
        "start_last": (start + 20, "I", 10),
        "column_out_of_range": (column + 20, "H", 45),
        "column_repeated": (column + 2, "H", 0),
        "column_falls": (column + 14, "H", 19),
        "chunks_fall": (column + 6, "H", 44),
    }
    for name, (offset, letter, new) in fields.items():
        what = f"{letter} at byte {offset} is {new}"
        yield f"irregular_{name}", what, put(payload, offset, letter, new)
    yield "irregular_truncated", "last byte missing", payload[:-1]
    yield "irregular_trailing", "four bytes too many", payload + bytes(4)


def refused_masked(payload):
    """Yields (name, what is wrong, bytes) from the payload "masked_irregular_conv"."""
    (mask,) = struct.unpack_from("<Q", payload, 80)
    fields = {
        "index_bytes": (40, "I", 2),
        "segment_count": (28, "I", 4),
        "segment_count_large": (28, "I", 6),
        "weight_count": (32, "Q", 12),
        "chunk_channels": (44, "I", 1),
        "bit_missing": (mask, "B", payload[mask] & 0xFE),
        "bit_too_many": (mask, "B", payload[mask] | 2),
        "bit_behind_the_end": (mask + 28, "B", payload[mask + 28] | 2),
        "mask_length": (88, "Q", 28),
        "row_id_length": (56, "Q", 2),
        "start_length": (72, "Q", 4),
        "rows": (16, "I", 4),
        "columns": (20, "I", 36),
    }
    for name, (offset, letter, new) in fields.items():
        what = f"{letter} at byte {offset} is {new}"
        yield f"masked_{name}", what, put(payload, offset, letter, new)


def every_form(payloads):
    """Yields (name, arguments, form): value_type, and whether there is one scale."""
    for name, arguments in payloads.items():
        yield name, arguments, (FLOAT, False)
        yield f"half_{name}", arguments, (HALF, False)
        yield f"int8_{name}", arguments, (INT8, False)
        yield f"int8_one_scale_{name}", arguments, (INT8, True)


def main() -> None:
    lines = []
    written = [*every_form(PAYLOADS)]
    for name in ("one_weight", "two_bands", "ragged"):
        written.append((f"neighbours_{name}", PAYLOADS[name], (FLOAT, False)))
    for name, arguments, form in written:
        payload, weights = build(*arguments, form, name.startswith("neighbours"))
        (FOLDER / f"{name}.payload").write_bytes(payload)
        (FOLDER / f"{name}.weights").write_bytes(weights)
        rows, columns, lanes, bands = arguments
        count = sum(len(owned) for _, owned in bands)
        lines.append(f"{name} {rows} {columns} {lanes} {len(bands)} {count}\n")
    (FOLDER / "payloads.txt").write_text("".join(lines))
    lines = []
    for name, what, payload in refused(build(*PAYLOADS["ragged"])[0]):
        (FOLDER / f"{name}.refused").write_bytes(payload)
        lines.append(f"{name} {what}\n")
    (FOLDER / "refused.txt").write_text("".join(lines))
    lines = []
    for name, arguments, form in every_form(IRREGULAR):
        *size, segments = arguments
        count = sum(len(owned) for _, owned in segments)
        # A mask of the widest one would take 16 KB.
        for masked in (False, True) if size[1] < 1000 else (False,):
            payload, weights = build_irregular(*arguments, form, masked)
            written = f"masked_{name}" if masked else name
            (FOLDER / f"{written}.payload").write_bytes(payload)
            (FOLDER / f"{written}.weights").write_bytes(weights)
            numbers = (*size, len(segments), count)
            lines.append(" ".join(map(str, (written, *numbers))) + "\n")
    (FOLDER / "irregular.txt").write_text("".join(lines))
    lines = []
    conv = IRREGULAR["irregular_conv"]
    for name, what, payload in (
        *refused_irregular(build_irregular(*conv)[0]),
        *refused_masked(build_irregular(*conv, masked=True)[0]),
    ):
        (FOLDER / f"{name}.refused").write_bytes(payload)
        lines.append(f"{name} {what}\n")
    (FOLDER / "irregular_refused.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
