# SPDX-License-Identifier: Apache-2.0
"""One table of an experiment: a row a method, means and spread over the seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tfrewprune.converter.files import write_atomically
from tfrewprune.experiments.runs import RunLog, mean_and_spread

Summary = dict[str, dict[str, float]]


#: Scores by their names in records, and what their columns are called.
SCORES = {
    "accuracy": "%",
    "phone_error_rate": "PER %",
    "decoded_error_rate": "decoded %",
}
PARTS = {"validation": "validation", "test": "test", "litert": "LiteRT"}


def summarize(log: RunLog, scored: Sequence[str] = ("accuracy",)) -> Summary:
    """Returns the figures of every method: means over its seeds.

    Keys where known: ``seeds``, ``rate``, each score as ``validation_accuracy``,
    ``test_accuracy``, ``litert_accuracy`` (each also with
    ``_spread``, a sample standard deviation), ``dense_bytes``,
    ``packed_bytes``, ``dense_ms``, ``packed_ms``, ``speedup`` (these three with
    the first thread count measured; absent where nothing was packed),
    ``real_time_factor``. The newest
    record of a method, seed and stage counts.
    """
    newest: dict[tuple[str, int], dict[str, Any]] = {}
    for record in log.records():
        run = newest.setdefault((record["method"], record["seed"]), {})
        run.update(record)
    summary: Summary = {}
    for method in dict.fromkeys(method for method, _ in newest):
        of_method = [run for (name, _), run in newest.items() if name == method]
        row: dict[str, float] = {"seeds": len(of_method)}
        scores = [f"{part}_{score}" for score in scored for part in PARTS]
        for run in of_method:
            if run.get("latency"):
                timing = run["latency"][0]
                run["dense_ms"] = 1e3 * timing["dense"]["median"]
                run["packed_ms"] = 1e3 * timing["packed"]["median"]
                run["speedup"] = timing["ratio"]["median"]
        for name in (
            "rate",
            *scores,
            "dense_bytes",
            "packed_bytes",
            "dense_ms",
            "packed_ms",
            "speedup",
            "real_time_factor",
        ):
            values = [run[name] for run in of_method if run.get(name) is not None]
            if not values:
                continue
            row[name], spread = mean_and_spread(values)
            if name in scores:
                row[f"{name}_spread"] = spread
        summary[method] = row
    return summary


def build(
    title: str,
    methods: Sequence[str],
    summary: Summary,
    scored: Sequence[str] = ("accuracy",),
) -> Table:
    """Returns the table to print; methods without a finished run are left out."""
    table = Table(title=title)
    table.add_column("method", no_wrap=True)
    scores = {
        f"{part}_{score}": f"{heading} {SCORES[score]}"
        for score in scored
        for part, heading in PARTS.items()
    }
    for column in (
        "seeds",
        "rate",
        *scores.values(),
        "file bytes",
        "ms dense",
        "ms ours",
        "faster",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for method in methods:
        row = summary.get(method)
        if row is None:
            continue
        table.add_row(
            method,
            _number(row, "seeds", "{:.0f}"),
            _number(row, "rate", "{:.1f}x"),
            *(_percent(row, score) for score in scores),
            _number(row, "packed_bytes", "{:,.0f}"),
            _number(row, "dense_ms", "{:.4f}"),
            _number(row, "packed_ms", "{:.4f}"),
            _number(row, "speedup", "{:.1f}x"),
        )
    return table


def show(
    title: str,
    methods: Sequence[str],
    log: RunLog,
    goals: Callable[[Summary], list[tuple[str, bool]]],
    console: Console | None = None,
    *,
    scored: Sequence[str] = ("accuracy",),
    published: Summary | None = None,
) -> None:
    """Prints the table of ``log`` and which goals the means reach.

    The same figures are written to a ``.json`` beside the log.

    Args:
        title: Of the table.
        methods: Its rows, in order.
        log: Records of finished runs.
        goals: From the summary to each goal and whether it is reached.
        console: Where to print.
        scored: Names of the scores, keys of :data:`SCORES`.
        published: Rows below ours, by their names; they are not ours to average.
    """
    console = console or Console(width=130 + 40 * len(scored))
    summary = summarize(log, scored)
    if not summary:
        console.print(f"{title}: no finished run in {log.path}")
        return
    published = published or {}
    shown = {**summary, **published}
    console.print(build(title, [*methods, *published], shown, scored))
    reached_goals = goals(summary)
    document = {"title": title, "methods": summary, "goals": dict(reached_goals)}
    if published:
        document["published"] = published
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomically(log.path.with_suffix(".json"), text.encode())
    for goal, reached in reached_goals:
        console.print(f"{'reached' if reached else 'MISSED '}  {goal}", highlight=False)


def _number(row: Mapping[str, float], name: str, form: str) -> str:
    return form.format(row[name]) if name in row else "-"


def _percent(row: Mapping[str, float], name: str) -> str:
    if name not in row:
        return "-"
    spread = f"{name}_spread"
    more = f" ± {100 * row[spread]:.2f}" if spread in row else ""
    return f"{100 * row[name]:.2f}{more}"
