# SPDX-License-Identifier: Apache-2.0
"""Penalties against the formulas they implement; numpy only."""

import numpy as np
import pytest

from tfrewprune.methods import (
    ADMM,
    GroupLasso,
    Magnitude,
    Method,
    PrimalProximal,
    Reweighted,
)
from tfrewprune.structures import Block, Filter, KernelShape, Unstructured

KERNEL = np.random.default_rng(0).standard_normal((9, 3, 20)).astype(np.float32)
SHAPE = KernelShape(*KERNEL.shape)


def penalty(method, structure, state=None):
    if state is None:
        state = method.state(KERNEL, structure, SHAPE)
    return method.penalty(KERNEL, structure, SHAPE, state)


def test_equal_alpha_is_the_group_lasso():
    structure = Block(16, 1)
    ones = {"alpha": np.ones(structure.group_grid(SHAPE), np.float32)}
    lasso = penalty(GroupLasso(), structure)
    assert penalty(Reweighted(), structure, ones) == pytest.approx(lasso, rel=1e-6)
    # sum over groups of sqrt(n) times the l2 norm, by loops
    matrix = KERNEL.reshape(27, 20)
    expected = sum(
        np.sqrt(part.size) * np.linalg.norm(part)
        for row in matrix
        for part in (row[:16], row[16:])
    )
    assert lasso == pytest.approx(expected, rel=1e-5)


def test_groups_of_one_weight_are_reweighted_l1():
    epsilon = 0.01
    expected = np.sum(np.abs(KERNEL) / (np.abs(KERNEL) + epsilon))
    found = penalty(Reweighted(epsilon), Unstructured())
    assert found == pytest.approx(expected, rel=1e-5)
    lasso = penalty(GroupLasso(), Unstructured())
    assert lasso == pytest.approx(np.abs(KERNEL).sum(), rel=1e-5)


def test_alpha_is_capped_and_positive():
    kernel = np.zeros((1, 4, 32), np.float32)
    kernel[0, 0, :16] = -5.0  # negative weights must not flip the sign of alpha
    shape = KernelShape(*kernel.shape)
    alpha = Reweighted(1e-3).state(kernel, Block(16, 1), shape)["alpha"]
    assert alpha[0, 0] == pytest.approx(1 / 5.001)
    np.testing.assert_allclose(alpha.ravel()[1:], 1000.0, rtol=1e-5)


def test_groups_that_shall_survive_are_spared():
    kernel = np.array([[[1.0, 2.0, 4.0, 8.0, 0.5, 0.0]]], np.float32)
    shape = KernelShape(*kernel.shape)
    method = Reweighted(1e-3)
    plain = method.state(kernel, Unstructured(), shape)["alpha"]
    spared = method.state(kernel, Unstructured(), shape, keep=3)["alpha"]
    expected = [1, 1, 1 / 2**4, 1 / 4**4, 1, 1]  # 2, 4 and 8 survive
    np.testing.assert_allclose(spared / plain, [[expected]], rtol=1e-5)


def test_pull_on_a_weight_does_not_depend_on_the_size_of_its_group():
    """Value per weight: equal rms gives an equal share, whatever the structure."""
    kernel = np.full((9, 4, 20), 0.1, np.float32)
    shape = KernelShape(*kernel.shape)
    shares = [
        Reweighted().penalty(kernel, s, shape, Reweighted().state(kernel, s, shape))
        for s in (Unstructured(), Filter(), Block(16, 1), Block(7, 5))
    ]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-5)


def test_magnitude_has_no_penalty():
    assert not Magnitude().penalized
    with pytest.raises(TypeError, match="Magnitude adds no penalty"):
        penalty(Magnitude(), Filter(), {})


@pytest.mark.parametrize("method", [Reweighted(0.5), GroupLasso(), Magnitude()])
def test_config_round_trip(method):
    assert Method.get(method.get_config()) == method


@pytest.mark.parametrize("name", ["group_lasso", "GroupLasso", "grouplasso"])
def test_method_by_name(name):
    assert Method.get(name) == GroupLasso()


@pytest.mark.parametrize(
    "value, message",
    [
        ("lasso", "Unknown method 'lasso'. Expected one of"),
        ({"method": "Reweighted", "rho": 1}, "cannot be built from {'rho': 1}"),
        (None, "must be a tfrewprune method"),
    ],
)
def test_unknown_methods_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        Method.get(value)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_epsilon_must_be_positive(epsilon):
    with pytest.raises(ValueError, match="`epsilon` must be positive"):
        Reweighted(epsilon)


def test_admm_updates_target_and_dual():
    structure, method = Block(4, 1), ADMM()
    generator = np.random.default_rng(0)
    shape = KernelShape(1, 6, 8)
    first, second = generator.standard_normal((2, *shape)).astype(np.float32)
    start = method.state(first, structure, shape, keep=24)
    np.testing.assert_array_equal(start["target"], structure.project(first, 24))
    assert not start["dual"].any()
    then = method.state(second, structure, shape, previous=start, keep=24)
    np.testing.assert_array_equal(then["target"], structure.project(second, 24))
    np.testing.assert_allclose(then["dual"], second - then["target"])
    last = method.state(first, structure, shape, previous=then, keep=24)
    np.testing.assert_allclose(
        last["dual"] + last["target"], first + then["dual"], rtol=1e-6
    )
    distance = first - last["target"] + last["dual"]
    assert method.penalty(first, structure, shape, last) == pytest.approx(
        0.5 * np.square(distance).sum(), rel=1e-5
    )


def test_primal_proximal_shrinks_groups_as_the_proximal_operator_does():
    structure, method = Block(4, 1), PrimalProximal(shrink=0.5)
    shape = KernelShape(1, 6, 8)
    kernel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    kernel[0, 0] *= 0.1
    target = method.state(kernel, structure, shape)["target"]
    for column in range(6):
        for rows in (slice(0, 4), slice(4, 8)):
            group = kernel[0, column, rows]
            factor = max(0, 1 - 0.5 / np.sqrt(np.square(group).mean()))
            np.testing.assert_allclose(
                target[0, column, rows], factor * group, atol=1e-6
            )
    assert (target[0, 0] == 0).all()


@pytest.mark.parametrize("method", [ADMM(), PrimalProximal()])
def test_methods_with_a_memory_do_not_start_inside_a_step(method):
    kernel = np.zeros((1, 2, 4), np.float32)
    with pytest.raises(ValueError, match="keeps a state between steps: put it on"):
        method.state(kernel, Block(4, 1), KernelShape(1, 2, 4), xp=object())
