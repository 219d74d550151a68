# SPDX-License-Identifier: Apache-2.0
"""A recipe by name, and where its constants come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tfrewprune.recipe import Recipe

#: Remarks that several recipes share.
BUDGET = " One budget over all layers: ours."
FOLLOWS = "Ours: it follows the rate while training. Published lambdas: "
RMS = (
    " The root mean square of a group in place of its norm: ours, so that groups of "
    "different size compare."
)


@dataclasses.dataclass(frozen=True)
class NamedRecipe:
    """A recipe and where it comes from.

    Attributes:
        title: Authors and name of the work.
        arxiv: Its number on arXiv; None for a recipe of our own.
        recipe: The recipe as `get` returns it by default. It has one rule, and so have
            the steps that follow (`Recipe.then`).
        origins: Constant, or a few that belong together, to where its value is from.
        shares: Of each step but the last its rate by that of the whole.
        later: What the paper does after pruning and the recipe does not.
    """

    title: str
    arxiv: str | None
    recipe: Recipe
    origins: dict[str, str]
    shares: tuple[Callable[[float], float], ...] = ()
    later: str | None = None

    def rates(self, rate: float) -> tuple[float, ...]:
        """The rate of each step for a rate of the whole."""
        return (*(max(1.0, share(rate)) for share in self.shares), rate)

    @property
    def rate(self) -> float | None:
        """The rate of the whole by default; None where it is open."""
        return self.recipe.steps[-1].rate

    @property
    def source(self) -> str:
        """Short text such as `arXiv 2004.05531`."""
        return "our own" if self.arxiv is None else f"arXiv {self.arxiv}"
