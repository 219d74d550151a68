# SPDX-License-Identifier: Apache-2.0
"""Head: an attention head, its slices of all projections together."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tfrewprune.structures.filter import Filter


@dataclasses.dataclass(frozen=True)
class Head(Filter):
    """All weights of one head of `MultiHeadAttention` or `GroupQueryAttention`.

    A group is a head's slice of the query, key, value and output projections; in
    grouped-query attention it is a head of keys and values with all queries that share
    it. The kernel that is cut holds the four tensors, one output a head. What a removed
    head adds to the output is exactly 0. Source: Michel et al., "Are Sixteen Heads
    Really Better than One?", arXiv 1905.10650, whose heads are whole in this sense.

    Blocks of the projections are `Block(16, 1)` on the same layer.

    Example:

    >>> from tfrewprune.rule import Rule
    >>> rule = Rule("attention*", structure=Head(), rate=2)
    """

    unit: ClassVar[str] = "heads"
