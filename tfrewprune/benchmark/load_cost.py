# SPDX-License-Identifier: Apache-2.0
"""What loading one model costs a fresh process: time and memory."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Cost:
    """What loading a model costs a fresh process.

    Attributes:
        load_seconds: From opening the file to the end of the first inference.
        resident_bytes: Growth of the resident memory by then, mapped file included.
        held_bytes: Of these the native library's tables and scratch; its weights stay
            in the file. 0 for a dense model.
    """

    load_seconds: float
    resident_bytes: int
    held_bytes: int = 0


def load_cost(
    path: str | os.PathLike[str],
    threads: int = 1,
    *,
    packed: bool = False,
    repeats: int = 3,
    shapes: Sequence[tuple[int, ...]] = (),
) -> Cost | None:
    """Loads a model in fresh processes and takes the median of what that costs.

    Args:
        path: The model.
        threads: Threads of the interpreter.
        packed: Whether to load it with our delegate.
        repeats: Number of processes.
        shapes: Of the inputs; none takes those that the file stores.

    Returns:
        The cost, or None where the system does not tell resident memory.

    Raises:
        RuntimeError: If the process fails.
    """
    if not knows_memory():
        return None
    return median_cost(
        [load_once(path, threads, packed, shapes) for _ in range(repeats)]
    )


def knows_memory() -> bool:
    """Whether this system tells how much memory of a process is resident."""
    return Path("/proc/self/status").exists()


def load_once(
    path: str | os.PathLike[str],
    threads: int,
    packed: bool,
    shapes: Sequence[tuple[int, ...]] = (),
) -> Cost:
    """Loads a model in one fresh process.

    Raises:
        RuntimeError: If the process fails.
    """
    command = [sys.executable, "-m", "tfrewprune.benchmark.load_once", os.fspath(path)]
    command += ["--threads", str(threads)] + (["--packed"] if packed else [])
    command += ["--shapes", json.dumps(shapes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"Loading {path} failed: {done.stderr.strip()[-500:]}")
    return Cost(**json.loads(done.stdout))


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Each figure's median by itself."""
    return Cost(
        float(np.median([cost.load_seconds for cost in costs])),
        int(np.median([cost.resident_bytes for cost in costs])),
        int(np.median([cost.held_bytes for cost in costs])),
    )
