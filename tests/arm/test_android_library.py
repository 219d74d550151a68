# SPDX-License-Identifier: Apache-2.0
"""The Android library as a file: what a phone's loader and Google Play look at."""

import re
import subprocess
from pathlib import Path

from conftest import ROOT

PAGE = 16 << 10
MOST_BYTES = 345 << 10  # a guard against growth; 300 KiB are wanted


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


def test_links_nothing_but_the_c_library(android_library):
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", _readelf("-d", android_library))
    assert set(needed) == {"libc.so", "libm.so", "libdl.so"}


def test_takes_only_functions_of_the_oldest_android(android_library):
    allowed = (ROOT / "tflite_ops/android/imports.txt").read_text()
    assert _symbols(android_library, defined=False) <= set(allowed.split())


def test_exports_the_listed_functions_alone(android_library):
    exported = _symbols(android_library, defined=True)
    jni = {name for name in exported if name.startswith("Java_io_tfrewprune_")}
    assert exported - jni == _exports()
    source = (ROOT / "tflite_ops/jni/jni.cc").read_text()
    assert jni == set(re.findall(r"Java_io_tfrewprune_\w+", source))


def test_has_pages_of_16_kib_and_no_text_relocations(android_library):
    loads = re.findall(r"LOAD.* 0x([0-9a-f]+)$", _readelf("-l", android_library), re.M)
    assert loads and all(int(alignment, 16) == PAGE for alignment in loads)
    assert "TEXTREL" not in _readelf("-d", android_library)


def test_is_small(android_library):
    assert android_library.stat().st_size <= MOST_BYTES


def test_the_linux_library_runs_on_old_systems(linux_library):
    versions = re.findall(r"GLIBC_2\.(\d+)", _readelf("--dyn-syms", linux_library))
    assert versions and max(map(int, versions)) <= 17
