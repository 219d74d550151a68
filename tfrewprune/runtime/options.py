# SPDX-License-Identifier: Apache-2.0
"""The delegate's options: those that every way to run packed layers takes."""

from __future__ import annotations

import os


def delegate_options(
    *,
    isa: str | None = None,
    driver: str | None = None,
    tune: str | None = None,
    tune_ms: int | None = None,
    cache_path: str | os.PathLike[str] | None = None,
    precision: str | None = None,
) -> dict[str, str]:
    """Options as the native library reads them, those that were given.

    Args:
        isa: As in `tfrewprune.Interpreter`, and so are the others.
        driver: Likewise.
        tune: Likewise.
        tune_ms: Milliseconds.
        cache_path: Made absolute: the process may change its folder before the file
            is written.
        precision: As in `tfrewprune.Interpreter`.

    Raises:
        ValueError: `tune_ms` or `cache_path` without `tune="once"`. The library itself
            refuses values that it does not know.

    Example:
        >>> delegate_options(isa="avx2", tune="once", tune_ms=20)
        {'isa': 'avx2', 'tune': 'once', 'tune_ms': '20'}
    """
    if tune != "once" and (cache_path is not None or tune_ms is not None):
        raise ValueError(
            'Arguments `cache_path` and `tune_ms` need tune="once". '
            f"Received: tune={tune!r}"
        )
    path = None if cache_path is None else os.path.abspath(os.fspath(cache_path))
    given = {
        "isa": isa,
        "driver": driver,
        "tune": tune,
        "tune_ms": tune_ms,
        "cache_path": path,
        "precision": precision,
    }
    return {key: str(value) for key, value in given.items() if value is not None}
