# SPDX-License-Identifier: Apache-2.0
"""Counts the ARM instructions of one run of models in LiteRT, under qemu."""

import json
import subprocess
from pathlib import Path

from conftest import ArmPython

HERE = Path(__file__).parent


def build_counter(folder: Path) -> tuple[Path, Path]:
    """Compiles qemu's plugin and the marks it looks for; returns both."""
    plugin, marks = folder / "libcount.so", folder / "marks.so"
    flags = ("-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o")
    for compiler, output, source in (
        ("cc", plugin, "count_instructions.c"),
        ("aarch64-linux-gnu-gcc", marks, "marks.c"),
    ):
        subprocess.run([compiler, *flags, output, HERE / source], check=True)
    return plugin, marks


def count(
    python: ArmPython,
    counter: tuple[Path, Path],
    library: Path,
    models: list[Path],
    precision: str = "float32",
) -> list[dict[str, int]]:
    """Returns for each model how many instructions of which kind one run takes.

    What every run takes besides its layer, in Python and LiteRT, is in them too.
    """
    plugin, marks = counter
    log = plugin.with_name("counts.jsonl")
    log.unlink(missing_ok=True)
    options = ("-plugin", plugin, "-d", "plugin", "-D", log)
    arguments = (HERE / "count_models.py", marks, library, precision, *models)
    python.run(*arguments, options=options)
    counts = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(counts) == len(models), f"{len(counts)} regions, {len(models)} models"
    return counts
