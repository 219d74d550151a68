# SPDX-License-Identifier: Apache-2.0
"""Tables of the benchmark fit the console and keep what matters."""

import dataclasses
import io

import pytest
from rich.console import Console

from tfrewprune.benchmark.harness import Row
from tfrewprune.benchmark.load_cost import Cost
from tfrewprune.benchmark.loading import Loading, loading_table
from tfrewprune.benchmark.models import model_table
from tfrewprune.benchmark.peers import peer_table
from tfrewprune.benchmark.table import print_table, row_table
from tfrewprune.benchmark.timeline import Step, step_table

TEXT = {"shapes": "mobilenet_v2", "layer": "block_13_expand", "structure": "block16x1"}


def row():
    made = {field.name: 12.3456 for field in dataclasses.fields(Row)}
    return Row(**made | TEXT | {"isa": "avx512", "threads": 2, "rounds": 9})


def model():
    cost = {"resident_bytes": 102e6, "load_seconds": 0.1234}
    return {
        **{"model": "mobilenet_v2", "threads": 1, "mac_rate": 7.65},
        **{"dense": {"median": 0.12345}, "packed": {"median": 0.02345}},
        **{"ratio": {"median": 5.26}, "speed_up_over_mac_rate": 0.69},
        **{"ratio_limit": 5.5, "packed_layers_seconds": 0.02, "litert_seconds": 0.01},
        **{"dense_bytes": 102e6, "packed_bytes": 15e6, "packing_seconds": 12.3},
        **{"dense_cost": cost, "packed_cost": cost},
    }


TABLES = {
    "rows": (lambda: row_table([row()]), ["block_13_expand", "dense ms", "12.35x"]),
    "models": (lambda: model_table([model()]), ["mobilenet_v2", "123.45", "5.26x"]),
    "loading": (
        lambda: loading_table(
            [Loading("resnet50", 1, *[Cost(0.1, 10**8, 10**6)] * 2, 3.2, *[10**8] * 3)]
        ),
        ["resnet50", "load ms", "100.0 -> 100.0", "3.20x"],
    ),
    "steps": (
        lambda: step_table(
            [
                Step(
                    *(False, ("DEPTHWISE_CONV_2D",) * 9, (1, 112, 112, 64)),
                    *((512, 3, 3, 512), 0.001, 10**9),
                )
            ]
        ),
        ["LiteRT", "512x3x3x512", "1.00"],
    ),
    "peers": (
        lambda: peer_table(
            [TEXT | {"rate": 8, "seconds": {"ours": 0.1, "litert": 0.3, "mnn": 0.2}}]
        ),
        ["block_13_expand", "100.0000", "300.0000"],
    ),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("columns", [None, 100, 60])
def test_tables_fit_80_columns_or_what_columns_says(name, columns, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    make, kept = TABLES[name]
    out = io.StringIO()
    print_table(Console(file=out), make())
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= (columns or 80)
    if columns != 60:
        assert all(word in text for word in kept), text


def test_a_wide_console_gets_every_column():
    out = io.StringIO()
    table = row_table([row()])
    count = len(table.columns)
    print_table(Console(file=out, width=300), table)
    assert len(table.columns) == count and "payload" in out.getvalue()
