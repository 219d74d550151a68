# SPDX-License-Identifier: Apache-2.0
"""Levels: nearest weights and best scales, against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.levels import Binary, EqualInterval, Levels, PowerOfTwo, Ternary

SETS = [EqualInterval(2), EqualInterval(3), PowerOfTwo(3), Ternary(), Binary()]
weights = st.lists(
    st.floats(-4, 4, width=32).filter(lambda w: w == 0 or abs(w) > 1e-3),
    min_size=1,
    max_size=5,
)


def kernel_of(values):
    return np.float32(values).reshape(1, -1, 1)


def integers(levels):
    return sorted({sign * m for m in levels.magnitudes for sign in (-1, 1)})


def least_error(levels, values):
    """Over all ways to give every weight an integer, each with its best scale."""
    live = np.float64([value for value in values if value])
    best = np.square(live).sum()
    for chosen in itertools.product(integers(levels), repeat=len(live)):
        chosen = np.float64(chosen)
        if chosen.any() and live @ chosen > 0:
            scale = live @ chosen / (chosen @ chosen)
            best = min(best, np.square(live - scale * chosen).sum())
    return best


@pytest.mark.parametrize("levels", SETS, ids=str)
@settings(max_examples=30, deadline=None)
@given(values=weights)
def test_the_projection_has_the_least_error_of_all(levels, values):
    kernel = kernel_of(values)
    projected = levels.project(kernel)
    error = np.square(projected.astype(np.float64) - kernel).sum()
    assert error == pytest.approx(least_error(levels, values), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("levels", SETS, ids=str)
@settings(max_examples=30, deadline=None)
@given(values=weights, scale=st.floats(0.1, 3))
def test_each_weight_goes_to_its_nearest_level_and_zeros_stay(levels, values, scale):
    kernel = kernel_of(values)
    projected = levels.on_levels(kernel, np.float32(scale))
    points = np.float64(integers(levels)) * np.float32(scale)
    for value, found in zip(kernel.ravel(), projected.ravel(), strict=True):
        if value == 0:
            assert found == 0
        else:
            assert np.abs(points - found).min() < 1e-6
            assert abs(found - value) <= np.abs(points - value).min() + 1e-5
    again = levels.on_levels(projected, np.float32(scale))
    np.testing.assert_array_equal(again, projected)


@pytest.mark.parametrize("levels", SETS, ids=str)
def test_a_scale_of_each_channel_is_that_of_the_channel_alone(levels):
    kernel = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
    kernel[:, :, 2] = 0
    by_channel = Levels.get({**levels.get_config(), "per": "channel"})
    scale = by_channel.scale(kernel)
    assert scale.shape == (1, 1, 4) and scale.dtype == np.float32
    alone = [levels.scale(kernel[:, :, [c]]).item() for c in range(4)]
    np.testing.assert_array_equal(scale.ravel(), np.float32(alone))
    assert scale[0, 0, 2] == 1  # of zeros alone


def test_many_weights_have_nearly_the_best_scale():
    kernel = np.random.default_rng(1).standard_normal((1, 400, 50)).astype(np.float32)
    for levels in (EqualInterval(8), EqualInterval(4), PowerOfTwo(4), Ternary()):
        scale = levels.scale(kernel)

        def error(factor, scale=scale, levels=levels):
            found = levels.on_levels(kernel, scale * np.float32(factor))
            return np.square(found - kernel).sum()

        tried = [error(factor) for factor in np.geomspace(0.3, 3, 60)]
        assert error(1) <= 1.02 * min(tried)
    assert Binary().scale(kernel).item() == pytest.approx(np.abs(kernel).mean())


def test_keras_finds_the_same_levels():
    ops = pytest.importorskip("keras").ops
    kernel = np.random.default_rng(2).standard_normal((2, 8, 6)).astype(np.float32)
    kernel[0, 0] = 0
    for levels in SETS:
        scale = levels.scale(kernel)
        there = levels.on_levels(ops.convert_to_tensor(kernel), scale, ops)
        there = ops.convert_to_numpy(there)
        np.testing.assert_array_equal(there, levels.on_levels(kernel, scale))


def test_bits():
    assert [(s.bits, s.bits_beside_zero) for s in SETS] == [
        *((2, 2), (3, 3), (3, 3), (2, 2)),
        (1, 2),
    ]
    # ADMM-NN's levels of LeNet-5: 63, 31, 7, 31 of each sign, 7, 6, 4, 6 bits.
    assert [EqualInterval(bits).magnitudes[-1] for bits in (7, 6, 4, 6)] == [
        *(63, 31, 7, 31)
    ]
    assert PowerOfTwo(4).magnitudes == (0, 1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("levels", [*SETS, EqualInterval(8, per="channel")], ids=str)
def test_configs_come_back(levels):
    assert Levels.get(levels.get_config()) == levels


def test_short_forms():
    assert Levels.get(4) == EqualInterval(4)
    assert Levels.get("power_of_two") == PowerOfTwo()
    assert str(EqualInterval(4, per="channel")) == "EqualInterval(4, per channel)"
    assert str(Binary()) == "Binary"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Levels.get(0), "`bits` of EqualInterval.*2 to 16; 1 bit is Binary"),
        (lambda: Levels.get(True), "integer from 2 to 16"),
        (lambda: EqualInterval(17), "Received: bits=17"),
        (lambda: PowerOfTwo(6), "from 2 to 5"),
        (lambda: Levels.get({"levels": "Ternary", "bits": 2}), "'bits'"),
        (lambda: Binary(per="row"), r"\('layer', 'channel'\). Received: per='row'"),
        (lambda: Levels.get("octal"), "Unknown levels 'octal'. Expected.*Binary"),
        (lambda: Levels.get(None), "Received: None"),
        (
            lambda: Ternary().project(np.float32([[[1, np.nan, np.inf]]])),
            "2 NaN or infinite of 3",
        ),
    ],
)
def test_impossible_levels_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
