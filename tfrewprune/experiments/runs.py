# SPDX-License-Identifier: Apache-2.0
"""Records of finished runs: a JSON-lines file that makes experiments resumable.

One line is one run of one method with one seed. A line is appended the moment
the run is finished, so that an experiment that was interrupted, or that runs
as several processes at once, repeats nothing.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tfrewprune.benchmark.machine import cpu_name

RESULTS = Path(__file__).resolve().parent / "results"


class RunLog:
    """The finished runs of one experiment, kept in ``path``.

    Args:
        path: JSON-lines file; made, with its folder, on the first
            :meth:`append`.

    Example:
        >>> log = RunLog("/tmp/example.jsonl")  # doctest: +SKIP
        >>> log.append({"method": "dense", "seed": 0, "accuracy": 0.99})
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def records(self) -> list[dict[str, Any]]:
        """Returns all records, oldest first.

        Raises:
            ValueError: a line is no JSON object; the message names it.
        """
        if not self.path.exists():
            return []
        found = []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{self.path}, line {number}: expected a JSON object, got"
                    f" {line[:60]!r} ({error})."
                ) from error
            found.append(record)
        return found

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Returns the newest record that has all of ``key``, or None."""
        for record in reversed(self.records()):
            if all(record.get(name) == value for name, value in key.items()):
                return record
        return None

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one record as one line (a single append: processes may share)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record, sort_keys=True, allow_nan=False) + "\n"
        with open(self.path, "ab", buffering=0) as stream:
            stream.write(line.encode("utf-8"))


def environment() -> dict[str, Any]:
    """Returns what a reader needs to repeat a run.

    The command, the commit (with ``+`` when tracked files were changed), the
    date (UTC), the processor and the versions of the packages that matter.
    """
    versions = {}
    for package in ("keras", "tensorflow", "ai-edge-litert", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"-m {module.name}" if module else Path(sys.argv[0]).name
    return {
        "command": " ".join(["python", program, *sys.argv[1:]]),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "processor": cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "versions": versions,
    }


def _commit() -> str | None:
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation (0 for one value).

    Raises:
        ValueError: ``values`` is empty.
    """
    if not values:
        raise ValueError("mean_and_spread needs at least one value, got none.")
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance)
