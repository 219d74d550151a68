# SPDX-License-Identifier: Apache-2.0
"""Published settings by name: a structure, a method and their constants.

    >>> import tfrewprune as trp
    >>> trp.recipes.names()[0]
    'unified-reweighted'
    >>> recipe = trp.recipes.get("blk-rew", rate=4, retrain_epochs=20)

A recipe here is what a paper or its authors' code says, as far as it carries over to
another model. Three things do not, and are ours in every recipe:

- **Strength.** Published penalty strengths belong to one network and optimizer. With a
  rate, the strength of a reweighted penalty follows that rate during training.
- **Rates of layers.** Papers set them by hand or uniformly. Here one rate is a budget
  over all pruned layers, and each layer's share is found.
- **Epochs.** Papers train for hundreds. The lengths here keep the proportion of the
  phases; more epochs in that proportion are better.

Optimizer and learning rate are the model's own; the periodic learning rates of the
published ADMM schedules are not reproduced. `describe(name).origins` tells for each
constant where it comes from.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrewprune.methods import ADMM, GradualMagnitude, PrimalProximal, Reweighted
from tfrewprune.recipe import Recipe, Rule
from tfrewprune.structures import (
    Block,
    BlockRowColumn,
    Pattern,
    Punched,
    RowColumn,
    Structure,
    Unstructured,
)


@dataclasses.dataclass(frozen=True)
class NamedRecipe:
    """A recipe and where it comes from.

    Attributes:
        title: Authors and name of the work.
        arxiv: Its number on arXiv; None for a recipe of our own.
        recipe: The recipe as `get` returns it by default. It has one rule.
        origins: Constant, or a few that belong together, to where its value is from.
    """

    title: str
    arxiv: str | None
    recipe: Recipe
    origins: dict[str, str]

    @property
    def source(self) -> str:
        """Short text such as `arXiv 2004.05531`."""
        return "our own" if self.arxiv is None else f"arXiv {self.arxiv}"


def names() -> tuple[str, ...]:
    """The names that `get` knows."""
    return tuple(_RECIPES)


def describe(name: str) -> NamedRecipe:
    """The recipe of a name with its source and the origin of every constant.

    Raises:
        ValueError: There is no such recipe.
    """
    if name not in _RECIPES:
        raise ValueError(f"Unknown recipe {name!r}. Expected one of {list(names())}.")
    return _RECIPES[name]


def get(
    name: str,
    rate: float | None = None,
    *,
    match: str | tuple[str, ...] | list[str] = "*",
    structure: Structure | dict | str | None = None,
    **changes: Any,
) -> Recipe:
    """A named recipe, ready for `compress`.

    Args:
        name: One of `names()`.
        rate: Dense / kept weights over all pruned layers; None for the recipe's own,
            see `describe(name).origins["rate"]`.
        match: The layers that are pruned, as in `Rule`. `"*"` takes all that can run
            packed and gain by it, but the first convolution and the classifiers.
        structure: In place of the recipe's own, as in `Rule`.
        **changes: Other arguments of `Recipe`, such as `retrain_epochs`. A `threshold`
            replaces the recipe's own rate.

    Raises:
        ValueError: There is no such recipe or argument, or the values do not fit.

    Example:

    >>> get("patdnn", rate=6, match="conv*").rate
    6
    """
    recipe = describe(name).recipe
    known = {field.name for field in dataclasses.fields(Recipe)} - {"rules"}
    if unknown := sorted(set(changes) - known):
        raise ValueError(
            f"Unknown changes to recipe {name!r}: {unknown}. Expected `match`, "
            f"`structure` or some of {sorted(known)}."
        )
    if rate is not None:
        changes = {"threshold": None, "rate": rate, **changes}
    elif changes.get("threshold") is not None:
        changes = {"rate": None, **changes}
    (rule,) = recipe.rules
    structure = rule.structure if structure is None else structure
    return recipe.replace(rules=(Rule(match, structure=structure),), **changes)


_BUDGET = " One budget over all layers: ours."
_FOLLOWS = "Ours: it follows the rate while training. Published lambdas: "
_RMS = (
    " The root mean square of a group in place of its norm: ours, so that groups of "
    "different size compare."
)

_RECIPES = {
    "unified-reweighted": NamedRecipe(
        title="Zhang et al., A Unified DNN Weight Pruning Framework Using Reweighted "
        "Optimization Methods",
        arxiv="2004.05531",
        recipe=Recipe(
            Rule("*", structure=Unstructured()),
            method=Reweighted(epsilon=1e-3),
            rate=4,
            refreshes=4,
            reweighted_epochs=10,
            retrain_epochs=10,
        ),
        origins={
            "structure": "Single weights, the paper's non-structured case. Its filter, "
            "channel, column and kernel cases: structure=Filter() and so on.",
            "method": "epsilon 1e-3 and unsquared norms: code by authors of the paper "
            "(LinLabNEU/reweighted_prune4, uab-fusion-lab/cifar_reweighted_pruning)."
            + _RMS,
            "rate": "4, one of the rates 2, 4, 8, 16 that the authors' CIFAR code goes "
            "through." + _BUDGET,
            "strength": _FOLLOWS + "1e-6 and 1e-8 for single weights, 1e-5 for "
            "kernels, 1e-3 and 1e-4 for filters (authors' code).",
            "refreshes": "4, evenly spaced: authors' code, at epochs 60, 120, 180 and "
            "240 of 300, or at 10, 20, 30 and 40 of 50.",
            "epochs": "1 : 1, from 300 + 300 in reweighted_prune4. The CIFAR code has "
            "50 + 200 to 50 + 400.",
        },
    ),
    "blk-rew": NamedRecipe(
        title="Ma et al., BLK-REW: A Unified Block-based DNN Pruning Framework using "
        "Reweighted Regularization Method",
        arxiv="2001.08357",
        recipe=Recipe(
            Rule("*", structure=BlockRowColumn(16, 16)),
            method=Reweighted(epsilon=1e-3),
            rate=8,
            refreshes=4,
            reweighted_epochs=10,
            retrain_epochs=10,
        ),
        origins={
            "structure": "Rows and columns inside blocks, independently: the paper. "
            "Blocks of 16 x 16: ours, as 16 rows are a band of the runtime. The "
            "group's code (ZLKong/BERT_demo) cuts 9 strips of columns or 4 of rows, "
            "and prunes one after the other; here both go together.",
            "method": "epsilon 1e-3 and unsquared norms: the group's code." + _RMS,
            "rate": "8: ours; no rate of the paper could be read." + _BUDGET,
            "strength": _FOLLOWS + "1e-3 for block rows, one for each layer, up to "
            "3.3e-3, for block columns (the group's code).",
            "refreshes": "4, evenly spaced: the group's code, at epochs 60, 120, 180 "
            "and 240 of 300.",
            "epochs": "1 : 1, from 300 + 300 in the group's code.",
        },
    ),
    "ss-auto": NamedRecipe(
        title="Li, Gong et al., SS-Auto: A Single-Shot, Automatic Structured Weight "
        "Pruning Framework of DNNs",
        arxiv="2001.08839",
        recipe=Recipe(
            Rule("*", structure=RowColumn()),
            method=PrimalProximal(shrink=1e-2),
            strength=1e-1,
            refreshes=9,
            reweighted_epochs=10,
            retrain_epochs=10,
        ),
        origins={
            "structure": "Filters and columns at once: the paper.",
            "method": "Primal and proximal steps in turn: the paper's abstract, all "
            "that could be read. The form of the proximal step and shrink 1e-2: ours.",
            "rate": "Open, as in the paper: it emerges from shrink and strength. What "
            "the proximal step would empty at the end is removed, below shrink. "
            "A rate removes the smallest groups instead.",
            "strength": "0.1: ours. In a small network for the digits of scikit-learn "
            "it leaves 1/6 of the weights after 10 epochs, without loss; 0.01 leaves "
            "1/1.6.",
            "refreshes": "9: ours, a proximal step after each epoch but the last.",
            "epochs": "1 : 1: ours.",
        },
    ),
    "patdnn": NamedRecipe(
        title="Niu et al., PatDNN: Achieving Real-Time DNN Execution on Mobile Devices "
        "with Pattern-based Weight Pruning",
        arxiv="2001.00138",
        recipe=Recipe(
            Rule("*", structure=Pattern(entries=4, size=8)),
            method=ADMM(growth=1.3),
            strength=1e-3,
            rate=4.5,
            refreshes=9,
            reweighted_epochs=10,
            retrain_epochs=10,
        ),
        origins={
            "structure": "Patterns and connectivity: the paper. 4 of 9 positions and 8 "
            "patterns of the pretrained model: 7bvcxz/PatDNN, a third party's code. A "
            "library for each layer, its choice (`mine_patterns`), and a centre that "
            "may go: ours. Dense layers would lose single weights; "
            'match="conv*" leaves them out.',
            "method": "ADMM: the paper. rho times 1.3 at each update: code of the same "
            "group (yeshaokai/Robustness-Aware-Pruning-ADMM, for arXiv 1903.09769). "
            "One dual for patterns and connectivity together: ours.",
            "rate": "4.5: 9/4 by patterns, 2 by connectivity in the third party's code."
            + _BUDGET,
            "strength": "rho 1e-3 at the start: the same group's code.",
            "refreshes": "9: every 20th of 200 epochs in the same group's code.",
            "epochs": "1 : 1, from 200 + 200 in the same group's code.",
        },
    ),
    "yolobile-punched": NamedRecipe(
        title="Cai et al., YOLObile: Real-Time Object Detection on Mobile Devices via "
        "Compression-Compilation Co-Design",
        arxiv="2009.05697",
        recipe=Recipe(
            Rule("*", structure=Punched(8, 4)),
            method=ADMM(growth=10 ** (3 / 15)),
            strength=1e-4,
            rate=8,
            refreshes=15,
            reweighted_epochs=10,
            retrain_epochs=28,
        ),
        origins={
            "structure": "Blocks of 8 filters x 4 channels: the authors' code "
            "(nightsnack/YOLObile). Groups ranked by their root mean square: ours; "
            "there by the norms of their 4 channels, summed.",
            "method": "ADMM: the authors' code, where rho grows from 1e-4 to 1e-1 in "
            "steps of 10. By equal factors from update to update: ours.",
            "rate": "8, one of the rates with published profiles (2, 4, 8, 10, 14)."
            + _BUDGET,
            "strength": "rho 1e-4 at the start: the authors' code.",
            "refreshes": "15 after the one at the start: 4 for each of 4 rhos, every "
            "6th of 25 epochs in the authors' code.",
            "epochs": "1 : 2.8, from 4 x 25 + 280 in the authors' code.",
        },
    ),
    "bert-block": NamedRecipe(
        title="Li et al., Efficient Transformer-based Large Scale Language "
        "Representations using Hardware-friendly Block Structured Pruning",
        arxiv="2009.08065",
        recipe=Recipe(
            Rule("*", structure=Block(16, 1)),
            method=Reweighted(epsilon=1e-3),
            rate=5,
            refreshes=4,
            reweighted_epochs=4,
            retrain_epochs=4,
        ),
        origins={
            "structure": "Columns of bands of rows, `block_column` of the authors' "
            "code (ZLKong/BERT_demo), which leaves the height open; 16 is a band of "
            "the runtime. Its other types: Block(1, q), Block(256, 256), "
            "Balanced(Block(16, 1)).",
            "method": "epsilon 1e-3 and unsquared norms: the authors' code." + _RMS,
            "rate": "5, the largest in the abstract with no or minor loss. The code "
            "removes 30 to 80 % of every matrix alike." + _BUDGET,
            "strength": _FOLLOWS + "1e-3, 1e-4 or 1e-5 (the authors' code).",
            "refreshes": "4: ours, as in the same group's code for images.",
            "epochs": "4 + 4: the authors' code has 3 to 4 each, from a fine-tuned "
            "model, at learning rates of 2e-5 to 5e-5.",
        },
    ),
    "gradual-blocks": NamedRecipe(
        title="Blocks at extreme rates, without a penalty",
        arxiv=None,
        recipe=Recipe(
            Rule("*", structure=Block(16, 1)),
            method=GradualMagnitude(schedule="geometric", score="fisher", every=0.1),
            rate=32,
            reweighted_epochs=10,
            retrain_epochs=20,
        ),
        origins={
            "structure": "16 rows are a band of the runtime.",
            "method": "A cut every tenth of an epoch that removes the same fraction of "
            "what is left, scored with Adam's second moment: best or level in our "
            "trials on LeNet-5. At 232x in blocks gradual cuts lost 3 points less than "
            "a reweighted penalty; at 70x to 84x the two were level. There the first "
            "cut was to 1/8; here the schedule begins at what is there.",
            "rate": "32: ours, below the 70 to 84 that cost LeNet-5 less than half a "
            "point." + _BUDGET,
            "epochs": "1 : 2, from 8 + 16 and 20 + 40 in those trials; the longer the "
            "better.",
        },
    ),
}
