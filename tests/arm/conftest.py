# SPDX-License-Identifier: Apache-2.0
"""Where `make test-arm` has built what these tests run, and how it runs."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(HERE.parent / "unit"))  # the model builders


@dataclass(frozen=True)
class Cpu:
    """A CPU that qemu plays, and what its /proc/cpuinfo says.

    LiteRT reads that file and believes it, so it must promise no more than qemu does.
    """

    qemu: str
    part: str
    features: str


PLAIN = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
PHONE = f"{PLAIN} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
CPUS = {
    "cortex-a53": Cpu("cortex-a53", "0xd03", PLAIN),
    "cortex-a76": Cpu("cortex-a76", "0xd0b", PHONE),
    # With SME visible LiteRT 2.3 computes wrong int8 results.
    "max": Cpu("max,sme=off,pauth-impdef=on", "0xd0b", PHONE),
}


@pytest.fixture(scope="session")
def build() -> Path:
    """The folder in which `make test-arm` has built everything."""
    folder = os.environ.get("TFREWPRUNE_ARM_BUILD")
    if not folder:
        pytest.fail("TFREWPRUNE_ARM_BUILD is not set; run this by `make test-arm`.")
    return Path(folder)


@pytest.fixture(scope="session")
def linux_library(build) -> Path:
    return build / "arm/libtfrewprune_delegate.so"


@pytest.fixture(scope="session")
def android_library(build) -> Path:
    return build / "android/arm64-v8a/libtfrewprune_delegate.so"


@pytest.fixture(scope="session")
def wheel(build) -> Path:
    (wheel,) = (build / "wheels").glob("*_aarch64.whl")
    return wheel


@dataclass(frozen=True)
class ArmPython:
    """The ARM Python on one CPU."""

    root: Path
    cpu: Cpu

    def run(
        self,
        *arguments: str | Path,
        packages: Path | None = None,
        options: tuple[str | Path, ...] = (),
    ) -> str:
        """Runs it; returns what it printed, fails with that if it does not end well."""
        program = self.root / "root/usr/bin/python3.11"
        completed = self.run_program(
            program, *arguments, packages=packages, options=options
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout

    def run_program(
        self,
        program: Path,
        *arguments: str | Path,
        packages: Path | None = None,
        options: tuple[str | Path, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Runs an ARM program with the Python's libraries; `options` are qemu's."""
        self._describe()
        site = [self.root / "site", *([packages] if packages else [])]
        return subprocess.run(
            [
                *("qemu-aarch64", "-cpu", self.cpu.qemu, "-L", self.root / "root"),
                *("-E", f"PYTHONPATH={os.pathsep.join(map(str, site))}"),
                *("-E", f"LD_LIBRARY_PATH={self.root / 'shims'}"),
                *options,
                program,
                *arguments,
            ],
            capture_output=True,
            text=True,
        )

    def _describe(self) -> None:
        core = (
            "processor\t: {}\nBogoMIPS\t: 50.00\n"
            f"Features\t: {self.cpu.features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {self.cpu.part}\n"
            "CPU revision\t: 1\n\n"
        )
        file = self.root / "root/proc/cpuinfo"
        file.write_text(core.format(0) + core.format(1))


@pytest.fixture(params=list(CPUS))
def arm_python(request, build) -> ArmPython:
    return ArmPython(build / "arm-root", CPUS[request.param])
