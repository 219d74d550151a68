# SPDX-License-Identifier: Apache-2.0
"""N of M, balanced structures and bands by likeness, against loops."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.structures import (
    Balanced,
    Block,
    Kernel,
    KernelShape,
    NofM,
    Punched,
    Unstructured,
)
from tfrewprune.structures.likeness import order_by_likeness

VWW = Path("/work/shared/models/mlperf_tiny/vww_96.keras")


def random_kernel(shape=(9, 8, 40), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def energy_kept(structure, kernel: np.ndarray, rate: float) -> float:
    projected = structure.fitted(kernel).project(kernel, kernel.size / rate)
    return float(np.square(projected).sum() / np.square(kernel).sum())


class TestNofM:
    @settings(deadline=None)
    @given(st.integers(1, 3), st.integers(1, 13), st.integers(1, 4), st.integers(0, 3))
    def test_the_largest_n_of_each_m_neighbours_survive(
        self, positions, channels, n, more
    ):
        m = n + more
        kernel = random_kernel((positions, channels, 3))
        projected = NofM(n, m).project(kernel, 0)  # whatever is asked for
        kept = 0
        for position, output in itertools.product(range(positions), range(3)):
            for first in range(0, channels, m):
                run = kernel[position, first : first + m, output]
                left = projected[position, first : first + m, output]
                largest = np.sort(np.abs(run))[::-1][:n]
                assert sorted(np.abs(left[left != 0])) == sorted(largest)
                kept += len(largest)
        rate = NofM(n, m).fixed_rate(KernelShape(*kernel.shape))
        assert rate == pytest.approx(kernel.size / kept)

    def test_rate(self):
        assert NofM().fixed_rate(KernelShape(9, 64, 3)) == 2
        assert NofM(1, 4).fixed_rate(KernelShape(1, 64, 3)) == 4
        assert NofM(2, 4).fixed_rate(KernelShape(1, 3, 3)) == 1.5
        assert NofM(2, 4).fixed_rate(KernelShape(1, 2, 3)) == 1

    def test_only_the_smaller_ones_are_pulled(self):
        kernel = np.array([3.0, -1, 2, 0.5, 1, 9], np.float32).reshape(1, 6, 1)
        pulled = NofM(2, 4).pulled(np.abs(kernel), KernelShape(1, 6, 1))
        np.testing.assert_array_equal(pulled.ravel(), [0, 1, 0, 1, 0, 0])


class TestBalanced:
    @pytest.mark.parametrize(
        "structure", [Unstructured(), Kernel(), Block(16, 1), Punched(8, 4)], ids=str
    )
    @pytest.mark.parametrize("rate", [2, 5])
    def test_every_block_row_keeps_equally_many_groups(self, structure, rate):
        kernel = random_kernel()
        kernel[:, :, :16] *= 9  # would take most of the weights
        shape = KernelShape(*kernel.shape)
        keep = Balanced(structure).choose(np.square(kernel), kernel.size / rate)
        counts = keep.reshape(-1, keep.shape[-1]).sum(axis=0)
        assert len(set(counts)) == 1
        free = structure.choose(np.square(kernel), kernel.size / rate)
        assert len(set(free.reshape(-1, free.shape[-1]).sum(axis=0))) > 1
        assert structure.kept(keep, shape) <= kernel.size / rate

    def test_projection_is_nearest_by_brute_force(self):
        structure = Balanced(Block(2, 1))
        kernel = random_kernel((1, 6, 4), seed=2)
        for count in range(7):
            best = sum(
                max(
                    np.square(kernel[0][list(columns), band : band + 2]).sum()
                    for columns in itertools.combinations(range(6), count)
                )
                for band in (0, 2)
            )
            projected = structure.project(kernel, 4 * count)
            assert np.square(projected).sum() == pytest.approx(best, rel=1e-6)

    def test_settles_with_what_is_inside(self):
        kernel = random_kernel()
        open_structure = Balanced(Block(16, 1, cluster=True))
        fitted = open_structure.fitted(kernel)
        assert fitted.of.order is not None
        assert fitted.settles(open_structure)
        assert not fitted.settles(Balanced(Block(16, 1)))


class TestBlockByLikeness:
    def test_planted_clusters_become_bands(self):
        generator = np.random.default_rng(0)
        cluster = generator.permutation(np.repeat(np.arange(4), 16))
        columns = generator.permutation(144).reshape(4, 36)  # of each cluster
        kernel = 0.05 * random_kernel((9, 16, 64))
        matrix = kernel.reshape(144, 64)
        for row in range(64):
            matrix[columns[cluster[row]], row] = generator.uniform(0.5, 2, 36)
        structure = Block(16, 1, cluster=True).fitted(kernel)
        for band in np.array(structure.order).reshape(4, 16):
            assert len(set(cluster[band])) == 1
        assert energy_kept(structure, kernel, 4) > 0.99
        assert energy_kept(Block(16, 1), kernel, 4) < 0.5

    @settings(deadline=None)
    @given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
    def test_groups_are_the_blocks_of_the_reordered_kernel(
        self, outputs, rows, columns, seed
    ):
        kernel = random_kernel((3, 4, outputs), seed)
        shape = KernelShape(*kernel.shape)
        structure = Block(rows, columns, cluster=True).fitted(kernel)
        order = np.array(structure.order)
        assert sorted(order) == list(range(outputs))
        plain = Block(rows, columns)
        reordered = np.ascontiguousarray(kernel[..., order])
        np.testing.assert_allclose(
            structure.rms(kernel, shape), plain.rms(reordered, shape), rtol=1e-5
        )
        np.testing.assert_array_equal(
            structure.project(kernel, kernel.size / 3)[..., order],
            plain.project(reordered, kernel.size / 3),
        )

    def test_weights_that_are_not_numbers_still_get_an_order(self):
        """`resolve` fits structures before it is told of NaN."""
        energy = np.ones((6, 3))
        energy[2, 1] = np.nan
        assert sorted(order_by_likeness(energy, 4)) == list(range(6))

    @pytest.mark.skipif(not VWW.exists(), reason="no MLPerf Tiny models")
    def test_more_survives_in_the_pointwise_layers_of_a_mobilenet(self, tmp_path):
        """Measured: .713 -> .776 at 4x, .593 -> .671 at 8x."""
        shares = []
        for kernel in pointwise_kernels(tmp_path):
            blocks = Block(16, 1), Block(16, 1, cluster=True)
            shares.append(
                [
                    [energy_kept(block, kernel, rate) for block in blocks]
                    for rate in (4, 8)
                ]
            )
        assert len(shares) == 12
        (plain_4, alike_4), (plain_8, alike_8) = np.mean(shares, axis=0)
        assert alike_4 > plain_4 + 0.05
        assert alike_8 > plain_8 + 0.06
        assert all(alike >= plain for layer in shares for plain, alike in layer)


def pointwise_kernels(folder: Path) -> list[np.ndarray]:
    """The 1x1 convolutions of more than 16 outputs of the visual wake words model."""
    import zipfile

    import h5py

    with zipfile.ZipFile(VWW) as archive:
        path = archive.extract("model.weights.h5", folder)
    kernels = []

    def collect(name, item):
        shape = getattr(item, "shape", ())
        if len(shape) == 4 and shape[:2] == (1, 1) and shape[-1] > 16:
            kernels.append(item[()].reshape(shape[1:]))

    with h5py.File(path) as file:
        file.visititems(collect)
    return kernels
