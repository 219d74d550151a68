# SPDX-License-Identifier: Apache-2.0
"""The ZIP archive that TFLite metadata puts behind a model: labels and other files."""

from __future__ import annotations

import io
import struct
import zipfile

from tfrewprune.converter.errors import ConversionError

_END = struct.Struct("<4s4H2IH")  # end of central directory, without its comment
_ENTRY = struct.Struct("<4s6H3I5H2I")  # entry of the central directory
_LONGEST_COMMENT = 0xFFFF
_ZIP64 = 0xFFFFFFFF


def read_archive(content: memoryview) -> bytes:
    """Returns the ZIP archive behind a model, re-based to start at byte 0.

    Its files are copied as they are, compressed or not, with the archive's comment:
    nothing is unpacked.

    Args:
        content: The whole file of a model.

    Returns:
        The archive, or nothing where there is none.

    Raises:
        ConversionError: If the archive is damaged or of a kind (ZIP64) that cannot be
            moved.
    """
    end = _find_end(content)
    if end is None:
        return b""
    *_, entries, directory_bytes, directory, _ = _END.unpack_from(content, end)
    start = end - directory_bytes
    # Bytes in front of the archive that its offsets do not count.
    uncounted = start - directory
    if _ZIP64 in (directory, directory_bytes) or start < 0 or uncounted < 0:
        raise _damaged("its directory lies outside of the file, or it is ZIP64")
    places, offsets = [], []
    position = start
    for _ in range(entries):
        if position + _ENTRY.size > end:
            raise _damaged(f"its directory ends before {entries} entries")
        fields = _ENTRY.unpack_from(content, position)
        if fields[0] != b"PK\x01\x02":
            raise _damaged("an entry of its directory has no signature")
        places.append(position + _ENTRY.size - 4)
        offsets.append(fields[-1])
        position += _ENTRY.size + sum(fields[10:13])
    first = min(offsets, default=directory)
    begin = first + uncounted
    for offset in offsets:
        at = offset + uncounted
        if not 0 <= at < start or content[at : at + 4] != b"PK\x03\x04":
            raise _damaged("a file in it does not start where its directory says")
    archive = bytearray(content[begin:])
    for place, offset in zip(places, offsets, strict=True):
        struct.pack_into("<I", archive, place - begin, offset - first)
    struct.pack_into("<I", archive, end - begin + 16, directory - first)
    try:
        zipfile.ZipFile(io.BytesIO(archive)).close()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise _damaged(str(error)) from error
    return bytes(archive)


def _find_end(content: memoryview) -> int | None:
    """Where the end record lies: the one whose comment reaches the end of the file."""
    first = max(0, len(content) - _END.size - _LONGEST_COMMENT)
    tail = bytes(content[first:])
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        fits = at + _END.size <= len(tail)
        if fits and _END.unpack_from(tail, at)[-1] == len(tail) - at - _END.size:
            return first + at
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return None


def _damaged(why: str) -> ConversionError:
    return ConversionError(f"the ZIP archive behind the model is damaged: {why}")
