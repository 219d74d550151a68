# SPDX-License-Identifier: Apache-2.0
"""Weights on levels are packed as the integers that they are."""

import numpy as np
import pytest
from dense_models import block_sparse, conv_model, fully_connected_model, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_float16 import value_types

from tfrewprune.converter import convert, unpack
from tfrewprune.levels import Binary, EqualInterval, Ternary
from tfrewprune.payload.values import INT8, integer_form

SETS = [EqualInterval(8), EqualInterval(3, per="channel"), Ternary(), Binary()]


def on_levels(weights, levels):
    """TFLite weights (outputs first), rounded to levels."""
    kernel = weights.reshape(len(weights), -1).T[None]
    return levels.project(kernel)[0].T.reshape(weights.shape)


@pytest.mark.parametrize("levels", SETS, ids=str)
@pytest.mark.parametrize("rows", [16, 1], ids=["banded", "irregular"])
def test_packed_as_int8_bit_for_bit(levels, rows):
    weights = on_levels(block_sparse((64, 3, 3, 32), keep=0.1, rows=rows), levels)
    bias = np.zeros(64, np.float32)
    content = conv_model(weights, (1, 14, 14, 32), bias)
    whole = convert(content, minimum_gain=0)
    small = convert(content, minimum_gain=0, weights="int8")
    assert value_types(whole) == {0} and value_types(small) == {2}
    assert len(small) < len(whole)
    image = np.random.default_rng(0).random((1, 14, 14, 32), np.float32)
    (dense,), (ours,) = run(content, image), run(small, image, packed=True)
    np.testing.assert_allclose(ours, dense, rtol=1e-4, atol=1e-4)
    (back,) = run(unpack(small), image)
    np.testing.assert_array_equal(back, dense)


def test_other_weights_are_kept():
    weights = block_sparse((64, 64))
    content = fully_connected_model(weights, (1, 64))
    kept = convert(content, minimum_gain=0, weights="int8")
    assert value_types(kept) == {0}


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(2.0**-40, 2.0**40, width=32),
    integers=st.lists(st.integers(-127, 127), min_size=1, max_size=40),
)
def test_any_scale_times_integers_is_found(scale, integers):
    weights = (np.float32(integers) * np.float32(scale)).reshape(1, -1)
    form = integer_form(weights)
    assert form.dtype == INT8
    form.check_exact(weights)


def test_more_levels_than_int8_has_are_not_found():
    weights = np.arange(1, 130, dtype=np.float32).reshape(1, -1)
    assert integer_form(weights) is None
    assert integer_form(np.float32([[1, np.pi]])) is None
    by_row = integer_form(np.float32([[1, 2, 0], [np.pi, 0, -np.pi], [0, 0, 0]]))
    np.testing.assert_array_equal(by_row.scale, np.float32([1, np.pi, 1]))
