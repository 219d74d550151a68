# SPDX-License-Identifier: Apache-2.0
"""Interleaved timing on a clock of our own, and the check before it."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrewprune.benchmark.measure import (
    Measurement,
    WrongResultError,
    check_results,
    interleave,
    relative_error,
)


class Machine:
    """A clock that only moves when something runs on it, at a speed that drifts."""

    def __init__(self, drift=lambda time: 1.0):
        self.time = 0.0
        self.order = []
        self._drift = drift

    def job(self, name: str, seconds: float):
        def run():
            self.order.append(name)
            self.time += seconds * self._drift(self.time)

        return run

    def clock(self) -> float:
        return self.time


def test_times_and_ratio_on_a_steady_machine():
    machine = Machine()
    measurement = interleave(
        {"slow": machine.job("slow", 3e-3), "fast": machine.job("fast", 1e-3)},
        clock=machine.clock,
        min_seconds=0.5,
    )
    assert measurement.timing("slow").median == pytest.approx(3e-3)
    assert measurement.timing("fast").median == pytest.approx(1e-3)
    assert measurement.ratio("slow", "fast").median == pytest.approx(3)
    assert measurement.ratio("fast", "slow").median == pytest.approx(1 / 3)


def test_ratio_survives_a_machine_that_slows_down():
    # The machine takes four times longer at the end than at the start.
    machine = Machine(drift=lambda time: 1 + 3 * min(time / 2.0, 1))
    measurement = interleave(
        {"slow": machine.job("slow", 2e-3), "fast": machine.job("fast", 1e-3)},
        clock=machine.clock,
        min_seconds=2.0,
    )
    slow = measurement.timing("slow")
    assert slow.p90 > 1.5 * slow.p10
    assert measurement.ratio("slow", "fast").median == pytest.approx(2, rel=0.03)


def test_ratio_ignores_outliers():
    blocks = {"a": [2.0] * 8 + [50.0], "b": [1.0] * 4 + [30.0] + [1.0] * 4}
    ratio = Measurement(blocks, {"a": 9, "b": 9}).ratio("a", "b")
    assert ratio.median == 2.0


def test_candidates_alternate_and_the_order_turns():
    machine = Machine()
    jobs = {name: machine.job(name, 20e-3) for name in "ab"}
    interleave(jobs, clock=machine.clock, min_seconds=0, min_rounds=4, block_seconds=0)
    # After the warm-up every block is one untimed and one timed call.
    rounds = "".join(machine.order)[-16:]
    assert rounds == "aabb" + "bbaa" + "aabb" + "bbaa"


def test_short_calls_are_timed_in_batches():
    machine = Machine()
    measurement = interleave(
        {"tiny": machine.job("tiny", 1e-6)},
        clock=machine.clock,
        min_seconds=0.1,
        min_rounds=2,
    )
    timing = measurement.timing("tiny")
    assert timing.median == pytest.approx(1e-6)
    assert timing.calls >= 50 * measurement.rounds


def test_a_busy_machine_ends_the_rounds_by_the_wall_clock():
    # This process gets a hundredth of the processor: 50 ms of it take 5 s.
    start = time.perf_counter()
    measurement = interleave(
        {"a": lambda: time.sleep(1e-3)},
        clock=lambda: time.perf_counter() / 100,
        min_seconds=0.05,
        min_rounds=3,
        block_seconds=0,
        warm_up_seconds=0,
    )
    assert measurement.rounds >= 3
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("arguments", [{"runners": {}}, {"min_rounds": 0}])
def test_nothing_to_measure_is_refused(arguments):
    with pytest.raises(ValueError):
        interleave(**{"runners": {"a": lambda: None}, **arguments})


def test_equal_results_pass_and_tell_their_error():
    right = [np.array([1.0, -4.0]), np.zeros((0, 3))]
    error = check_results(right, [right[0] + 4e-6, right[1]], tolerance=1e-5)
    assert error == pytest.approx(1e-6)


@pytest.mark.parametrize(
    "answer",
    [
        [np.array([1.0, -4.1])],
        [np.array([1.0, np.nan])],
        [np.array([1.0, -np.inf])],
        [np.array([[1.0, -4.0]])],
        [],
        [np.array([1.0, -4.0]), np.array([0.0])],
    ],
    ids=["off", "nan", "inf", "shape", "missing", "extra"],
)
def test_wrong_results_are_refused(answer):
    with pytest.raises(WrongResultError):
        check_results([np.array([1.0, -4.0])], answer, tolerance=1e-3)


def test_the_message_names_output_error_and_tolerance():
    with pytest.raises(WrongResultError, match=r"output 1.*0\.5.*0\.001"):
        check_results(
            [np.ones(2), np.array([2.0])],
            [np.ones(2), np.array([3.0])],
            tolerance=1e-3,
        )


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20),
    st.floats(0.125, 1024),
)
def test_relative_error_does_not_depend_on_the_scale(values, scale):
    right = np.array(values)
    answer = right + 1e-3
    assert relative_error(scale * right, scale * right) == 0
    if np.max(np.abs(right)) > 1e-2:
        assert relative_error(scale * right, scale * answer) == pytest.approx(
            relative_error(right, answer)
        )
