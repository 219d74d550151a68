# SPDX-License-Identifier: Apache-2.0
"""Kinds of processors that costs are known for, and which one this is."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

TARGET_VARIABLE = "TFREWPRUNE_TARGET"
PORTABLE = "portable"
"""Phones: what holds on every ARM core of the table."""

_AVX512 = {"avx512f", "avx512vl", "avx512dq", "avx512bw", "fma", "f16c"}


def this_target(cpuinfo: str | None = None, machine: str | None = None) -> str:
    """Returns the target that stands for this machine.

    The environment variable `TFREWPRUNE_TARGET` names another one.

    Args:
        cpuinfo: Content of Linux' ``/proc/cpuinfo``; None reads it.
        machine: Architecture as `platform.machine` names it; None asks.
    """
    override = os.environ.get(TARGET_VARIABLE)
    if cpuinfo is None and override:
        return override
    return _recognised(cpuinfo, machine)


@cache
def _recognised(cpuinfo: str | None, machine: str | None) -> str:
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(errors="replace")
        except OSError:  # another system
            cpuinfo = ""
    machine = (machine or platform.machine()).lower()
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    if machine.startswith(("arm", "aarch")):
        return "arm-big"
    if not _AVX512 <= set(fields.get("flags", "").split()):
        return "x86-avx2"
    if fields.get("vendor_id") != "AuthenticAMD":
        return "x86-avx512-intel"
    # Family 25 is Zen 4 where it has AVX-512; 26 is Zen 5.
    return "x86-avx512-zen4" if fields.get("cpu family") == "25" else "x86-avx512-zen5"
