# SPDX-License-Identifier: Apache-2.0
"""Rates from losses, against all choices there are."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.oneshot.losses import Infeasible, LossTable, allocate


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
