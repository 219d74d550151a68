# SPDX-License-Identifier: Apache-2.0
"""Limits as users write them, and the cost of a layer that they are held against."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrewprune.constraints import (
    CONSTRAINTS,
    LayerCost,
    checked_constraints,
    limit_of,
)
from tfrewprune.payload.cost import LayerShape

WEIGHTS = 64 * 576
CONV = LayerShape(64, 576, 196, 9)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({}, "must be a dict of some of"),
        ("40%", "must be a dict of some of .* Received: constraints='40%'"),
        ({"memory": 3}, "Unknown constraint 'memory'"),
        ({"macs": "much"}, "'macs' must be a positive number, or .* Received: 'much'"),
        ({"macs": "101%"}, "Received: '101%'"),
        ({"macs": ""}, "Received: ''"),
        ({"macs": "inf"}, "Received: 'inf'"),
        ({"macs": 0}, "Received: 0"),
        ({"bytes": True}, "Received: True"),
        ({"bytes": None}, "Received: None"),
    ],
)
def test_constraints_that_are_none(constraints, message):
    with pytest.raises(ValueError, match=message):
        checked_constraints(constraints)


@pytest.mark.parametrize(
    ("name", "written", "limit"),
    [
        ("weights", 0.5, 1000),
        ("weights", 1, 2000),
        ("macs", " 40% ", 800),
        ("bytes", "100%", 2000),
        ("bytes", 500, 500),
        ("bytes", "500", 500),  # as the command line has it
        ("macs", "0.25", 500),
        ("latency_ms", 0.7, 0.7),
        ("latency_ms", "50%", 1000),
    ],
)
def test_shares_are_of_the_dense_model_and_amounts_are_not(name, written, limit):
    asked = checked_constraints({name: written})
    assert checked_constraints(asked) == asked
    assert limit_of(name, asked[name], dense=2000) == limit


@given(
    unit=st.sampled_from(CONSTRAINTS),
    kept=st.integers(0, WEIGHTS),
    alike=st.sampled_from([1, 4, 16, 64]),
)
def test_a_pruned_layer_never_costs_more_than_the_dense_one(unit, kept, alike):
    cost = LayerCost({CONV: 1}, WEIGHTS, alike)
    assert 0 <= cost.of(unit, kept) <= cost.of(unit, WEIGHTS)


def test_costs_fall_with_what_is_kept():
    cost = LayerCost({CONV: 1}, WEIGHTS)
    for unit in CONSTRAINTS:
        dense, half, eighth = (cost.of(unit, WEIGHTS // n) for n in (1, 2, 8))
        assert dense >= half > eighth > 0, unit
    assert cost.of("macs", 10) == 1960
    assert cost.of("bytes", WEIGHTS) == 4 * WEIGHTS
    assert cost.of("bytes", 800) == 800 * (4 + 2 / 16)
    assert LayerCost({CONV: 1}, WEIGHTS, item=2).of("bytes", 800) == 800 * (2 + 2 / 16)


def test_no_packed_operator_saves_neither_bytes_nor_time():
    cost = LayerCost({CONV: 1}, WEIGHTS, packed=False)
    for unit in ("bytes", "latency_ms"):
        assert cost.of(unit, 100) == cost.of(unit, WEIGHTS)
    assert cost.of("macs", 100) == 100 * 196


def test_weights_and_bytes_need_no_size():
    cost = LayerCost(None, 10)
    assert (cost.of("weights", 5), cost.of("bytes", 10)) == (5, 40)
    with pytest.raises(ValueError, match="fixed input size"):
        cost.of("macs", 5)
