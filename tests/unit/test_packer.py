# SPDX-License-Identifier: Apache-2.0
"""The packer: nothing is lost, little is padded, bad matrices are refused."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfrewprune.payload import PayloadError, decode, pack_matrix, unpack_matrix
from tfrewprune.payload.cost import (
    CostModel,
    DenseCost,
    LayerShape,
    PackedCost,
    default_cost_model,
)
from tfrewprune.payload.packer import pack_layer


def block_matrix(rows, columns, band, keep, seed=0):
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((rows, columns)).astype(np.float32)
    for start in range(0, rows, band):
        matrix[start : start + band, generator.random(columns) >= keep] = 0
    return matrix


def fill(payload):
    """Share of stored values that are not padding."""
    matrix = decode(payload)
    return np.count_nonzero(matrix.value) / matrix.value.size


weights_of_any_shape = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(1, 30)),
    elements=st.sampled_from([0.0, 0.0, 0.0, -0.0, 1.5, -2.25, 1e-38, 3e38]),
    fill=st.just(np.float32(0)),
)


@settings(deadline=None)
@given(weights_of_any_shape, st.sampled_from([None, 4, 8, 16, 32]))
def test_every_weight_survives_bit_for_bit(weights, band_rows):
    unpacked = unpack_matrix(pack_matrix(weights, band_rows))
    expected = np.where(weights == 0, np.float32(0), weights)
    np.testing.assert_array_equal(unpacked.view("u4"), expected.view("u4"))


@pytest.mark.parametrize("band_rows", [4, 8, 16, 32])
def test_blocks_of_neighbouring_rows_are_found_and_stay_in_order(band_rows):
    weights = block_matrix(96, 300, band_rows, 0.2)
    matrix = decode(pack_matrix(weights))
    assert matrix.band_rows == band_rows
    assert fill(pack_matrix(weights)) == 1.0
    np.testing.assert_array_equal(matrix.row_id.ravel(), np.arange(96))


def test_payload_of_sixteen_rows_is_at_most_a_twentieth_above_its_weights():
    weights = block_matrix(128, 1152, 16, 1 / 8)
    assert len(pack_matrix(weights)) <= 1.05 * 4 * np.count_nonzero(weights)


def test_shuffled_blocks_are_put_together_again():
    weights = block_matrix(128, 300, 16, 0.2)
    shuffled = weights[np.random.default_rng(1).permutation(128)]
    payload = pack_matrix(shuffled)
    assert fill(payload) == 1.0
    np.testing.assert_array_equal(unpack_matrix(payload), shuffled)


def test_nearly_equal_rows_share_a_band_and_padding():
    weights = block_matrix(128, 400, 16, 0.2)
    weights[np.random.default_rng(1).random(weights.shape) < 0.03] = 0
    shuffled = weights[np.random.default_rng(2).permutation(128)]
    payload = pack_matrix(shuffled)
    assert fill(payload) >= 0.95
    assert len(payload) <= 1.15 * 4 * np.count_nonzero(shuffled)
    np.testing.assert_array_equal(unpack_matrix(payload), shuffled)


def test_rows_without_weights_take_no_space():
    weights = np.zeros((100, 50), np.float32)
    weights[[3, 40, 41, 99]] = 1
    matrix = decode(pack_matrix(weights))
    assert (matrix.band_rows, matrix.band_count) == (4, 1)
    assert matrix.row_id.tolist() == [[3, 40, 41, 99]]


def test_an_empty_matrix_has_no_band():
    payload = pack_matrix(np.zeros((7, 9), np.float32))
    assert decode(payload).band_count == 0
    np.testing.assert_array_equal(unpack_matrix(payload), np.zeros((7, 9)))


def test_equal_matrices_give_equal_bytes():
    weights = block_matrix(64, 100, 4, 0.3)[np.random.default_rng(0).permutation(64)]
    assert pack_matrix(weights) == pack_matrix(weights.copy(order="F"))


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.zeros((2, 3)), r"float32 \[O >= 1, K >= 1\], received float64 \[2, 3\]"),
        (np.zeros((0, 3), np.float32), r"received float32 \[0, 3\]"),
        (np.zeros((2, 0), np.float32), r"received float32 \[2, 0\]"),
        (np.zeros(5, np.float32), r"received float32 \[5\]"),
        (np.full((2, 3), np.nan, np.float32), "finite, received NaN or Inf"),
        (np.full((2, 3), -np.inf, np.float32), "finite, received NaN or Inf"),
    ],
)
def test_what_is_no_weight_matrix_is_refused(weights, message):
    with pytest.raises(PayloadError, match=message):
        pack_matrix(weights)


def test_other_band_heights_are_refused():
    with pytest.raises(PayloadError, match=r"\(4, 8, 16, 32\), received 12"):
        pack_matrix(np.ones((2, 3), np.float32), 12)


def test_the_cost_model_decides():
    """With bands for free the packer takes the height that pads least."""
    weights = block_matrix(64, 200, 4, 0.2)
    shape = LayerShape(64, 200, 100)
    heights = (4, 8, 16, 32)

    def best(band, column):
        cost = PackedCost(
            dict.fromkeys(heights, band),
            {rows: column * rows for rows in heights},
            dict.fromkeys(heights, 0),
            scatter=0,
            uncached_byte=0,
        )
        model = CostModel(0, 0, DenseCost(0, 1, 0, 0), cost, cost)
        return pack_layer(weights, shape, cost_model=model).band_rows

    assert best(band=0, column=1) == 4
    assert best(band=1, column=0) == 32


def test_predicted_time_follows_the_work():
    shape = LayerShape(256, 2304, 196, 9)
    model = default_cost_model()
    times = []
    for keep in (0.5, 0.25, 0.125):
        packing = pack_layer(block_matrix(256, 2304, 16, keep), shape)
        assert packing.band_rows in (16, 32)
        times.append(packing.predict(shape))
    assert times[0] > times[1] > times[2]
    assert model.dense(shape) > 4 * times[2]


@pytest.mark.parametrize("kind", ["blocks", "shuffled", "unstructured"])
def test_packing_is_fast(kind):
    """A sixteenth of ResNet-50's weights; the whole of it must take at most 5 s."""
    weights = block_matrix(512, 3072, 16, 1 / 8)
    if kind == "shuffled":
        weights = weights[np.random.default_rng(0).permutation(512)]
    if kind == "unstructured":
        weights = np.random.default_rng(0).standard_normal((512, 3072), np.float32)
        weights[np.random.default_rng(1).random(weights.shape) < 7 / 8] = 0
    start = time.process_time()
    pack_layer(weights, LayerShape(512, 3072, 49, 3)).encode()
    assert time.process_time() - start < 1.0
