# SPDX-License-Identifier: Apache-2.0
"""Names that fit a line still tell layers apart."""

import pytest

from tfrewprune.text import aligned, keep_ends, line_width


def test_a_name_that_fits_is_left_alone() -> None:
    assert keep_ends(["a/conv"], 6) == {"a/conv": "a/conv"}


def test_names_lose_their_front() -> None:
    names = ["backbone/stage2/block3/conv2", "backbone/stage2/block3/conv1"]
    assert list(keep_ends(names, 14).values()) == ["…/block3/conv2", "…/block3/conv1"]


def test_a_common_end_goes_too_when_it_hides_the_difference() -> None:
    names = [f"net/stage{n}/block/pointwise/convolution" for n in range(12)]
    cut = keep_ends(names, 20)
    assert len(set(cut.values())) == 12
    assert all(len(name) <= 20 for name in cut.values())
    assert cut[names[11]] == "…tage11…/convolution"


@pytest.mark.parametrize("width", [4, 5, 9, 16])
def test_no_name_is_wider_than_allowed(width) -> None:
    names = ["x" * n for n in range(1, 40)] + [f"{n}/same/end" for n in range(30)]
    cut = keep_ends(names, width)
    assert set(cut) == set(names)
    assert max(map(len, cut.values())) <= width


def test_width_is_columns_or_80(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "123")
    assert line_width() == 123
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("sys.__stdout__", None)
    assert line_width() == 80


def test_a_table_shortens_names_alone() -> None:
    table = [("layer", "kind", "kept"), ("backbone/stage2/conv", "Dense", "1,024")]
    assert aligned(table, 2, width=26) == [
        "layer         kind    kept",
        "…stage2/conv  Dense  1,024",
    ]
    assert aligned(table, width=10)[0] == "layer          kind   kept"
