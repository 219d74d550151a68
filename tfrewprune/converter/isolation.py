# SPDX-License-Identifier: Apache-2.0
"""Runs models in a child process, so that a damaged one takes nothing down with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrewprune.converter.cases import Case
from tfrewprune.converter.errors import ConversionError

SECONDS = 900


def run_models(
    models: Mapping[str, tuple[bytes, bool]],
    cases: Sequence[Case],
    watched: Sequence[tuple[int, int]] = (),
    only_shapes: bool = False,
) -> dict[str, list[list[np.ndarray]]]:
    """Runs models on the same cases in a child process.

    Args:
        models: Name -> (bytes, whether our delegate is needed).
        cases: The runs.
        watched: Tensors (subgraph, index) to return instead of the outputs. They are
            read without XNNPACK, which keeps no tensor but its outputs.
        only_shapes: Whether to return the shapes of what is watched instead.

    Returns:
        Name -> outputs, or watched tensors, of every run.

    Raises:
        ConversionError: If LiteRT refuses a model, or crashes over it.
    """
    with tempfile.TemporaryDirectory(prefix="tfrewprune-") as path:
        folder = Path(path)
        job: dict[str, Any] = {"models": [], "cases": [], "watched": list(watched)}
        job["only_shapes"] = only_shapes
        for name, (content, packed) in models.items():
            (folder / f"{name}.tflite").write_bytes(content)
            job["models"].append(
                {"name": name, "file": f"{name}.tflite", "packed": packed}
            )
        for number, case in enumerate(cases):
            np.savez(folder / f"inputs_{number}.npz", *case.feed)
            job["cases"].append(
                {
                    "signature": case.signature,
                    "names": case.names,
                    "inputs": f"inputs_{number}.npz",
                }
            )
        (folder / "job.json").write_text(json.dumps(job))
        _run_child(folder)
        results: dict[str, list[list[np.ndarray]]] = {}
        for name in models:
            results[name] = []
            for number in range(len(cases)):
                with np.load(folder / f"{name}_{number}.npz") as arrays:
                    count = len(arrays.files)
                    results[name].append([arrays[f"arr_{i}"] for i in range(count)])
        return results


def _run_child(folder: Path) -> None:
    paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    command = [sys.executable, "-m", "tfrewprune.converter.execute", str(folder)]
    try:
        child = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConversionError(
            f"LiteRT did not finish running the models in {SECONDS} seconds"
        ) from None
    if child.returncode == 0:
        return
    tail = child.stderr.decode("utf-8", "replace").strip()[-2000:]
    report = folder / "error.json"
    if report.is_file():
        name, message = json.loads(report.read_text())
        log = "\n".join(line for line in tail.splitlines() if line.startswith("ERROR"))
        raise ConversionError(
            f"LiteRT cannot run the {name} model: {message}"
            + (f"\n{log}" if log else "")
        )
    raise ConversionError(
        f"LiteRT crashed (exit status {child.returncode}) while running the models"
        f"\n{tail}"
    )
