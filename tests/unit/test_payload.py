# SPDX-License-Identifier: Apache-2.0
"""The payload format: damaged bytes are refused, never misread."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.payload import (
    BandedMatrix,
    PayloadError,
    decode,
    encode,
    pack_matrix,
    read_header,
    unpack_matrix,
)
from tfrewprune.payload.cost import LayerShape
from tfrewprune.payload.packer import pack_layer
from tfrewprune.payload.reading import predict_payload
from tfrewprune.payload.values import FLOAT16, INT8, ValueForm


def sample() -> bytes:
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((37, 50)).astype(np.float32)
    for start in range(0, 37, 8):
        weights[start : start + 8, generator.random(50) < 0.7] = 0
    return pack_matrix(weights, 8)


SAMPLE = sample()
FIRST_VALUE = read_header(SAMPLE).value.offset


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(SAMPLE) * 8 - 1))
def test_a_flipped_bit_is_refused_or_changes_what_is_read(bit):
    """Every bit means something: none can flip unseen."""
    damaged = bytearray(SAMPLE)
    damaged[bit // 8] ^= 1 << bit % 8
    damaged = bytes(damaged)
    try:
        matrix = decode(damaged)
    except PayloadError:
        return
    assert encode(matrix) == damaged


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SAMPLE) - 1))
def test_a_truncated_payload_is_refused(length):
    with pytest.raises(PayloadError):
        decode(SAMPLE[:length])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 128))
def test_random_bytes_behind_a_true_beginning_are_refused(tail, head):
    if SAMPLE[:head] + tail != SAMPLE:
        with pytest.raises(PayloadError):
            decode(SAMPLE[:head] + tail)


def test_sections_are_aligned_and_the_header_says_what_is_there():
    header = read_header(SAMPLE)
    assert (header.rows, header.columns, header.band_rows) == (37, 50, 8)
    assert header.band_count == 5
    assert header.value.offset % 64 == 0
    assert header.value.end == header.payload_bytes == len(SAMPLE)


def test_decoded_arrays_are_views_that_cannot_be_written():
    data = np.frombuffer(SAMPLE, np.uint8)
    matrix = decode(data)
    assert np.shares_memory(matrix.value, data)
    assert not matrix.value.flags.writeable


def test_errors_name_field_expected_and_received():
    with pytest.raises(PayloadError, match="expected at least 128 bytes, received 5"):
        decode(b"TFRP!")
    with pytest.raises(
        PayloadError, match=r"magic: expected b'TFRP', received b'XXXX'"
    ):
        decode(b"XXXX" + SAMPLE[4:])
    with pytest.raises(PayloadError, match="must be bytes, received list"):
        decode([1, 2])


def test_a_few_bytes_cannot_claim_terabytes():
    huge = encode(
        BandedMatrix(
            4_000_000_000,
            4_000_000_000,
            np.zeros((0, 16), np.int64),
            np.zeros(1, np.int64),
            np.zeros(0, np.int64),
            np.zeros((0, 16), np.float32),
        )
    )
    with pytest.raises(PayloadError, match="4000000000 x 4000000000"):
        unpack_matrix(huge)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"row_id": np.array([[0, 1, 2, 2]])}, "row 2 appears more than once"),
        ({"row_id": np.array([[0, 1, 2, 9]])}, "at most rows = 5, received 9"),
        ({"band_start": np.array([0, 2])}, "from 0 to column_count = 3"),
        ({"column": np.array([0, 3, 2])}, "received 3 before 2"),
        ({"column": np.array([0, 2, 7])}, "below 7, received 7"),
        ({"value": np.zeros((2, 4), np.float32)}, r"expected \(3, 4\)"),
        ({"row_id": np.array([0, 1])}, "two dimensions"),
        ({"rows": 0}, "at least 1, received 0 x 7"),
        ({"row_id": np.array([[0, 1, 2, 5]])}, "a lane that carries no row"),
    ],
)
def test_a_matrix_that_breaks_a_rule_is_not_written(change, message):
    fields = {
        "rows": 5,
        "columns": 7,
        "row_id": np.array([[0, 1, 2, 4]]),
        "band_start": np.array([0, 3]),
        "column": np.array([0, 2, 6]),
        "value": np.ones((3, 4), np.float32),
    }
    encode(BandedMatrix(**fields))
    with pytest.raises(PayloadError, match=message):
        encode(BandedMatrix(**{**fields, **change}))


@pytest.mark.parametrize("band_rows", [None, 8])
@pytest.mark.parametrize("keep", [0.05, 0.6])
def test_float16_weights_stay_float16(keep, band_rows):
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((40, 9 * 32)).astype(np.float16)
    weights[generator.random(weights.shape) > keep] = 0
    weights = weights.astype(np.float32)
    shape = LayerShape(40, 9 * 32, 196, taps=9)
    half = pack_layer(weights, shape, band_rows, form=ValueForm(FLOAT16))
    single = pack_layer(weights, shape, band_rows)
    payload = half.encode()
    assert len(payload) == half.payload_bytes < 0.75 * single.payload_bytes
    assert struct.unpack_from("<I", payload, 12) == (1,)
    np.testing.assert_array_equal(unpack_matrix(payload), weights)
    assert predict_payload(payload, shape) > 0


def test_float16_must_hold_the_weights():
    shape = LayerShape(4, 8, 1)
    for weight in (0.1, 1e6):
        weights = np.full((4, 8), weight, np.float32)
        with pytest.raises(PayloadError, match="float16 does not hold the weights"):
            pack_layer(weights, shape, form=ValueForm(FLOAT16))


@pytest.mark.parametrize("band_rows", [None, 8], ids=["any layout", "banded"])
@pytest.mark.parametrize("scales", [1, 40], ids=["a scale", "a scale of each row"])
@pytest.mark.parametrize("keep", [0.05, 0.6])
def test_int8_weights_come_back_as_integers_times_their_scale(keep, scales, band_rows):
    generator = np.random.default_rng(0)
    stored = generator.integers(-127, 128, (40, 9 * 32)).astype(np.int8)
    stored[generator.random(stored.shape) > keep] = 0
    scale = (0.003 + 0.01 * generator.random(scales)).astype(np.float32)
    weights = stored * scale.reshape(-1, 1)
    shape = LayerShape(40, 9 * 32, 196, taps=9)
    packing = pack_layer(weights, shape, band_rows, form=ValueForm(INT8, scale))
    payload = packing.encode()
    assert len(payload) == packing.payload_bytes
    assert struct.unpack_from("<I", payload, 12) == (2,)
    np.testing.assert_array_equal(unpack_matrix(payload), weights)
    assert predict_payload(payload, shape) == packing.predict(shape)


def test_int8_must_hold_the_weights():
    shape = LayerShape(4, 8, 1)
    for weight in (0.26, 128.0):
        weights = np.full((4, 8), weight, np.float32)
        form = ValueForm(INT8, np.float32([0.5]))
        with pytest.raises(PayloadError, match="int8 does not hold the weights"):
            pack_layer(weights, shape, form=form)


@pytest.mark.parametrize(
    "value, scale, message",
    [
        (np.int8, None, "int8 values, and no others, have a scale"),
        (np.float32, np.ones(1, np.float32), "int8 values, and no others"),
        (np.int8, np.ones(2, np.float32), r"one of each of 5 rows, received shape \(2"),
        (np.int8, np.zeros(1, np.float32), "finite and above 0"),
        (np.int8, np.full(5, np.inf, np.float32), "finite and above 0"),
        (np.int16, None, "float32, float16 or int8, received int16"),
    ],
)
def test_values_and_scale_must_fit(value, scale, message):
    matrix = BandedMatrix(
        *(5, 7, np.array([[0, 1, 2, 4]]), np.array([0, 1]), np.array([6])),
        np.ones((1, 4), value),
        scale,
    )
    with pytest.raises(PayloadError, match=message):
        encode(matrix)
