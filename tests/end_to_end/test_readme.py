# SPDX-License-Identifier: Apache-2.0
"""The README's ten minutes run as printed."""

import re
import shlex
from pathlib import Path

import keras
import pytest

from tfrewprune.cli import SUBCOMMANDS, main

README = Path(__file__).resolve().parents[2] / "README.md"
TEXT = README.read_text()


@pytest.mark.slow
def test_code_blocks_run_in_the_order_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.clear_session()  # layers are numbered from the first again
    names: dict = {"__name__": "readme"}
    ran = []
    for language, code in re.findall(r"```(python|sh)\n(.*?)```", TEXT, re.DOTALL):
        if language == "python":
            line = TEXT[: TEXT.index(code)].count("\n")
            # Errors name the README's line.
            exec(compile("\n" * line + code, str(README), "exec"), names)
            continue
        for command in code.splitlines():
            program, *words = shlex.split(command)
            assert program == "tfrewprune" and main(words) == 0, command
            ran.append(words[0])
    out = capsys.readouterr().out
    assert ran == ["plan", "inspect", "bench"]
    assert names["result"].scores["after"]["accuracy"] > 0.8
    assert names["recipe"].rule_for("conv2d_1", "conv2d_1").skip
    # The page promises that pruning pays on its own example.
    assert float(re.search(r"([\d.]+)x faster", out)[1]) > 1.5
    assert {path.name for path in tmp_path.iterdir()} == {
        *("trained.keras", "pruned.keras", "pruned.tflite", "quantized.tflite")
    }


def test_every_command_is_in_the_table():
    rows = re.findall(r"^\| `tfrewprune (\w+)", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted(SUBCOMMANDS)


def test_links_lead_to_files_and_their_headings():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    named = re.findall(r"`(t\w+/[\w/]+\.(?:md|py))`", TEXT)
    assert links and named
    for link in links + named:
        file, _, anchor = link.partition("#")
        assert (README.parent / file).is_file(), link
        if anchor:
            text = (README.parent / file).read_text()
            headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
            assert anchor in {h.lower().replace(" ", "-") for h in headings}, link
