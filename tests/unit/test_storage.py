# SPDX-License-Identifier: Apache-2.0
"""Bytes of packed blocks are those of the papers' formula for block sparsity.

Bits of a block format are kept weights x bits of a weight, plus for each block the ids
of its rows and columns (papers.md 7.3). Here a block is a band of 16 neighbouring rows,
so that the first row's id says all and a column id is shared by 16 weights; header and
alignment are counted too.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.payload import pack_matrix, unpack_matrix
from tfrewprune.structures import Block, KernelShape, matrix_from_kernel

HEADER, BAND, WEIGHT, ID, START = 128, 16, 4, 2, 4


def up_to(multiple: int, count: int) -> int:
    return -(-count // multiple) * multiple


@settings(deadline=None)
@given(
    shape=st.builds(
        KernelShape,
        st.integers(1, 9),
        st.integers(1, 20),
        st.integers(1, 4).map(lambda bands: BAND * bands),
    ),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_packed_bytes_are_those_of_the_formula(shape, share, seed):
    kernel = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    matrix = matrix_from_kernel(Block(BAND, 1).project(kernel, share * kernel.size))
    columns_of_band = (matrix.reshape(-1, BAND, shape.columns) != 0).any(1).sum(1)
    bands, columns = np.count_nonzero(columns_of_band), columns_of_band.sum()

    ids = up_to(4, bands * ID)
    starts = (bands + 1) * START
    values = up_to(64, HEADER + ids + starts + columns * ID)
    expected = values + np.count_nonzero(matrix) * WEIGHT

    payload = pack_matrix(matrix, band_rows=BAND)
    assert len(payload) == expected
    np.testing.assert_array_equal(unpack_matrix(payload), matrix)


@settings(deadline=None)
@given(
    rows=st.integers(1, 40),
    channels=st.integers(1, 6),
    positions=st.integers(1, 9),
    keep=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_either_order_of_columns_packs_the_same_matrix(
    rows, channels, positions, keep, seed
):
    """OIHW of the papers and OHWI of TFLite: other bytes, the same weights back."""
    rng = np.random.default_rng(seed)
    oihw = rng.standard_normal((rows, channels, positions)).astype(np.float32)
    oihw[rng.random(oihw.shape) >= keep] = 0
    ohwi = oihw.transpose(0, 2, 1)
    back = unpack_matrix(pack_matrix(ohwi.reshape(rows, -1))).reshape(ohwi.shape)
    other = unpack_matrix(pack_matrix(oihw.reshape(rows, -1))).reshape(oihw.shape)
    np.testing.assert_array_equal(back, ohwi)
    np.testing.assert_array_equal(other, back.transpose(0, 2, 1))
