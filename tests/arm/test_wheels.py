# SPDX-License-Identifier: Apache-2.0
"""The wheels: which systems they install on, and what auditwheel thinks of them."""

import subprocess
import sys
import zipfile

import pytest


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_auditwheel_agrees_with_the_tag(build, machine):
    (wheel,) = (build / "wheels").glob(f"*_{machine}.whl")
    assert wheel.name.endswith(f"-py3-none-manylinux_2_28_{machine}.whl")
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", wheel],
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    # An older system than the tag says would do.
    oldest = f'following platform tag: "manylinux_2_17_{machine}"'
    assert f"is consistent with the {oldest}" in text


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_wheel_brings_all_that_the_package_reads(build, machine):
    (wheel,) = (build / "wheels").glob(f"*_{machine}.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in (
        "runtime/libtfrewprune_delegate.so",
        "payload/cost.json",
        "benchmark/arm_counts.jsonl",
        "report/template.html.j2",
    ):
        assert f"tfrewprune/{name}" in names
