# SPDX-License-Identifier: Apache-2.0
"""The file of the native library: what it links, exports and obeys."""

import ctypes
import os
import subprocess
import sys

import pytest

from tfrewprune.runtime.library import delegate_path


def test_environment_variable_selects_the_isa():
    code = (
        "import ctypes; from ai_edge_litert.interpreter import load_delegate\n"
        "from tfrewprune.runtime.library import delegate_path\n"
        "d = load_delegate(delegate_path())\n"
        "f = d._library.tfrewprune_isa_name\n"
        "f.argtypes, f.restype = [ctypes.c_void_p], ctypes.c_char_p\n"
        "print(f(d._get_native_delegate_pointer()).decode())"
    )

    def start_with(value):
        environment = {**os.environ, "TFREWPRUNE_ISA": value}
        return subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
        )

    assert start_with("reference").stdout.strip() == "reference"
    refused = start_with("mmx")
    assert refused.returncode != 0
    assert "TFREWPRUNE_ISA must be auto" in refused.stderr


def _tool(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        pytest.skip(f"{command[0]} (binutils) is not installed")


def test_library_needs_only_libc_libm_and_pthread():
    lines = _tool("readelf", "-d", delegate_path()).splitlines()
    needed = {line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line}
    allowed = ("libc.so", "libm.so", "libpthread.so", "ld-linux")
    assert needed and all(name.startswith(allowed) for name in needed), needed


def test_library_exports_only_its_interface():
    lines = _tool("nm", "-D", "--defined-only", delegate_path()).splitlines()
    assert {line.split()[-1] for line in lines} == {
        "tflite_plugin_create_delegate",
        "tflite_plugin_destroy_delegate",
        "tfrewprune_claimed_nodes",
        "tfrewprune_driver_name",
        "tfrewprune_held_bytes",
        "tfrewprune_isa_name",
        "tfrewprune_register_accelerator",
        "tfrewprune_threads",
        "tfrewprune_trace",
        "tfrewprune_version",
    }


def test_library_has_the_version_of_the_package():
    import tfrewprune

    version = ctypes.CDLL(delegate_path()).tfrewprune_version
    version.restype = ctypes.c_char_p
    assert version().decode() == tfrewprune.__version__
