# SPDX-License-Identifier: Apache-2.0
"""Times of ARM cores from counted instructions, for the converter's cost model.

``arm_counts.jsonl`` holds what LiteRT's dense layers and ours take on ARM, counted
under an emulator (``make arm-counts``): exact numbers of instructions, no times. A core
turns them into cycles by what its optimization guide says it does in one, and its
caches bound what streams past. Good enough to tell 8 from 1.5 times as fast, not 1.1
from 0.9; on the phone itself ``tune`` has the last word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNTS = Path(__file__).with_name("arm_counts.jsonl")


@dataclass(frozen=True)
class Core:
    """What an ARM core does in a cycle, by its optimization guide.

    Attributes:
        name: Which one.
        cycles_per_us: Clock in MHz.
        fmas: Vectors of 4 lanes it multiplies and adds.
        loads: Loads it begins, half of them of two vectors.
        stores: Stores it begins.
        issue: Instructions it begins.
        overlap: Share of the other instructions that run beside the multiply-adds.
        cache_bytes: What a layer's weights may take to stay in its own caches.
        cached_bytes: Bytes a cycle from there.
        memory_bytes: Bytes a microsecond from memory.
        call: Microseconds of a call.
    """

    name: str
    cycles_per_us: float
    fmas: float
    loads: float
    stores: float
    issue: float
    overlap: float
    cache_bytes: int
    cached_bytes: float
    memory_bytes: float
    call: float

    def microseconds(self, counts: dict[str, int], streamed: float) -> float:
        """Time of so many instructions.

        Args:
            counts: Instructions by kind: all, fma, load, store.
            streamed: Bytes of weights that pass by once for each output position.
        """
        fmas = counts["fma"] / self.fmas
        memory = counts["load"] / self.loads + counts["store"] / self.stores
        others = counts["all"] - counts["fma"] - counts["load"] - counts["store"]
        bound = max(
            *(fmas, memory, counts["all"] / self.issue),
            streamed / self.cached_bytes,
        )
        beside = (1 - self.overlap) * (memory + others / self.issue)
        return max(bound, fmas + beside) / self.cycles_per_us


CORES = {
    "arm-big": Core(
        *("Cortex-A76 class, 2.6 GHz", 2600, 2, 1.5, 1, 4, 0.95),
        *(1_000_000, 10, 12_000, 1.0),
    ),
    "arm-small": Core(
        *("Cortex-A55 class, 1.8 GHz", 1800, 1, 0.5, 0.5, 2, 0.6),
        *(256_000, 4, 5_000, 2.0),
    ),
}


def read_counts() -> list[dict[str, Any]]:
    """Returns what was counted: a layer's size, and counts dense and packed."""
    return [json.loads(line) for line in COUNTS.open()]


def counted_times(core: Core, counted: list[dict[str, Any]]) -> Iterator[dict]:
    """Yields layers with their times on a core, in the fields of a `Sample`."""
    for line in counted:
        size = {name: line[name] for name in line if name not in ("dense", "packed")}
        single = size["pixels"] == 1
        stored = 4 * size["kept"] * max(1, size["band_rows"])
        dense = 4 * size["rows"] * size["columns"]
        yield size | {
            "dense": core.call
            + core.microseconds(line["dense"], dense if single else 0),
            "packed": core.call * (1 if single else 2)
            + core.microseconds(line["packed"], stored if single else 0),
        }
