# SPDX-License-Identifier: Apache-2.0
"""Structures against oracles on the OHWI matrix; numpy only."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.structures import (
    Block,
    Channel,
    Column,
    Filter,
    Kernel,
    KernelGroup,
    KernelLayout,
    KernelShape,
    Punched,
    Structure,
    Unstructured,
    keep_largest,
    kernel_from_matrix,
    matrix_from_kernel,
)

STRUCTURES = st.one_of(
    st.sampled_from([Unstructured(), Filter(), Channel(), Column(), Kernel()]),
    st.builds(Block, st.integers(1, 9), st.integers(1, 9)),
    st.builds(KernelGroup, st.integers(1, 9), st.integers(1, 4)),
    st.builds(Punched, st.integers(1, 9), st.integers(1, 4)),
)
SHAPES = st.builds(
    KernelShape, st.integers(1, 4), st.integers(1, 6), st.integers(1, 20)
)


def group_labels(structure: Structure, shape: KernelShape) -> np.ndarray:
    """Oracle: the label of every weight of the (outputs, columns) matrix, by loops."""
    labels = np.empty((shape.outputs, shape.columns), object)
    rows, columns, channels = (
        getattr(structure, name, 1) for name in ("rows", "columns", "channels")
    )
    for row, column in np.ndindex(labels.shape):
        position, channel = divmod(column, shape.channels)
        labels[row, column] = {
            "Unstructured": (row, column),
            "Filter": row,
            "Channel": channel,
            "Column": (position, channel),
            "Block": (row // rows, column // columns),
            "Kernel": (row, channel),
            "KernelGroup": (row // rows, channel // channels),
            "Punched": (row // rows, position, channel // channels),
        }[type(structure).__name__]
    return labels


def random_kernel(shape: KernelShape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(deadline=None)
@given(STRUCTURES, SHAPES)
def test_groups_partition_the_matrix_as_defined(structure, shape):
    labels = group_labels(structure, shape).ravel().tolist()
    grid = structure.group_grid(shape)
    numbers = np.arange(structure.group_count(shape)).reshape(grid)
    expanded = np.asarray(structure.spread(numbers, shape))
    found = matrix_from_kernel(expanded).ravel().tolist()
    # The same two weights share a group exactly if the oracle says so.
    assert len(set(zip(labels, found, strict=True))) == len(set(labels))
    assert set(found) == set(range(numbers.size))
    kernel = random_kernel(shape)
    sums = structure.sums(kernel, shape)
    assert sums.shape == grid
    matrix = matrix_from_kernel(kernel).ravel()
    for label, number in set(zip(labels, found, strict=True)):
        members = [w for w, name in zip(matrix, labels, strict=True) if name == label]
        np.testing.assert_allclose(sums.ravel()[number], sum(members), atol=1e-4)
        assert structure.group_sizes(shape).ravel()[number] == len(members)


@settings(deadline=None)
@given(STRUCTURES, SHAPES)
def test_squares_of_all_groups_add_up_to_the_kernel(structure, shape):
    kernel = random_kernel(shape)
    total = structure.sums(np.square(kernel), shape).sum()
    np.testing.assert_allclose(total, np.square(kernel).sum(), rtol=1e-4)
    assert structure.group_sizes(shape).sum() == shape.weights


@settings(deadline=None)
@given(SHAPES)
def test_degenerate_blocks_are_the_other_structures(shape):
    kernel = random_kernel(shape)
    for block, other in (
        (Block(1, 1), Unstructured()),
        (Block(shape.outputs, 1), Column()),
        (Block(1, shape.columns), Filter()),
        (KernelGroup(1, 1), Kernel()),
        (KernelGroup(shape.outputs, 1), Channel()),
        (KernelGroup(1, shape.channels), Filter()),
        (Punched(1, 1), Unstructured()),
        (Punched(shape.outputs, 1), Column()),
    ):
        left = block.spread(block.rms(kernel, shape), shape)
        right = other.spread(other.rms(kernel, shape), shape)
        np.testing.assert_allclose(left, right, rtol=1e-5)


@pytest.mark.parametrize(
    "structure, shape",
    [
        (Block(2, 3), KernelShape(1, 6, 4)),
        (KernelGroup(2, 1), KernelShape(3, 2, 4)),
        (Punched(2, 2), KernelShape(3, 2, 4)),
    ],
    ids=str,
)
def test_projection_is_nearest_by_brute_force(structure, shape):
    kernel = random_kernel(shape, seed=3)  # a 4 x 6 matrix
    count = structure.group_count(shape)
    size = shape.weights // count
    for keep in range(count + 1):
        errors = []
        for kept in itertools.combinations(range(count), keep):
            mask = np.isin(np.arange(count), kept).reshape(structure.group_grid(shape))
            candidate = np.where(structure.spread(mask, shape), kernel, 0)
            errors.append(np.square(kernel - candidate).sum())
        projected = structure.project(kernel, size * keep)
        assert np.square(kernel - projected).sum() == pytest.approx(min(errors))
        np.testing.assert_array_equal(
            structure.project(projected, size * keep), projected
        )


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.data())
def test_ties_are_broken_by_rank(scores, data):
    keep = data.draw(st.integers(0, len(scores)))
    mask = keep_largest(np.array(scores), keep)
    assert mask.sum() == keep
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert set(np.flatnonzero(mask)) == set(ranked[:keep])


def test_keep_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"between 0 and .* \(3\). Received: keep=4"):
        keep_largest(np.ones(3), 4)


def test_ragged_edges_are_not_pruned_first():
    # One ragged group of 2 weights; all weights equal: its l2 norm is smaller, its rms
    # is not.
    kernel = np.ones((1, 1, 18), np.float32)
    shape = KernelShape(*kernel.shape)
    np.testing.assert_array_equal(Block(16, 1).group_sizes(shape), [[16, 2]])
    np.testing.assert_allclose(Block(16, 1).rms(kernel, shape), [[1.0, 1.0]])


def test_surviving_groups():
    kernel = np.zeros((1, 2, 20), np.float32)
    kernel[0, 1, 17] = -1e-30
    np.testing.assert_array_equal(
        Block(16, 1).surviving_groups(kernel), [[False, False], [False, True]]
    )


@settings(deadline=None)
@given(STRUCTURES)
def test_config_round_trip(structure):
    assert Structure.get(structure.get_config()) == structure
    assert Structure.get(structure) is structure


def test_structure_by_name():
    assert Structure.get("Filter") == Filter()


@pytest.mark.parametrize(
    "value, message",
    [
        ("Fliter", r"Unknown structure 'Fliter'. Expected one of \['Balanced'"),
        ({"structure": "Block", "size": 3}, "cannot be built from {'size': 3}"),
        (7, "must be a tfrewprune structure"),
    ],
)
def test_unknown_structures_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        Structure.get(value)


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, "16"])
def test_block_sizes_are_checked(rows):
    with pytest.raises(ValueError, match="`rows` of Block must be an integer"):
        Block(rows, 1)


def test_conv_columns_are_in_ohwi_order():
    weights = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # HWIO
    matrix = matrix_from_kernel(KernelLayout().to_kernel(weights))
    np.testing.assert_array_equal(matrix, weights.transpose(3, 0, 1, 2).reshape(5, 24))
    np.testing.assert_array_equal(
        kernel_from_matrix(matrix, positions=6), KernelLayout().to_kernel(weights)
    )


def test_dense_matrix_is_the_transpose():
    weights = np.arange(12).reshape(3, 4)
    matrix = matrix_from_kernel(KernelLayout().to_kernel(weights))
    np.testing.assert_array_equal(matrix, weights.T)


def test_transposed_convolution_has_outputs_before_channels():
    weights = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)  # HWOI
    layout = KernelLayout("conv_transpose")
    assert layout.kernel_shape(weights.shape) == KernelShape(4, 4, 3)
    matrix = matrix_from_kernel(layout.to_kernel(weights))
    np.testing.assert_array_equal(matrix, weights.transpose(2, 0, 1, 3).reshape(3, 16))


@pytest.mark.parametrize(
    "layout, shape",
    [
        (KernelLayout(), (3, 3, 4, 8)),
        (KernelLayout(), (4, 8)),
        (KernelLayout("conv_transpose"), (3, 3, 4, 8)),
        (KernelLayout("dense", 2), (3, 4, 5, 6)),
        (KernelLayout("heads"), (3, 4, 5)),
        (KernelLayout("heads", parts=2), (3, 4, 5)),
        (KernelLayout("heads", input_axes=0), (4, 5, 3, 2)),
        (KernelLayout("gate", parts=3, part=0), (5, 12)),
        (KernelLayout("gate", parts=3, part=2), (5, 12)),
    ],
)
def test_layout_round_trip(layout, shape):
    weights = np.arange(np.prod(shape)).reshape(shape)
    kernel = layout.to_kernel(weights)
    assert KernelShape(*kernel.shape) == layout.kernel_shape(shape)
    again = layout.from_kernel(kernel, shape, rest=weights)
    np.testing.assert_array_equal(again, weights)
    assert KernelLayout.get(layout.get_config()) == layout


def test_a_gate_is_a_matrix_and_a_head_an_output():
    weights = np.arange(5 * 12).reshape(5, 12)
    gate = KernelLayout("gate", parts=3, part=1).to_kernel(weights)
    np.testing.assert_array_equal(gate, weights[None, :, 4:8])
    other = KernelLayout("gate", parts=3, part=1).from_kernel(
        -gate, weights.shape, rest=weights
    )
    np.testing.assert_array_equal(other[:, 4:8], -weights[:, 4:8])
    np.testing.assert_array_equal(other[:, :4], weights[:, :4])
    query = np.arange(2 * 4 * 3).reshape(2, 4, 3)
    heads = KernelLayout("heads", parts=2).to_kernel(query)  # of two neighbours each
    for head in range(2):
        mine = query[:, 2 * head : 2 * head + 2].ravel()
        assert set(heads[0, :, head]) == set(mine)


def test_layout_errors():
    with pytest.raises(ValueError, match="number of gates.*parts=3, part=3"):
        KernelLayout("gate", parts=3, part=3)
    with pytest.raises(ValueError, match=r"multiple of 3 on axis -1.*\(5, 10\)"):
        KernelLayout("gate", parts=3).kernel_shape((5, 10))
    with pytest.raises(ValueError, match="`input_axes` must be at least 0"):
        KernelLayout("heads", -1)
    with pytest.raises(ValueError, match="at least 2 axes .* Received: shape=\\(7,\\)"):
        KernelLayout().kernel_shape((7,))
    with pytest.raises(ValueError, match="Expected one of .* Received: kind='HWIO'"):
        KernelLayout("HWIO")
    with pytest.raises(ValueError, match="`input_axes` must be at least 1"):
        KernelLayout("dense", 0)
    with pytest.raises(ValueError, match="7 columns .* Received: positions=2"):
        kernel_from_matrix(np.zeros((3, 7)), positions=2)


def test_structures_and_methods_import_without_keras():
    program = (
        "import sys, tfrewprune.structures, tfrewprune.methods, tfrewprune.recipe; "
        "sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
