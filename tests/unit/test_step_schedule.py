# SPDX-License-Identifier: Apache-2.0
"""Schedules as tfmot writes them, without tfmot; numpy only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrewprune.methods import GradualMagnitude, Method
from tfrewprune.methods.step_schedule import StepSchedule
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule


class Schedule:
    """What a tfmot schedule shows: a `get_config` with class name and arguments."""

    def __init__(self, **config):
        self.config = config

    def get_config(self):
        return {"class_name": type(self).__name__, "config": self.config}


class PolynomialDecay(Schedule): ...


class ConstantSparsity(Schedule): ...


DECAY = PolynomialDecay(
    initial_sparsity=0.5,
    final_sparsity=0.8,
    power=3,
    begin_step=100,
    end_step=300,
    frequency=50,
)


def test_polynomial_decay():
    schedule = StepSchedule.of(DECAY)
    assert [step for step in range(500) if schedule.due(step)] == list(
        range(100, 301, 50)
    )
    assert schedule.sparsity_at(0) == schedule.sparsity_at(100) == 0.5
    assert schedule.sparsity_at(200) == pytest.approx(0.8 - 0.3 / 8)
    assert schedule.sparsity_at(300) == schedule.sparsity_at(999) == 0.8
    assert schedule.final_rate == pytest.approx(5)


def test_constant_sparsity():
    schedule = StepSchedule.of(ConstantSparsity(target_sparsity=0.75, begin_step=10))
    assert schedule.final_rate == 4
    assert [step for step in range(250) if schedule.due(step)] == [10, 110, 210]
    assert {schedule.sparsity_at(step) for step in (10, 110, 10_000)} == {0.75}


@given(st.integers(0, 50), st.integers(1, 200), st.floats(0, 0.9), st.floats(0.1, 0.9))
def test_sparsity_moves_one_way_between_its_ends(begin, length, first, last):
    schedule = StepSchedule(first, last, begin, begin + length)
    values = [schedule.sparsity_at(step) for step in range(begin + length + 10)]
    assert values == sorted(values, reverse=first > last)
    assert values[0] == pytest.approx(first) and values[-1] == last


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantSparsity(target_sparsity=1.0, begin_step=0),
        ConstantSparsity(target_sparsity=0.0, begin_step=0),
        ConstantSparsity(target_sparsity=0.5, begin_step=9, end_step=5),
        PolynomialDecay(
            initial_sparsity=0, final_sparsity=0.5, begin_step=0, end_step=-1
        ),
    ],
)
def test_impossible_schedules_are_refused(schedule):
    with pytest.raises(ValueError, match="A schedule needs sparsities of at least 0"):
        GradualMagnitude(schedule)


@pytest.mark.parametrize("other", [Schedule(warm_up=3), 0.5, None, {"a": 1}])
def test_other_objects_are_refused(other):
    with pytest.raises(ValueError, match="Expected a tfmot PolynomialDecay or Const"):
        GradualMagnitude(other)


class Stairs(Schedule):
    """A schedule of the user's: its own call, tfmot's protocol."""

    def __call__(self, step):
        return step % 10 == 0, min(0.25 * (step // 10), 0.75)


class Patient(PolynomialDecay, Stairs):
    """Its config is that of tfmot's, its call is not."""


@pytest.mark.parametrize("own", [Stairs(), Patient(**DECAY.config), Stairs().__call__])
def test_a_schedule_of_the_users_own_is_called(own):
    method = GradualMagnitude(own)
    schedule = method.steps
    assert [step for step in range(35) if schedule.due(step)] == [0, 10, 20, 30]
    assert [schedule.sparsity_at(step) for step in (0, 19, 20)] == [0, 0.25, 0.5]
    assert Recipe("*", method=method).rate == method.final_rate == 4
    assert "called" in Recipe("*", method=method).to_json()


def test_a_schedule_that_says_its_end_is_through_there():
    own = Stairs()
    own.begin_step, own.end_step = 5, 20
    schedule = GradualMagnitude(own).steps
    assert schedule.last_step == 20 and schedule.final_rate == 2
    assert StepSchedule.of(DECAY).last_step == 300


@pytest.mark.parametrize("answer", [0.5, (True,), (True, 1.0), (True, None)])
def test_answers_that_are_none_are_refused(answer):
    with pytest.raises(ValueError, match=r"must answer a step by \(should_prune, spar"):
        GradualMagnitude(lambda step: answer)
    with pytest.raises(ValueError, match="needs a sparsity above 0 at the end"):
        GradualMagnitude(lambda step: (True, 0.0))


def test_a_schedule_gives_the_recipe_its_rate_and_survives_json():
    recipe = Recipe("*", method=GradualMagnitude(DECAY))
    assert recipe.rate == pytest.approx(5)
    assert Recipe.from_json(recipe.to_json()) == recipe
    method = GradualMagnitude(DECAY)
    assert Method.get(method.get_config()) == method
    with pytest.raises(ValueError, match="ends at rate 5: leave out other rates"):
        Recipe(rate=4, method=method)
    with pytest.raises(ValueError, match="ends at rate 5: leave out other rates"):
        Recipe(Rule("conv", rate=3), method=method)


@given(st.floats(1, 20), st.floats(20, 400), st.sampled_from(["geometric", "cubic"]))
def test_rates_rise_from_where_the_model_is(start, rate, schedule):
    method = GradualMagnitude(schedule)
    rates = [method.rate_at(step / 10, rate, start) for step in range(11)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(start) and rates[-1] == pytest.approx(rate)
    assert method.rate_at(0.5, start, rate) == start  # cut further than asked


def test_a_start_rate_beyond_the_rate_is_refused():
    with pytest.raises(ValueError, match="start_rate=10, rate=4"):
        Recipe(rate=4, start_rate=10)
    with pytest.raises(ValueError, match="`start_rate` is dense weights / kept"):
        Recipe(rate=4, start_rate=0.5)
