# SPDX-License-Identifier: Apache-2.0
"""Rows and columns removed together, against loops over the OHWI matrix."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.structures import (
    BlockRowColumn,
    KernelShape,
    RowColumn,
    Unstructured,
    kernel_from_matrix,
    matrix_from_kernel,
)

SHAPES = st.builds(
    KernelShape, st.integers(1, 4), st.integers(1, 6), st.integers(1, 20)
)


def random_kernel(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(deadline=None)
@given(SHAPES, st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
def test_a_weight_needs_its_row_and_its_column(shape, rows, columns, seed):
    structure = BlockRowColumn(rows, columns)
    keep = np.random.default_rng(seed).random(structure.group_grid(shape)) < 0.6
    strips, bands = -(-shape.columns // columns), -(-shape.outputs // rows)
    row_kept = keep[: strips * shape.outputs].reshape(strips, shape.outputs)
    column_kept = keep[strips * shape.outputs :].reshape(shape.columns, bands)
    mask = matrix_from_kernel(structure.mask(keep, shape))
    for row, column in np.ndindex(mask.shape):
        both = row_kept[column // columns, row] and column_kept[column, row // rows]
        assert mask[row, column] == both


@settings(deadline=None)
@given(SHAPES, st.floats(0, 1))
def test_one_block_as_large_as_the_matrix_is_rows_and_columns_of_the_matrix(
    shape, share
):
    kernel = random_kernel(shape)
    whole = BlockRowColumn(shape.outputs, shape.columns)
    np.testing.assert_array_equal(
        RowColumn().project(kernel, share * shape.weights),
        whole.project(kernel, share * shape.weights),
    )
    matrix = matrix_from_kernel(RowColumn().project(kernel, share * shape.weights))
    rows, columns = (matrix != 0).any(axis=1), (matrix != 0).any(axis=0)
    np.testing.assert_array_equal(matrix != 0, np.outer(rows, columns))


@settings(deadline=None)
@given(SHAPES, st.floats(0, 1))
def test_blocks_of_one_weight_are_non_structured(shape, share):
    kernel = random_kernel(shape)
    np.testing.assert_array_equal(
        BlockRowColumn(1, 1).project(kernel, share * shape.weights),
        Unstructured().project(kernel, share * shape.weights),
    )


@pytest.mark.parametrize("rate", [2, 4, 8, 68])
@pytest.mark.parametrize(
    "structure", [BlockRowColumn(), BlockRowColumn(7, 5), RowColumn()], ids=str
)
def test_the_rate_counts_weights_not_groups(structure, rate):
    kernel = random_kernel((9, 32, 48))
    kept = np.count_nonzero(structure.project(kernel, kernel.size / rate))
    step = structure.group_sizes(KernelShape(*kernel.shape)).max()
    assert kernel.size / rate - step < kept <= kernel.size / rate


def test_equal_weights_are_cut_to_the_rate_too():
    kernel = np.ones((1, 64, 64), np.float32)
    for structure in (BlockRowColumn(16, 16), RowColumn()):
        kept = np.count_nonzero(structure.project(kernel, 1024))
        assert 1024 - 64 < kept <= 1024


def test_planted_rows_and_columns_of_each_block_are_found():
    generator = np.random.default_rng(0)
    matrix = generator.uniform(0.01, 0.02, (32, 48))
    planted = np.zeros(matrix.shape, bool)
    for row, column in itertools.product(range(0, 32, 16), range(0, 48, 16)):
        rows = row + generator.permutation(16)[:8]
        columns = column + generator.permutation(16)[:8]
        planted[np.ix_(rows, columns)] = True
    matrix[planted] = generator.uniform(1, 2, planted.sum())
    projected = BlockRowColumn(16, 16).project(kernel_from_matrix(matrix), 32 * 48 / 4)
    np.testing.assert_array_equal(matrix_from_kernel(projected) != 0, planted)


def test_cuts_that_see_what_is_left_keep_more():
    kernel = random_kernel((9, 64, 64))
    shape = KernelShape(*kernel.shape)
    for structure in (BlockRowColumn(16, 16), RowColumn()):
        weights = kernel.size / 8
        at_once = structure.select(structure.rms(kernel, shape), shape, weights)
        kept = np.square(kernel[structure.mask(at_once, shape)]).sum()
        in_cuts = np.square(structure.project(kernel, weights)).sum()
        assert in_cuts > 1.05 * kept


def test_a_row_is_ranked_by_what_its_columns_have_left():
    matrix = np.zeros((3, 8), np.float32)
    matrix[:2, :2] = [[3, 3], [1, 1]]  # 6 columns and a row are gone
    shape = KernelShape(1, 8, 3)
    rows, columns = np.split(RowColumn().scores(kernel_from_matrix(matrix), shape), [3])
    np.testing.assert_allclose(rows, [3, 1, -1])
    np.testing.assert_allclose(columns, [5**0.5, 5**0.5, *6 * [-1]])


def test_projection_is_near_the_nearest():
    """On 4 x 6 matrices, against every choice of rows and columns."""
    shares = []
    for seed in range(20):
        kernel = random_kernel((1, 6, 4), seed)
        matrix = np.square(matrix_from_kernel(kernel))
        best = max(
            matrix[np.ix_(rows, columns)].sum()
            for height, width in ((1, 6), (2, 4), (3, 2), (4, 2))
            for rows in itertools.combinations(range(4), height)
            for columns in itertools.combinations(range(6), width)
        )
        shares.append(np.square(RowColumn().project(kernel, 8)).sum() / best)
    assert max(shares) == pytest.approx(1)
    assert np.mean(shares) > 0.85
