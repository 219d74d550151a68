# SPDX-License-Identifier: Apache-2.0
"""The cost model of a processor that was measured on three layers alone.

Intel's AVX-512 is Zen 5's with packed layers slowed down by what three layers showed on
Emerald Rapids. Good enough to tell 8 from 1.5 times as fast, not 1.1 from 0.9;
measurements will replace it.
"""

from __future__ import annotations

import copy
from typing import Any

# Measured on Emerald Rapids, ratio to dense there / on Zen 5: 3x3 28x28 128->128 at 8x
# 6.2 / 7.5, 1x1 56x56 64->256 at 8x 3.4 / 4.5; fully connected 1024 at 16x 10.8 / 17.1.
_INTEL_MANY, _INTEL_SINGLE = 1.27, 1.58


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
