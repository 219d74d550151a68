# SPDX-License-Identifier: Apache-2.0
"""Random layers of real networks: the same ones everywhere, and resumable."""

import json

from tfrewprune.benchmark import sweep
from tfrewprune.benchmark.geometries import KINDS, MOST_MACS, case


def test_cases_are_the_same_every_time_affordable_and_of_every_kind():
    cases = [case(index) for index in range(10 * len(KINDS))]
    assert cases == [case(index) for index in range(10 * len(KINDS))]
    assert {item.kind for item in cases} == set(KINDS)
    assert all(0 < item.layer.macs <= MOST_MACS for item in cases)
    assert {item.structure for item in cases} >= {"block16x1", "unstructured"}


def test_a_run_goes_on_where_the_file_ends_and_is_summed_up(tmp_path, capsys):
    path = tmp_path / "sweep.jsonl"
    words = [str(path), "--cases", "2", "--seconds", "100"]
    assert sweep.main(words) == 0
    path.write_text(path.read_text() + '{"index": 2, "ki')  # cut off
    records = sweep.read_records(path)
    assert [record["index"] for record in records] == [0, 1]
    assert all(record["error"] <= sweep.TOLERANCE for record in records)
    path.write_text(json.dumps(records[0]) + '\n{"index": 1, "ki')
    assert sweep.main(words) == 0
    assert [record["index"] for record in sweep.read_records(path)] == [0, 1]
    assert sweep.main([*words, "--summary"]) == 0
    assert "worst packed cases" in capsys.readouterr().out
