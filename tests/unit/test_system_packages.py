# SPDX-License-Identifier: Apache-2.0
"""`make test` gets its tools, or says that it has not."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "aarch64-linux-gnu-g++",
    "qemu-aarch64",
    "arm-linux-gnueabihf-g++",
    "qemu-arm",
    "clang-16",
    "ld.lld-16",
    "javac",
)
NEEDED = ("bash", "sh", "env", "make", "find", "touch", "cp")
LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt)"


class Machine:
    """A PATH on which the tests decide what is there."""

    def __init__(self, folder: Path):
        self.bin = folder
        for name in NEEDED:
            (folder / name).symlink_to(shutil.which(name))
        self.program("id", "echo 0")
        self.program("sleep", "echo slept >> calls")
        # Includes GoogleTest once it is installed.
        self.program("c++", "test -e gtest.h")

    def program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\ncd "$(dirname "$0")" || exit\n{body}\n')
        path.chmod(0o755)

    def apt_get(self, *, locked: int = 0, error: str = "") -> None:
        """An apt-get that finds the lock taken some times, or always fails."""
        installs = " && ".join(f"cp id {tool}" for tool in TOOLS)
        self.program(
            "apt-get",
            'echo "$@" >> calls\n'
            f"if [ $(grep -c slept calls) -lt {locked} ]; then "
            f"echo '{LOCKED}' >&2; exit 100; fi\n"
            f"[ -z '{error}' ] || {{ echo '{error}' >&2; exit 100; }}\n"
            f'case "$*" in *install*) touch gtest.h && {installs};; esac',
        )

    def make(self, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["make", "--silent", "-C", str(ROOT), "system-packages"],
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
        )

    @property
    def calls(self) -> list[str]:
        path = self.bin / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path) -> Machine:
    for name in ("dirname", "grep"):
        (tmp_path / name).symlink_to(shutil.which(name))
    return Machine(tmp_path)


def test_waits_for_a_lock_of_apt(machine) -> None:
    machine.apt_get(locked=3)
    done = machine.make(CI="1")
    assert done.returncode == 0, done.stderr
    assert machine.calls.count("slept") == 3
    update, install = (line for line in machine.calls[-2:])
    assert "update" in update and "install" in install
    assert all("DPkg::Lock::Timeout=" in line for line in (update, install))


def test_installs_nothing_when_all_is_there(machine) -> None:
    machine.apt_get()
    assert machine.make().returncode == 0
    before = len(machine.calls)
    assert machine.make().returncode == 0
    assert len(machine.calls) == before > 0


@pytest.mark.parametrize("ci", [True, False])
def test_a_missing_tool_is_a_failure_in_ci_and_said_elsewhere(ci, machine) -> None:
    machine.apt_get(error="E: Unable to locate package qemu-user")
    done = machine.make(**{"CI": "true"} if ci else {})
    assert (done.returncode != 0) == ci
    assert "Unable to locate package" in done.stderr
    assert "not all installed: libgtest-dev" in done.stderr
    assert "slept" not in machine.calls, "only a lock is worth waiting for"


def test_who_is_not_root_is_told(machine) -> None:
    machine.apt_get()
    machine.program("id", "echo 1000")
    assert "not all installed" in machine.make().stderr
    assert machine.make(CI="1").returncode != 0
    assert machine.calls == []


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_native_tests_depend_on_the_tools() -> None:
    for target in ("test-native", "test-sanitize", "test-arm"):
        done = subprocess.run(
            ["make", "-n", "-C", str(ROOT), target],
            env={**os.environ, "CI": "1"},
            capture_output=True,
            text=True,
        )
        assert ".ci/system-packages" in done.stdout
