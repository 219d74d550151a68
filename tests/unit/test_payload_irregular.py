# SPDX-License-Identifier: Apache-2.0
"""Payload layout 1: exact round trips, damage refused, chosen where it pays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune import payload
from tfrewprune.payload.container import LAYOUT_IRREGULAR, payload_layout
from tfrewprune.payload.cost import LayerShape
from tfrewprune.payload.irregular import IrregularPacking, chunk_channels_for
from tfrewprune.payload.packer import Packing, pack_layer
from tfrewprune.payload.reading import predict_payload

GOLDEN = Path(__file__).parents[1] / "golden"
VALID = [line.split() for line in (GOLDEN / "irregular.txt").read_text().splitlines()]
REFUSED = [
    line.split(" ", 1)[0]
    for line in (GOLDEN / "irregular_refused.txt").read_text().splitlines()
]


def unstructured(rows: int, columns: int, keep: float, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((rows, columns)).astype(np.float32)
    return np.where(generator.random(weights.shape) < keep, weights, np.float32(0))


def sample() -> payload.IrregularMatrix:
    return payload.IrregularMatrix.from_dense(unstructured(11, 45, 0.3), 9, 2)


def integers() -> payload.IrregularMatrix:
    matrix = payload.IrregularMatrix.from_dense(unstructured(11, 45, 0.3), 9, 2, True)
    value = np.arange(1, matrix.weight_count + 1).astype(np.int8)
    return replace(matrix, value=value, scale=np.float32([0.25]))


SAMPLES = {
    "lists": payload.encode_irregular(sample()),
    "mask": payload.encode_irregular(replace(sample(), masked=True)),
    "int8": payload.encode_irregular(integers()),
}
SAMPLE = SAMPLES["lists"]


@pytest.mark.parametrize("line", VALID, ids=[line[0] for line in VALID])
def test_golden_payload_is_read_and_written_alike(line):
    name, sizes = line[0], tuple(map(int, line[1:]))
    data = (GOLDEN / f"{name}.payload").read_bytes()
    matrix = payload.decode_irregular(data)
    assert sizes == (
        *(matrix.rows, matrix.columns, matrix.taps, matrix.chunk_channels),
        *(matrix.segment_count, matrix.weight_count),
    )
    listed = np.frombuffer(
        (GOLDEN / f"{name}.weights").read_bytes(),
        [("row", "<u4"), ("column", "<u4"), ("value", "<f4")],
    )
    dense = np.zeros(sizes[:2], np.float32)
    dense[listed["row"], listed["column"]] = listed["value"]
    np.testing.assert_array_equal(payload.unpack_matrix(data), dense)
    assert payload.encode_irregular(matrix) == data


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_golden_payload_is_refused(name):
    data = (GOLDEN / f"{name}.refused").read_bytes()
    with pytest.raises(payload.PayloadError):
        payload.decode_irregular(data)
    with pytest.raises(payload.PayloadError):
        payload.unpack_matrix(data)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 20),
    channels=st.integers(1, 12),
    taps=st.integers(1, 9),
    keep=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    data=st.data(),
)
def test_weights_come_back_bit_for_bit(rows, channels, taps, keep, data):
    weights = unstructured(rows, channels * taps, keep)
    chunk = data.draw(st.integers(1, channels))
    masked = data.draw(st.booleans())
    matrix = payload.IrregularMatrix.from_dense(weights, taps, chunk, masked)
    encoded = payload.encode_irregular(matrix)
    unpacked = payload.unpack_matrix(encoded)
    np.testing.assert_array_equal(unpacked.view(np.uint32), weights.view(np.uint32))
    assert payload.encode_irregular(payload.decode_irregular(encoded)) == encoded


def test_a_zero_of_either_sign_is_not_stored():
    weights = np.array([[-0.0, 2.0, 0.0, -1.0]], np.float32)
    matrix = payload.IrregularMatrix.from_dense(weights, 1, 4)
    assert matrix.weight_count == 2
    assert not np.signbit(matrix.to_dense()[0, 0])


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 1 << 20))
def test_a_flipped_bit_is_refused_or_changes_what_is_read(name, at):
    damaged = bytearray(SAMPLES[name])
    bit = at % (8 * len(damaged))
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        matrix = payload.decode_irregular(bytes(damaged))
    except payload.PayloadError:
        return
    assert payload.encode_irregular(matrix) == damaged


@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_payload_is_refused(name):
    for length in range(len(SAMPLES[name])):
        with pytest.raises(payload.PayloadError):
            payload.unpack_matrix(SAMPLES[name][:length])


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.3, 1.0])
def test_the_index_that_takes_fewer_bytes_is_stored(keep):
    weights = unstructured(96, 9 * 32, keep)
    packing = IrregularPacking.of(weights, LayerShape(96, 9 * 32, 400, 9))
    encoded = packing.encode()
    assert len(encoded) == packing.payload_bytes
    matrix = payload.decode_irregular(encoded)
    assert matrix.masked == (keep > 0.05)
    other = payload.encode_irregular(replace(matrix, masked=not matrix.masked))
    assert len(encoded) < len(other)
    np.testing.assert_array_equal(payload.unpack_matrix(other), weights)


def test_layouts_are_told_apart():
    assert payload_layout(SAMPLE) == LAYOUT_IRREGULAR
    with pytest.raises(payload.PayloadError, match="layout: expected 0, received 1"):
        payload.decode(SAMPLE)
    banded = payload.pack_matrix(unstructured(8, 9, 0.5))
    with pytest.raises(payload.PayloadError, match="layout: expected 1, received 0"):
        payload.decode_irregular(banded)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"taps": 7}, "taps must divide the 45 columns, received 7"),
        ({"chunk_channels": 6}, "from 1 to 5, received 6"),
        ({"chunk_channels": 1}, "lie in two chunks"),
        ({"rows": 3}, "below rows = 3"),
        ({"value": np.zeros(3, np.float32)}, "shape of values"),
    ],
)
def test_a_matrix_that_breaks_a_rule_is_not_written(change, message):
    with pytest.raises(payload.PayloadError, match=message):
        payload.encode_irregular(replace(sample(), **change))


@pytest.mark.parametrize("pixels, channels", [(3136, 64), (784, 128), (49, 512)])
def test_rows_that_share_nothing_are_packed_without_bands(pixels, channels):
    shape = LayerShape(channels, 9 * channels, pixels, 9)
    packing = pack_layer(unstructured(channels, 9 * channels, 1 / 8), shape)
    assert isinstance(packing, IrregularPacking)
    encoded = packing.encode()
    assert len(encoded) == packing.payload_bytes
    assert predict_payload(encoded, shape) == packing.predict(shape)
    np.testing.assert_array_equal(payload.unpack_matrix(encoded), packing.weights)
    # At most 2 bytes of index and little else for 4 bytes of weight.
    assert len(encoded) < 1.7 * 4 * packing.kept


def test_rows_in_blocks_stay_in_bands():
    weights = unstructured(128, 1152, 1.0)
    keep = np.random.default_rng(1).random((8, 1152)) < 1 / 8
    weights *= np.repeat(keep, 16, axis=0)
    packing = pack_layer(weights, LayerShape(128, 1152, 784, 9))
    assert isinstance(packing, Packing)
    assert packing.band_rows == 16


def test_given_band_rows_are_obeyed():
    weights = unstructured(64, 576, 1 / 8)
    packing = pack_layer(weights, LayerShape(64, 576, 3136, 9), band_rows=8)
    assert packing.band_rows == 8


def test_taps_that_do_not_fit_are_named():
    with pytest.raises(payload.PayloadError, match="must divide the 10 columns"):
        IrregularPacking.of(unstructured(4, 10, 0.5), LayerShape(4, 10, 16, 9))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3000), st.sampled_from([1, 2, 9, 15, 25, 49]), st.integers(1, 9999)
)
def test_a_chunk_is_some_of_the_channels(channels, taps, pixels):
    chunk = chunk_channels_for(LayerShape(8, channels * taps, pixels, taps))
    assert 1 <= chunk <= channels
