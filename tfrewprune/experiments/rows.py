# SPDX-License-Identifier: Apache-2.0
"""The rows of a table as data: structure, method and rate by the names it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


def structures() -> dict[str, Any]:
    """Structures by the names of the tables."""
    import tfrewprune as trp

    return {
        "single-weights": trp.Unstructured(),
        "filters-and-columns": trp.RowColumn(),
        "block-16x1": trp.Block(16, 1),
        "block-8x1": trp.Block(8, 1),
        "block-4x1": trp.Block(4, 1),
        "block-16x1-alike": trp.Block(16, 1, cluster=True),
        "block-rows-and-columns": trp.BlockRowColumn(16, 16),
        "pattern-and-connectivity": trp.Pattern(4),
    }


def methods() -> dict[str, Any]:
    """Methods by the names of the tables."""
    from tfrewprune import methods

    return {
        "reweighted": methods.Reweighted(),
        "reweighted-proximal": methods.ReweightedProximal(),
        "group-lasso": methods.GroupLasso(),
        "gradual": methods.GradualMagnitude(),
        "gradual-fisher": methods.GradualMagnitude(score="fisher"),
        "gradual-fisher-paths": methods.GradualMagnitude(
            score="fisher", remove_dead_paths=True
        ),
        "one-shot": methods.Magnitude(),
        "admm": methods.ADMM(),
        "primal-proximal": methods.PrimalProximal(),
    }


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table, for every seed.

    Attributes:
        structure: A key of :func:`structures`.
        method: A key of :func:`methods`, or ``tfmot``.
        rate: Dense / kept weights of the model that the method is asked for.
        length: Which of the plan's lengths of training.
        taught: Whether training follows the dense model as well as the labels.
    """

    structure: str
    method: str
    rate: float
    length: str = "short"
    taught: bool = False

    @property
    def name(self) -> str:
        """What the row is called in records, files and on the command line."""
        words = (self.method, self.structure, f"{self.rate:g}x")
        longer = () if self.length == "short" else (self.length,)
        return "_".join((*words, *longer, *(("taught",) if self.taught else ())))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        asked = dataclasses.asdict(self)
        return {"row": asked}

    def recipe(
        self, layers: Sequence[str], rate: float, training: int, retraining: int
    ):
        """The :class:`tfrewprune.Recipe` of the row.

        Args:
            layers: Names of the layers that are pruned.
            rate: Dense / kept weights of these layers together.
            training: Epochs under the method, if it trains.
            retraining: Epochs under the mask; a method that does not train before gets
                those of training too.
        """
        import tfrewprune

        method = methods()[self.method]
        rule = tfrewprune.Rule(list(layers), structure=structures()[self.structure])
        # Penalty weights that follow the weights; the few steps of the papers else.
        refreshes = 10 * training if method.controlled else 10
        return tfrewprune.Recipe(
            rule,
            method=method,
            rate=rate,
            reweighted_epochs=training,
            retrain_epochs=retraining + (0 if method.trains else training),
            refreshes=refreshes,
        )
