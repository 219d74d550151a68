# SPDX-License-Identifier: Apache-2.0
"""Cost models of processors that nobody could measure: orders of magnitude.

ARM cores are counted from the instructions of the NEON kernels: how many a column of
a tile needs, and how many a core begins in a cycle. Intel's AVX-512 is Zen 5's with
packed layers slowed down by what three layers showed on Emerald Rapids. Good enough to
tell 8 from 1.5 times as fast, not 1.1 from 0.9; measurements will replace them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tfrewprune.payload.format import BAND_ROWS

# Measured on Emerald Rapids, ratio to dense there / on Zen 5: 3x3 28x28 128->128 at 8x
# 6.2 / 7.5, 1x1 56x56 64->256 at 8x 3.4 / 4.5; fully connected 1024 at 16x 10.8 / 17.1.
_INTEL_MANY, _INTEL_SINGLE = 1.27, 1.58

_LANES = 4
# Accumulators of a tile of the NEON kernels, whatever the band height.
_ACCUMULATORS = 24


@dataclass(frozen=True)
class Core:
    """What an ARM core does in a cycle, by its optimization guide.

    Attributes:
        name: Which one.
        cycles_per_us: Clock in MHz.
        fmas: Vectors of 4 lanes it multiplies and adds.
        loads: Vectors it loads.
        issue: Instructions it begins.
        overlap: Share of the other instructions that run beside the multiply-adds.
        cache_bytes: What a layer's weights may take to stay in its own caches.
        cached_bytes: Bytes a cycle from there.
        memory_bytes: Bytes a microsecond from memory.
        dense_share: Share of the peak that XNNPACK's dense kernels reach.
        call: Microseconds of a call.
    """

    name: str
    cycles_per_us: float
    fmas: float
    loads: float
    issue: float
    overlap: float
    cache_bytes: int
    cached_bytes: float
    memory_bytes: float
    dense_share: float
    call: float

    def cycles(self, fmas: float, loads: float, others: float) -> float:
        """Cycles of a loop body with so many instructions."""
        bound = max(
            fmas / self.fmas, loads / self.loads, (fmas + loads + others) / self.issue
        )
        beside = (1 - self.overlap) * (loads / self.loads + others / self.issue)
        return max(bound, fmas / self.fmas + beside)


CORES = {
    "arm-big": Core(
        *("Cortex-A76 class, 2.6 GHz", 2600, 2, 2, 4, 0.95),
        *(1_000_000, 10, 12_000, 0.85, 1.0),
    ),
    "arm-small": Core(
        *("Cortex-A55 class, 1.8 GHz", 1800, 1, 0.5, 2, 0.6),
        *(256_000, 4, 5_000, 0.8, 2.0),
    ),
}


def arm_cost(core: Core) -> dict[str, Any]:
    """Returns the fields of a core in ``cost.json``."""

    def us(cycles: float) -> float:
        return float(f"{cycles / core.cycles_per_us:.3g}")

    def by_height(cycles: Any) -> dict[str, float]:
        return {str(rows): us(cycles(rows)) for rows in BAND_ROWS}

    def column(rows: int) -> float:
        """Of a pixel: a tile loads every pixel once and every weight once."""
        passes = max(1, rows // 16)
        vectors = min(rows, 16) // _LANES
        pixels = _ACCUMULATORS // vectors
        # A pixel is broadcast as it is loaded, its address counted up.
        loads = pixels / 2 + vectors
        return passes * core.cycles(_ACCUMULATORS, loads, pixels / 2 + 4) / pixels

    def band(rows: int) -> float:
        """Of a pixel: bias, clamp and store of every vector, a loop set up a tile."""
        vectors = rows / _LANES
        tile = _ACCUMULATORS / min(vectors, 4)
        return core.cycles(0, 2 * vectors, 3 * vectors + 60 / tile)

    def vector_column(rows: int) -> float:
        """Of a matrix times a vector: its bytes pass by once."""
        return (4 * rows + 2) / core.cached_bytes

    uncached = float(f"{1 / core.memory_bytes:.3g}")
    mac = 1 / (_LANES * core.fmas * core.dense_share)
    return {
        "measured": f"nothing: counted for {core.name}",
        "call": core.call,
        "cache_bytes": core.cache_bytes,
        "dense": {
            "weight": us(4 / core.cached_bytes),
            "mac": us(mac),
            "channel": us(core.cycles(0, 0.5, 1)),
            "uncached_byte": uncached,
        },
        "many": {
            "band": by_height(band),
            "column": by_height(column),
            # The image is read in place.
            "channel": dict.fromkeys(map(str, BAND_ROWS), 0.0),
            "scatter": us(16),
            "uncached_byte": uncached,
        },
        "single": {
            "band": by_height(lambda rows: 2 * band(rows)),
            "column": by_height(vector_column),
            "channel": dict.fromkeys(map(str, BAND_ROWS), 0.0),
            "scatter": us(32),
            "uncached_byte": uncached,
        },
        "irregular": {
            # 16 pixels are four vectors, loaded for every weight.
            "weight": us(core.cycles(4, 4, 2)),
            "segment": us(core.cycles(0, 8, 16)),
            "channel": us(core.cycles(0, 16, 32)),
            "single_weight": us(core.cycles(0.25, 1.25, 0.5)),
            "single_segment": us(core.cycles(4, 4, 12)),
            "uncached_byte": uncached,
        },
    }


def intel_cost(zen5: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of Intel's AVX-512 from those of Zen 5."""
    made = copy.deepcopy(zen5)
    made.pop("predicted_over_measured_p5_p50_p95", None)
    made["measured"] = "three layers on Emerald Rapids, all else as on Zen 5"
    factors = {"many": _INTEL_MANY, "single": _INTEL_SINGLE, "irregular": _INTEL_MANY}
    for name, factor in factors.items():
        for key, value in made[name].items():
            if isinstance(value, dict):
                made[name][key] = {k: _slower(v, factor) for k, v in value.items()}
            elif key != "uncached_byte":
                made[name][key] = _slower(value, factor)
    return made


def _slower(value: float, factor: float) -> float:
    return float(f"{factor * value:.3g}")
