# SPDX-License-Identifier: Apache-2.0
"""The HTML page: complete, self-contained, honest about its input."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import image

from tfrewprune.report import (
    Bar,
    Curve,
    Figure,
    Layer,
    Report,
    render_report,
    write_report,
)
from tfrewprune.report.pictures import fold, survivors


@pytest.fixture
def report() -> Report:
    mask = np.zeros((2, 40), bool)
    mask[0, :7] = True
    return Report(
        title="A <model> & more",
        summary="Summary.",
        figures=[Figure("5.00x", "faster", "note")],
        columns=["model", "ms"],
        rows=[["dense", "1.0"], ["pruned", "0.2"]],
        latency=[
            Bar("dense", 1e-3, 0.9e-3, 1.2e-3, False),
            Bar("pruned", 2e-4, 1.9e-4, 2.1e-4, True),
        ],
        layers=[
            Layer("first", "Conv2D", (3, 3, 1, 8), 72, 72, note="left dense"),
            Layer(
                "second",
                "Dense",
                (40, 32),
                1280,
                112,
                "Block(16, 1)",
                mask,
                dense_seconds=3e-4,
                packed_seconds=1e-4,
            ),
        ],
        accuracy=[Curve("dense", [0.5, 0.9], dashed=True), Curve("pruned", [0.4, 0.8])],
        sparsity=Curve("sparsity", [0.5], start=1),
        phases=[("warm-up", 0, 1), ("reweighted", 1, 2)],
        notes=["Measured so."],
        facts=[("CPU", "some")],
    )


class Links(HTMLParser):
    """Collects what a page loads, and whether its tags close."""

    VOID = {"meta", "img", "br", "link", "input", "source"}

    def __init__(self):
        super().__init__()
        self.loads, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [
            value for name, value in attrs if name in ("src", "srcset", "href")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_loads_nothing(report):
    page = render_report(report)
    links = Links()
    links.feed(page)
    assert not links.open
    assert links.loads and all(link.startswith("data:image/") for link in links.loads)
    # Nothing is fetched behind the back of the parser either.
    assert "url(" not in page and "@import" not in page and "<script" not in page


def test_page_says_what_the_report_says(report):
    page = render_report(report)
    for text in ("5.00x", "Summary.", "left dense", "Block(16, 1), 7 of 80 blocks"):
        assert text in page
    assert "A &lt;model&gt; &amp; more" in page and "<model>" not in page
    assert "112 of 1,280" in page and "11.4x" in page and "3.00x" in page


def test_a_phone_gets_pictures_of_its_own_and_no_wide_table(report):
    page = render_report(report)
    pictures = re.findall(r"<picture>(.*?)</picture>", page)
    assert len(pictures) == page.count("<img") == 6
    for picture in pictures:
        narrow, wide = re.findall(r'(?:srcset|src)="data:image/(.*?)"', picture)
        assert 'media="(max-width: 600px)"' in picture
        if narrow.startswith("svg"):
            assert svg_width(narrow) < 300 < 500 < svg_width(wide)
    sides = page[page.index('class="sides"') : page.index("Time of one inference")]
    assert sides.count("<th>") == 1 + len(report.rows)
    layers = page[page.index('class="layers"') : page.index("How this was measured")]
    # Cells say what they are, where the head of the table is not shown.
    assert layers.count("data-head=") == 7 * len(report.layers)


def svg_width(uri: str) -> float:
    """Points; text has 10 whatever the picture's width."""
    svg = base64.b64decode(uri.partition(",")[2]).decode()
    return float(re.search(r'<svg [^>]*?width="([\d.]+)pt"', svg)[1])


def test_page_without_training_or_times(report):
    from dataclasses import replace

    bare = [replace(layer, dense_seconds=None) for layer in report.layers]
    page = render_report(replace(report, accuracy=[], sparsity=None, layers=bare))
    assert "Training" not in page and "What each layer gained" not in page


def test_equal_reports_give_equal_pages(report):
    assert render_report(report) == render_report(report)


def test_picture_shows_each_surviving_block(report):
    uri = survivors(report.layers[1])
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    pixels = image.imread(io.BytesIO(content))[..., :3]
    assert pixels.shape[:2] == (2, 40)
    alive = pixels[..., 0] < 0.3
    assert (alive == report.layers[1].survivors).all()


@pytest.mark.parametrize("columns", [1, 287, 288, 289, 1000])
def test_folding_keeps_every_dot(columns):
    mask = np.random.default_rng(0).random((3, columns)) < 0.3
    folded = fold(mask, width=288)
    assert folded.shape[1] <= 288
    assert (folded == 1).sum() == mask.sum()
    assert (folded == 0).sum() == (~mask).sum()


def test_file_appears_whole_or_not_at_all(report, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(report, path)
    before = path.read_text()
    assert re.match("<!doctype html>", before)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_report(report, path)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
