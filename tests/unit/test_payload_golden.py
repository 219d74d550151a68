# SPDX-License-Identifier: Apache-2.0
"""Golden payloads, shared with tests/native: both readers agree on every byte."""

from pathlib import Path

import numpy as np
import pytest

from tfrewprune import payload

GOLDEN = Path(__file__).parents[1] / "golden"
VALID = [line.split() for line in (GOLDEN / "payloads.txt").read_text().splitlines()]
REFUSED = [
    line.split(" ", 1)[0] for line in (GOLDEN / "refused.txt").read_text().splitlines()
]


@pytest.mark.parametrize("line", VALID, ids=[line[0] for line in VALID])
def test_golden_payload_is_read_and_written_alike(line):
    name, (rows, columns, band_rows, bands, count) = line[0], map(int, line[1:])
    data = (GOLDEN / f"{name}.payload").read_bytes()
    header = payload.read_header(data)
    assert (header.rows, header.columns, header.band_rows) == (rows, columns, band_rows)
    assert (header.band_count, header.column_count) == (bands, count)
    record = np.dtype([("row", "<u4"), ("column", "<u4"), ("value", "<f4")])
    weights = np.fromfile(GOLDEN / f"{name}.weights", record)
    dense = np.zeros((rows, columns), np.float32)
    dense[weights["row"], weights["column"]] = weights["value"]
    unpacked = payload.unpack_matrix(data)
    np.testing.assert_array_equal(unpacked.view(np.uint32), dense.view(np.uint32))
    again = payload.encode(payload.decode(data))
    if header.neighbours or not payload.read_header(again).neighbours:
        assert again == data
    else:  # from before neighbours had a form of their own
        assert len(again) <= len(data)
        np.testing.assert_array_equal(payload.unpack_matrix(again), dense)


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_payload_is_refused(name):
    data = (GOLDEN / f"{name}.refused").read_bytes()
    with pytest.raises(payload.PayloadError):
        payload.unpack_matrix(data)
