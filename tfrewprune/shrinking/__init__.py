# SPDX-License-Identifier: Apache-2.0
"""Removing what does nothing, physically.

`graph` (a model's calls) -> `signals` (channels between them) -> `passages` and
`products` (how channels pass a layer) -> `reading` (a model as passages) -> `selection`
(which channels stay) -> `rebuilding` (the smaller model) -> `checking` (that it gives
the same outputs) -> `shrink`.
"""

from tfrewprune.shrinking.result import ShrinkResult, ShrinkRow
from tfrewprune.shrinking.shrink import shrink

__all__ = ["ShrinkResult", "ShrinkRow", "shrink"]
