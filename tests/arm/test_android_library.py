# SPDX-License-Identifier: Apache-2.0
"""The Android libraries as files: what a phone's loader and Google Play look at."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

PAGE = 16 << 10
# A guard against growth. No more than 300 KiB are wanted of arm64-v8a.
MOST_KIB = {"arm64-v8a": 300, "armeabi-v7a": 290, "x86_64": 660}


@pytest.fixture(params=list(MOST_KIB))
def abi(request) -> str:
    return request.param


@pytest.fixture
def library(build, abi) -> Path:
    return build / "android" / abi / "libtfrewprune_delegate.so"


def _readelf(*arguments: str | Path) -> str:
    command = ["aarch64-linux-gnu-readelf", "-W", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _symbols(library: Path, defined: bool) -> set[str]:
    names = set()
    for line in _readelf("--dyn-syms", library).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].rstrip(":").isdigit():
            if (fields[6] != "UND") == defined:
                names.add(fields[7].split("@")[0])
    return names


def _exports() -> set[str]:
    text = (ROOT / "tflite_ops/delegate/exports.map").read_text()
    return set(re.findall(r"^\s*(\w+);", text, re.MULTILINE))


def _imports(abi: str) -> set[str]:
    text = (ROOT / "tflite_ops/android/imports.txt").read_text()
    lines = re.findall(rf"^\w+(?: on {abi})?: (.*)$", text, re.MULTILINE)
    return {name for line in lines for name in line.split()}


def test_links_nothing_but_the_c_library(library):
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", _readelf("-d", library))
    assert set(needed) == {"libc.so", "libm.so", "libdl.so"}


def test_takes_only_functions_of_the_oldest_android(library, abi):
    assert _symbols(library, defined=False) <= _imports(abi)


def test_so_does_the_benchmark(build, abi):
    program = build / "android" / abi / "build/tfrewprune_benchmark"
    assert _symbols(program, defined=False) <= _imports(abi)


def test_exports_the_listed_functions_alone(library):
    exported = _symbols(library, defined=True)
    jni = {name for name in exported if name.startswith("Java_io_tfrewprune_")}
    assert exported - jni == _exports()
    source = (ROOT / "tflite_ops/jni/jni.cc").read_text()
    assert jni == set(re.findall(r"Java_io_tfrewprune_\w+", source))


def test_has_pages_of_16_kib_and_no_text_relocations(library):
    loads = re.findall(r"LOAD.* 0x([0-9a-f]+)$", _readelf("-l", library), re.M)
    assert loads and all(int(alignment, 16) == PAGE for alignment in loads)
    assert "TEXTREL" not in _readelf("-d", library)


def test_passes_floats_as_android_does(library, abi):
    """Android's 32-bit ABI has floats in integer registers, Debian's has not."""
    attributes = _readelf("-A", library)
    if abi == "armeabi-v7a":
        assert "Tag_ABI_VFP_args: VFP registers" not in attributes
        assert "Tag_FP_arch" in attributes


def test_is_small(library, abi):
    assert library.stat().st_size <= MOST_KIB[abi] << 10


def test_the_linux_library_runs_on_old_systems(linux_library):
    versions = re.findall(r"GLIBC_2\.(\d+)", _readelf("--dyn-syms", linux_library))
    assert versions and max(map(int, versions)) <= 17
