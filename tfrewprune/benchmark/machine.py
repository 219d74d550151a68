# SPDX-License-Identifier: Apache-2.0
"""What this machine can do at most: FLOP/s in registers, bytes/s by buffer size."""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

WORKING_SETS = tuple(2**exponent for exponent in range(14, 28, 1))
"""Buffer sizes in bytes at which streams are measured: 16 KiB to 128 MiB."""

_ALIGNMENT = 4096


@dataclass(frozen=True)
class Machine:
    """The limits of a machine with some threads and some kernels.

    Attributes:
        cpu: The CPU's own name.
        isa: Kernels the figures are for.
        threads: Threads that ran at once.
        peak: FLOP/s of multiply-adds that never leave the registers, or None when no
            C compiler was found.
        read: Bytes/s read from buffers of `WORKING_SETS` bytes, or None.
        write: Bytes/s written to them, or None.
    """

    cpu: str
    isa: str
    threads: int
    peak: float | None
    read: tuple[float, ...] | None
    write: tuple[float, ...] | None

    def least_seconds(self, read_bytes: int, written_bytes: int) -> float | None:
        """Time to move that many bytes once, from wherever a set of that size lives.

        Args:
            read_bytes: Bytes read.
            written_bytes: Bytes written.
        """
        if self.read is None or self.write is None:
            return None
        total = np.log2(max(read_bytes + written_bytes, 1))
        sizes = np.log2(WORKING_SETS)
        read = float(np.interp(total, sizes, self.read))
        write = float(np.interp(total, sizes, self.write))
        return read_bytes / read + written_bytes / write

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"working_sets": WORKING_SETS}


def cpu_name() -> str:
    """The CPU's marketing name, or its architecture where the system hides it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache
def measure_machine(isa: str, threads: int = 1, seconds: float = 0.3) -> Machine:
    """Measures the limits for one instruction set.

    Args:
        isa: "avx512", "avx2", "neon", "portable" or "reference".
        threads: Threads that run at once; FLOP/s are added up, a buffer is shared out.
        seconds: How long the register loop runs; each stream runs a tenth of it.

    Returns:
        The limits; without a C compiler only names, the figures being None.

    Raises:
        ValueError: If this CPU cannot run `isa`.
    """
    library = _library()
    if library is None:
        return Machine(cpu_name(), isa, threads, None, None, None)
    _check_can_run(library, isa)
    with ThreadPoolExecutor(threads) as pool:
        peak = sum(
            pool.map(
                lambda _: library.tfrewprune_fma_peak(isa.encode("ascii"), seconds),
                range(threads),
            )
        )
    read = tuple(
        _stream(library, isa, False, size, threads, seconds / 10)
        for size in WORKING_SETS
    )
    write = tuple(
        _stream(library, isa, True, size, threads, seconds / 10)
        for size in WORKING_SETS
    )
    return Machine(cpu_name(), isa, threads, peak, read, write)


@lru_cache
def fill_seconds(
    isa: str, size: int, threads: int = 1, seconds: float = 0.03
) -> float | None:
    """Time to write a buffer of this size, again and again, at the best of many fills.

    What no layer with that much output can stay below.

    Args:
        isa: As in `measure_machine`.
        size: Bytes.
        threads: Threads that share the buffer.
        seconds: How long the loop runs.

    Returns:
        Seconds a fill, or None without a C compiler.

    Raises:
        ValueError: If this CPU cannot run `isa`.
    """
    library = _library()
    if library is None:
        return None
    _check_can_run(library, isa)
    return size / _stream(library, isa, True, size, threads, seconds)


def _check_can_run(library: ctypes.CDLL, isa: str) -> None:
    if not library.tfrewprune_can_run(isa.encode("ascii")):
        raise ValueError(f"This CPU cannot run `isa`={isa!r}.")


def _stream(
    library: ctypes.CDLL,
    isa: str,
    write: bool,
    size: int,
    threads: int,
    seconds: float,
) -> float:
    """Bytes/s of a buffer that is shared out: the threads' own best times added up,
    for they run at the same time."""
    share = max(size // threads, _ALIGNMENT)
    buffers = [_aligned(share) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return sum(
            pool.map(
                lambda buffer: library.tfrewprune_stream(
                    isa.encode("ascii"), write, buffer.ctypes.data, share, seconds
                ),
                buffers,
            )
        )


def _aligned(size: int) -> np.ndarray:
    """Zeroed bytes that start on a page."""
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    raw.fill(0)  # makes the pages real, so that no page is shared
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size]


@lru_cache
def _library() -> ctypes.CDLL | None:
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        return None
    source = resources.files("tfrewprune.benchmark").joinpath("machine.c")
    with tempfile.TemporaryDirectory() as folder, resources.as_file(source) as path:
        target = Path(folder) / "libmachine.so"
        # fmt: off
        command = [compiler, "-O2", "-ffp-contract=fast", "-shared", "-fPIC",
                   "-o", str(target), str(path)]
        # fmt: on
        if subprocess.run(command, capture_output=True).returncode != 0:
            return None
        library = ctypes.CDLL(str(target))
    library.tfrewprune_fma_peak.argtypes = [ctypes.c_char_p, ctypes.c_double]
    library.tfrewprune_fma_peak.restype = ctypes.c_double
    library.tfrewprune_stream.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_double,
    ]
    library.tfrewprune_stream.restype = ctypes.c_double
    library.tfrewprune_can_run.argtypes = [ctypes.c_char_p]
    library.tfrewprune_can_run.restype = ctypes.c_int
    return library
