# SPDX-License-Identifier: Apache-2.0
"""Times things beside each other on a machine that is never quiet.

Two programs timed one after the other on a shared machine are not comparable: its
speed drifts by tens of percent. Here all candidates run in one process in short blocks
that alternate, the order turning round every time, and the figure that counts is the
ratio within a round, of which the median is taken. Nothing is timed before its result
was found right.

One thread is timed by the processor time of the process (`time.process_time`): what
other programs take does not count, and a helper thread would. More threads are timed by
the wall clock.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Runner = Callable[[], Any]

# A clock is read in a microsecond at worst; shorter calls are timed in batches.
_BATCH_SECONDS = 50e-6
# On a busy machine processor time passes slowly: so many times `min_seconds` by the
# wall clock are enough, too.
_WALL_FACTOR = 2.0


class WrongResultError(RuntimeError):
    """A result differs from the expected one, so its time means nothing."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over all rounds.

    Attributes:
        median: Median over rounds (each round gives the median of its block).
        p10: 10th percentile.
        p90: 90th percentile.
        calls: Timed calls altogether.
    """

    median: float
    p10: float
    p90: float
    calls: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """How many times faster the candidate is than the baseline.

    Attributes:
        median: Median over rounds of baseline time / candidate time.
        p10: 10th percentile over rounds.
        p90: 90th percentile over rounds.
    """

    median: float
    p10: float
    p90: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


class Measurement:
    """Block times of candidates that were run in turn.

    Args:
        blocks: For each candidate the median seconds of one call in each round.
        calls: For each candidate how many calls were timed.
    """

    def __init__(
        self, blocks: Mapping[str, Sequence[float]], calls: Mapping[str, int]
    ) -> None:
        self._blocks = {name: np.asarray(times) for name, times in blocks.items()}
        self._calls = dict(calls)

    @property
    def rounds(self) -> int:
        return len(next(iter(self._blocks.values())))

    def timing(self, name: str) -> Timing:
        """The time of one candidate."""
        p10, median, p90 = np.percentile(self._blocks[name], (10, 50, 90))
        return Timing(float(median), float(p10), float(p90), self._calls[name])

    def ratio(self, baseline: str, candidate: str) -> Ratio:
        """How many times faster `candidate` is than `baseline`, round by round."""
        ratios = self._blocks[baseline] / self._blocks[candidate]
        p10, median, p90 = np.percentile(ratios, (10, 50, 90))
        return Ratio(float(median), float(p10), float(p90))


def interleave(
    runners: Mapping[str, Runner],
    *,
    min_seconds: float = 1.0,
    min_rounds: int = 7,
    block_seconds: float = 0.01,
    warm_up_seconds: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Times candidates in alternating blocks.

    A block calls one candidate again and again for `block_seconds`. Its first call
    brings the candidate's data back into the caches and is not counted.

    Args:
        runners: Name to a call without arguments.
        min_seconds: Goes on at least this long, all candidates together; on a busy
            machine at most twice as long by the wall clock.
        min_rounds: Rounds to make even when `min_seconds` is over; a round is one
            block of every candidate.
        block_seconds: Length of a block.
        warm_up_seconds: Each candidate runs this long (at least once) before.
        clock: Returns seconds; see `clock_for`.

    Returns:
        The block times.

    Raises:
        ValueError: If there is nothing to time, or fewer than one round is asked for.
    """
    if not runners:
        raise ValueError("Argument `runners` must hold at least one candidate.")
    if min_rounds < 1:
        raise ValueError(f"`min_rounds` must be at least 1. Received: {min_rounds}")
    sizes = {}
    for name, run in runners.items():
        start, count, now = clock(), 0, 0.0
        while count == 0 or now - start < warm_up_seconds:
            run()
            count += 1
            now = clock()
        one_call = max((now - start) / count, 1e-9)
        batch = max(1, round(_BATCH_SECONDS / one_call))
        sizes[name] = (max(1, round(block_seconds / (batch * one_call))), batch)
    blocks: dict[str, list[float]] = {name: [] for name in runners}
    start, wall_end = clock(), time.perf_counter() + _WALL_FACTOR * min_seconds
    order = list(runners)
    while len(blocks[order[0]]) < min_rounds or (
        clock() - start < min_seconds and time.perf_counter() < wall_end
    ):
        for name in order:
            blocks[name].append(_block(runners[name], *sizes[name], clock))
        order.reverse()
    rounds = len(blocks[order[0]])
    calls = {name: batches * batch * rounds for name, (batches, batch) in sizes.items()}
    return Measurement(blocks, calls)


def clock_for(threads: int) -> Callable[[], float]:
    """The clock to time work on that many threads by, see the top of this file."""
    return time.process_time if threads == 1 else time.perf_counter


def _block(run: Runner, batches: int, batch: int, clock: Callable[[], float]) -> float:
    run()
    times = []
    for _ in range(batches):
        start = clock()
        for _ in range(batch):
            run()
        times.append((clock() - start) / batch)
    return float(np.median(times))


def relative_error(expected: np.ndarray, received: np.ndarray) -> float:
    """max |received - expected| / max |expected|; infinite for NaN or a wrong shape.

    Args:
        expected: The right answer.
        received: The answer to judge, of the same shape.
    """
    expected = np.asarray(expected, np.float64)
    received = np.asarray(received, np.float64)
    if expected.shape != received.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    scale = np.max(np.abs(expected))
    difference = np.max(np.abs(received - expected))
    if not np.isfinite(difference):
        return float("inf")
    return float(difference / scale) if scale > 0 else float(difference)


def check_results(
    expected: Sequence[np.ndarray],
    received: Sequence[np.ndarray],
    *,
    tolerance: float,
    what: str = "The packed model",
) -> float:
    """Compares the outputs of two models.

    Args:
        expected: Outputs of the baseline.
        received: Outputs of the candidate, in the same order.
        tolerance: Largest allowed `relative_error` of any output.
        what: Name of the candidate for the message.

    Returns:
        The largest relative error.

    Raises:
        WrongResultError: If an output is further away, or their number differs.
    """
    if len(expected) != len(received):
        raise WrongResultError(
            f"{what} has {len(received)} outputs where {len(expected)} were expected."
        )
    worst = 0.0
    for index, (right, answer) in enumerate(zip(expected, received, strict=True)):
        error = relative_error(right, answer)
        if not error <= tolerance:
            raise WrongResultError(
                f"{what} computes something else: output {index} of shape "
                f"{np.shape(answer)} (expected {np.shape(right)}) is off by "
                f"{error:.3g} of the largest value, allowed is {tolerance:.3g}. "
                "It is not timed."
            )
        worst = max(worst, error)
    return worst
