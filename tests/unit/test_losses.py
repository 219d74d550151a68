# SPDX-License-Identifier: Apache-2.0
"""Rates from losses, against all choices there are."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.oneshot.constraints import LayerCost, parse
from tfrewprune.oneshot.losses import Infeasible, LossTable, allocate
from tfrewprune.payload.cost import LayerShape


@st.composite
def tables(draw):
    made = []
    for number in range(draw(st.integers(1, 3))):
        steps = draw(st.integers(1, 4))
        kept = sorted(draw(st.sets(st.integers(1, 50), min_size=steps, max_size=steps)))
        kept.reverse()
        loss = sorted(
            draw(st.lists(st.floats(0, 1), min_size=len(kept), max_size=len(kept)))
        )
        cost = {
            "weights": tuple(map(float, kept)),
            "macs": tuple(float(n * (number + 1)) for n in kept),
        }
        made.append(LossTable(f"layer{number}", tuple(kept), tuple(loss), cost))
    return made


@settings(max_examples=80, deadline=None)
@given(tables(), st.floats(1, 150), st.floats(1, 300))
def test_a_choice_is_found_exactly_where_there_is_one(tables, weights, macs):
    limits = {"weights": weights, "macs": macs}

    def fits(choice) -> bool:
        return all(
            sum(t.cost[unit][i] for t, i in zip(tables, choice, strict=True)) <= limit
            for unit, limit in limits.items()
        )

    every = itertools.product(*(range(len(table.kept)) for table in tables))
    possible = [choice for choice in every if fits(choice)]
    if not possible:
        with pytest.raises(Infeasible):
            allocate(tables, limits)
        return
    chosen = tuple(allocate(tables, limits))
    assert fits(chosen)
    # No layer alone could give up less.
    for number, here in enumerate(chosen):
        for other in range(here):
            changed = (*chosen[:number], other, *chosen[number + 1 :])
            gain = tables[number].loss[here] - tables[number].loss[other]
            assert gain <= 0 or not fits(changed)


def test_the_cheaper_loss_goes_first():
    bad = LossTable("bad", (10, 5), (0.0, 0.9), {"weights": (10.0, 5.0)})
    good = LossTable("good", (10, 5), (0.0, 0.1), {"weights": (10.0, 5.0)})
    assert allocate([bad, good], {"weights": 15}) == [0, 1]
    with pytest.raises(Infeasible, match=r"weights <= 9 .* still need 10, .* needs 3"):
        allocate([bad, good], {"weights": 9}, {"weights": 3})


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({}, "must be a dict of limits"),
        ({"memory": 3}, "Unknown constraint 'memory'"),
        ({"macs": "much"}, "limit of macs must be a positive number"),
        ({"macs": 0}, "Received: 0"),
        ({"bytes": True}, "Received: True"),
    ],
)
def test_constraints_that_are_none(constraints, message):
    with pytest.raises(ValueError, match=message):
        parse(constraints)


def test_shares_and_amounts():
    found = parse({"weights": 0.5, "macs": "40%", "bytes": 5e5, "latency_ms": 0.7})
    assert found == {
        "weights": (0.5, True),
        "macs": (0.4, True),
        "bytes": (5e5, False),
        "latency_ms": (0.7, False),
    }


def test_costs_fall_with_what_is_kept_and_are_at_most_dense():
    cost = LayerCost(LayerShape(64, 576, 196, 9), 64 * 576)
    for unit in ("weights", "macs", "bytes", "latency_ms"):
        dense, half, eighth = (cost.of(unit, 64 * 576 // n) for n in (1, 2, 8))
        assert dense >= half > eighth > 0, unit
    assert cost.of("macs", 10) == 1960
    with pytest.raises(ValueError, match="fixed input size"):
        LayerCost(None, 10).of("macs", 5)
