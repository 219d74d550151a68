# SPDX-License-Identifier: Apache-2.0
"""Patterns and connectivity, against loops over kernels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.methods import Reweighted
from tfrewprune.structures import Balanced, Kernel, KernelGroup, KernelShape, Pattern
from tfrewprune.structures.pattern import mine_patterns

CORNERS = ((0, 1, 3, 4), (1, 2, 4, 5), (3, 4, 6, 7), (4, 5, 7, 8))


def random_kernel(shape=(9, 8, 40), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def supports(kernel: np.ndarray) -> np.ndarray:
    """The positions that are left in each kernel, as tuples."""
    found = np.empty(kernel.shape[1:], object)
    for channel, output in np.ndindex(found.shape):
        found[channel, output] = tuple(
            np.flatnonzero(kernel[:, channel, output]).tolist()
        )
    return found


@pytest.mark.parametrize("rows", [1, 2])
def test_projection_is_nearest_by_brute_force(rows):
    library = ((0, 1), (1, 2))
    structure = Pattern(2, rows, library=library)
    kernel = random_kernel((3, 2, 4), seed=5)
    options = [*library, ()]
    for kernels in range(8 // rows + 1):
        best = 0.0
        for choice in itertools.product(options, repeat=8 // rows):
            if sum(pattern != () for pattern in choice) != kernels:
                continue
            energy = 0.0
            for place, pattern in enumerate(choice):
                channel, band = divmod(place, 4 // rows)
                part = kernel[list(pattern), channel, band * rows : (band + 1) * rows]
                energy += np.square(part).sum()
            best = max(best, energy)
        weights = 2 * rows * kernels
        projected = structure.project(kernel, weights)
        assert np.count_nonzero(projected) == weights
        assert np.square(projected).sum() == pytest.approx(best, rel=1e-5)


def test_rate_nine_fourths_is_patterns_alone():
    kernel = random_kernel()
    structure = Pattern(library=CORNERS)
    for rate in (1, 2, 9 / 4):  # smaller rates than 9 / 4 are impossible
        projected = structure.project(kernel, kernel.size / rate)
        assert np.count_nonzero(projected) == kernel.size * 4 / 9
        for channel, output in np.ndindex(8, 40):
            energy = np.square(kernel[:, channel, output])
            best = max(CORNERS, key=lambda pattern: energy[list(pattern)].sum())
            assert supports(projected)[channel, output] == best


def test_larger_rates_remove_whole_kernels():
    kernel = random_kernel()
    projected = Pattern(library=CORNERS).project(kernel, kernel.size / 8)
    found = supports(projected)
    assert set(found.ravel()) == {(), *CORNERS}
    assert np.count_nonzero(projected) == kernel.size / 8
    patterned = Pattern(library=CORNERS).project(kernel, kernel.size)
    energy = np.square(patterned).sum(axis=0)
    removed = ~projected.any(axis=0)
    assert energy[removed].max() <= energy[~removed].min()


def test_a_band_shares_its_columns():
    kernel = random_kernel()
    projected = Pattern(4, rows=16, library=CORNERS).project(kernel, kernel.size / 4)
    found = supports(projected)
    for channel, band in np.ndindex(8, 3):
        assert len(set(found[channel, 16 * band : 16 * (band + 1)])) == 1
    assert len(set(found.ravel())) == 5


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 5), st.floats(0, 1))
def test_kernels_of_few_positions_are_connectivity_alone(
    positions, outputs, rows, share
):
    kernel = random_kernel((positions, 6, outputs))
    structure = Pattern(4, rows).fitted(kernel)
    assert structure.library is None
    np.testing.assert_array_equal(
        structure.project(kernel, share * kernel.size),
        KernelGroup(rows, 1).project(kernel, share * kernel.size),
    )


def test_a_given_library_leaves_pointwise_layers_to_connectivity():
    kernel = random_kernel((1, 8, 40))
    np.testing.assert_array_equal(
        Pattern(library=CORNERS).project(kernel, 80), Kernel().project(kernel, 80)
    )


def test_planted_patterns_are_mined():
    generator = np.random.default_rng(0)
    kernel = generator.uniform(0.0, 0.1, (9, 16, 32))
    planted = generator.integers(0, 4, (16, 32))
    for channel, output in np.ndindex(planted.shape):
        kernel[list(CORNERS[planted[channel, output]]), channel, output] += 1
    structure = Pattern(4, size=8).fitted(kernel)
    assert sorted(structure.library) == sorted(CORNERS)
    found = supports(structure.project(kernel, kernel.size))
    assert all(found[i] == CORNERS[planted[i]] for i in np.ndindex(planted.shape))


def test_the_centre_has_to_earn_its_place():
    kernel = random_kernel()
    kernel[4] = 0.0
    library = Pattern(4).fitted(kernel).library
    assert len(library) == 8
    assert not any(4 in pattern for pattern in library)


def test_a_larger_library_keeps_more_and_never_less():
    kernel = random_kernel()
    energies = [
        np.square(
            Pattern(4, size=size).fitted(kernel).project(kernel, kernel.size)
        ).sum()
        for size in (1, 4, 8, 32, 126)
    ]
    assert energies == sorted(energies) and energies[0] < energies[-1]
    largest = np.sort(np.square(kernel), axis=0)[-4:].sum()
    assert energies[-1] == pytest.approx(largest, rel=1e-5)


def test_zero_kernels_can_be_mined():
    assert mine_patterns(np.zeros((9, 20)), 4, 8) == ((0, 1, 2, 3),)


def reweighted_penalty(structure, kernel, weights) -> float:
    shape = KernelShape(*kernel.shape)
    method = Reweighted(1e-3)
    rms = structure.rms(kernel, shape)
    keep = structure.select(rms, shape, weights)
    alpha = structure.pulled(rms, shape, keep) / (rms + 1e-3)
    return method.penalty(kernel, structure, shape, {"alpha": alpha})


def test_penalty_pulls_what_lies_outside_the_best_pattern():
    """Sum over kernels of alpha_k ||W_k outside its best pattern||, by loops."""
    kernel = random_kernel()
    outside = inside = 0.0
    for channel, output in np.ndindex(kernel.shape[1:]):
        weights = kernel[:, channel, output]
        best = max(CORNERS, key=lambda p: np.square(weights[list(p)]).sum())
        for part in (weights[list(best)], np.delete(weights, best)):
            rms = np.sqrt(np.mean(np.square(part)))
            term = np.sqrt(part.size) * np.linalg.norm(part) / (rms + 1e-3)
            if part.size == 4:
                inside += term
            else:
                outside += term
    structure = Pattern(library=CORNERS)
    patterned = kernel.size * 4 / 9
    assert reweighted_penalty(structure, kernel, patterned) == pytest.approx(
        outside, rel=1e-4
    )
    both = pytest.approx(outside + inside, rel=1e-4)
    assert reweighted_penalty(structure, kernel, 0) == both


@pytest.mark.parametrize("rate", [9 / 4, 3, 8])
def test_patterns_and_connectivity_emerge(rate):
    """Steps on ||W - W0||^2 / 2 + penalty, its strength controlled along a schedule."""
    generator = np.random.default_rng(0)
    target = random_kernel() * np.exp(0.7 * generator.standard_normal((1, 8, 40)))
    shape = KernelShape(*target.shape)
    structure = Pattern(library=CORNERS)
    kernel, strength, steps = target.copy(), 1e-4, 3000
    for step in range(steps):
        if step % 20 == 0:
            wanted = kernel.size * rate ** -min(1, step / steps / 0.8)
            rms = structure.rms(kernel, shape)
            keep = structure.select(rms, shape, wanted)
            alpha = structure.pulled(rms, shape, keep) / (rms + 1e-3)
            survivors = np.sum(np.abs(kernel) > 2e-3)
            strength *= np.exp(np.clip(np.log(survivors / wanted), -0.7, 0.7))
        pull = structure.spread(alpha / structure.rms(kernel, shape), shape)
        kernel = (kernel - 0.05 * (kernel - target)) / (1 + 0.05 * strength * pull)
    left = structure.project(kernel, kernel.size / rate)
    # Little is left to cut, and what survives has not been pulled down.
    assert np.square(kernel - left).sum() < 0.1 * np.square(kernel).sum()
    np.testing.assert_allclose(left[left != 0], target[left != 0], rtol=1e-2)
    found = supports(np.abs(kernel) > 2e-3)
    clean = sum(pattern in ((), *CORNERS) for pattern in found.ravel())
    assert clean > 0.95 * found.size


def test_without_a_rate_kernels_weaker_than_what_must_go_are_pulled():
    kernel = np.ones((9, 2, 1), np.float32)
    kernel[list(CORNERS[0])] = 3
    kernel[:, 1] *= 0.1  # inside 0.3; outside 1 and 0.1
    structure = Pattern(library=CORNERS)
    shape = KernelShape(*kernel.shape)
    pulled = structure.pulled(structure.rms(kernel, shape), shape)
    np.testing.assert_array_equal(pulled[0, :, 0], [0, 1])  # inside the best pattern
    np.testing.assert_array_equal(pulled[4, :, 0], [1, 1])  # outside it
    assert pulled.sum() == 3


def test_kernels_above_a_threshold_keep_all_of_their_pattern():
    kernel = random_kernel()
    kernel[:, ::2] *= 1e-6
    kernel[4] = 1e-5  # in every pattern, smaller than the threshold by itself
    structure = Pattern(library=CORNERS)
    shape = KernelShape(*kernel.shape)
    keep = structure.above(structure.rms(kernel, shape), shape, 1e-3)
    assert structure.kept(keep, shape) == 4 * 40 * 4
    found = supports(structure.mask(keep, shape))
    assert set(found[::2].ravel()) == {()}
    assert set(found[1::2].ravel()) == set(CORNERS)


def test_balanced_patterns_leave_every_filter_equally_many_kernels():
    kernel = random_kernel()
    projected = Balanced(Pattern(library=CORNERS)).project(kernel, kernel.size / 8)
    counts = (projected != 0).any(axis=0).sum(axis=0)
    assert set(counts) == {2}  # of 8 kernels, 320 / 8 * 9 / 4 = 90 of 320 would fit
    free = Pattern(library=CORNERS).project(kernel, kernel.size / 8)
    assert len(set((free != 0).any(axis=0).sum(axis=0))) > 1
