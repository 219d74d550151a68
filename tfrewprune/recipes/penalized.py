# SPDX-License-Identifier: Apache-2.0
"""Recipes whose groups empty under a penalty, or go one by one."""

from __future__ import annotations

from tfrewprune.methods import GradualMagnitude, PrimalProximal, Reweighted
from tfrewprune.recipe import Recipe
from tfrewprune.recipes.named import BUDGET, FOLLOWS, RMS, NamedRecipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, BlockRowColumn, RowColumn, Unstructured

PENALIZED = {
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
            + RMS,
            "rate": "4, one of the rates 2, 4, 8, 16 that the authors' CIFAR code goes "
            "through." + BUDGET,
            "strength": FOLLOWS + "1e-6 and 1e-8 for single weights, 1e-5 for "
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
            "method": "epsilon 1e-3 and unsquared norms: the group's code." + RMS,
            "rate": "8: ours; no rate of the paper could be read." + BUDGET,
            "strength": FOLLOWS + "1e-3 for block rows, one for each layer, up to "
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
            "method": "epsilon 1e-3 and unsquared norms: the authors' code." + RMS,
            "rate": "5, the largest in the abstract with no or minor loss. The code "
            "removes 30 to 80 % of every matrix alike." + BUDGET,
            "strength": FOLLOWS + "1e-3, 1e-4 or 1e-5 (the authors' code).",
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
            "point." + BUDGET,
            "epochs": "1 : 2, from 8 + 16 and 20 + 40 in those trials; the longer the "
            "better.",
        },
    ),
}
