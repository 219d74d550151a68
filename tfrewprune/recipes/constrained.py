# SPDX-License-Identifier: Apache-2.0
"""Recipes of ADMM: training under a number of groups that is given."""

from __future__ import annotations

from tfrewprune.levels import Binary, EqualInterval
from tfrewprune.methods import ADMM
from tfrewprune.quantization import Quantization
from tfrewprune.recipe import Recipe
from tfrewprune.recipes.named import BUDGET, NamedRecipe
from tfrewprune.rule import Rule
from tfrewprune.structures import (
    Block,
    BlockRowColumn,
    Column,
    Filter,
    Pattern,
    Punched,
    Structure,
    Unstructured,
)

#: Of the group that most of these papers are from (yeshaokai/Robustness-Aware-Pruning-
#: ADMM): rho 1e-3 times 1.3 at each of 10 updates, the first at the start.
GROWTH, STRENGTH, REFRESHES = 1.3, 1e-3, 9

#: Where these constants are from.
GROWS = (
    "rho times 1.3 at each update: code of the same group "
    "(yeshaokai/Robustness-Aware-Pruning-ADMM)."
)
STARTS = "rho 1e-3 at the start: the same group's code."
UPDATES = "9: every 20th of 200 epochs in the same group's code."
LENGTHS = "1 : 1, from 200 + 200 in the same group's code."
ROUNDS = (
    " Rounds that fix the nearest 30 % of the free weights: code of ADMM-NN, arXiv "
    "1812.11677, where each level takes those of its own weights."
)


def _admm(
    structure: Structure,
    rate: float,
    growth: float = GROWTH,
    strength: float = STRENGTH,
    refreshes: int = REFRESHES,
    kind: str | None = None,
    **others,
) -> Recipe:
    """A recipe of ADMM, its epochs 1 : 1 unless `others` say so."""
    return Recipe(
        Rule("*", structure=structure, kind=kind),
        method=ADMM(growth),
        strength=strength,
        rate=rate,
        refreshes=refreshes,
        **others,
    )


CONSTRAINED = {
    "rtmobile": NamedRecipe(
        title="Dong et al., RTMobile: Beyond Real-Time Mobile Acceleration of RNNs for "
        "Speech Recognition",
        arxiv="2002.11474",
        recipe=_admm(
            Block(16, 1), 5, kind="RNN", then=_admm(Block(1, 16), 10, kind="RNN")
        ),
        shares=(lambda rate: rate / 2,),
        origins={
            "structure": "Columns of horizontal strips, then segments of rows in "
            "vertical strips, of each gate's matrix by itself: the paper, and the "
            "decoding logs of its released models (CoCoPIE-ModelZoo). Strips of 16: "
            "ours, as 16 rows are a band of the runtime.",
            "method": "ADMM for both steps: the authors' patent US 12,626,131, claim "
            "5. " + GROWS,
            "rate": "10 = 5 x 2. 10 is the largest without loss in the logs, there in "
            "one step; 2 is the second step of the model at 28.9x. A rate given is "
            "shared likewise: columns at half of it." + BUDGET,
            "strength": "rho 1e-3 at the start: the same group's code; the release "
            "does not tell.",
            "refreshes": UPDATES,
            "epochs": "1 : 1 and both steps alike. 24 epochs each for the retraining "
            "are what the released configuration says.",
        },
    ),
    "sot-mram-pim": NamedRecipe(
        title="Yuan et al., A DNN Compression Framework for SOT-MRAM-based "
        "Processing-in-Memory Engine",
        arxiv="1912.05416",
        recipe=_admm(
            BlockRowColumn(128, 64),
            rate=4,
            quantization=Quantization(EqualInterval(4), share=0.3, rounds=10),
        ),
        origins={
            "structure": "Rows and columns of the crossbars: the paper's abstract asks "
            "for structures that its engine can map. Tiles of 128 x 64: the same "
            'group\'s memristor design ("Tiny but Accurate", ASP-DAC 2020).',
            "method": "ADMM, of weights and of levels: the abstract. " + GROWS,
            "rate": "4: ours; neither abstract has a number." + BUDGET,
            "strength": STARTS,
            "refreshes": UPDATES,
            "epochs": LENGTHS,
            "levels": "15 levels, of cells of 4 bits as in the memristor design; the "
            "abstract has no number. `crossbar_report` counts tiles, cells and writes."
            + ROUNDS,
        },
    ),
    "admm-nn-s": NamedRecipe(
        title="Ma et al., Non-Structured DNN Weight Pruning: Is It Beneficial in Any "
        "Platform?",
        arxiv="1907.02124",
        recipe=_admm(
            *(Unstructured(), 8, 10 ** (3 / 9), 1e-4),
            quantization=Quantization(
                EqualInterval(6),
                strength=1e-4,
                growth=10 ** (3 / 9),
                share=0.3,
                rounds=10,
            ),
        ),
        origins={
            "structure": "Single weights, the case of the paper's highest rates (348x, "
            "36x, 8x). Its structured cases: structure=Filter(), Channel(), Column().",
            "method": "ADMM with a growing rho, then masked mapping and retraining: "
            "the abstract. From 1e-4 to 1e-1 as in code of the same group "
            "(nightsnack/YOLObile); by equal factors from update to update: ours.",
            "rate": "8: ResNet-50 in the abstract." + BUDGET,
            "strength": "rho 1e-4 at the start: the same group's code.",
            "refreshes": "9: every 20th of 200 epochs in the group's code for arXiv "
            "1903.09769.",
            "epochs": "1 : 1, from 200 + 200 in the same code.",
            "levels": "Equal intervals: its predecessor ADMM-NN, whose code has 7, 6, "
            "4 and 6 bits for LeNet-5; 6 for all: ours." + ROUNDS,
        },
    ),
    "purified-structured": NamedRecipe(
        title="Ma et al., ResNet Can Be Pruned 60x: Introducing Network Purification "
        "and Unused Path Removal (P-RM) after Weight Pruning",
        arxiv="1905.00136",
        recipe=_admm(
            Column(),
            4,
            retrain_epochs=0,
            then=_admm(Filter(), 8, purify=0.25, shrink=True),
        ),
        shares=(lambda rate: rate / 2,),
        origins={
            "structure": "Columns first, then filters with the zeros frozen: the paper "
            '("combine progressive" in code of the same group).',
            "method": "ADMM: the paper. " + GROWS,
            "rate": "8 = 4 x 2: ours. The paper's 60x is of a ResNet-18 after the "
            "later steps. A rate given is shared likewise: columns at half of it."
            + BUDGET,
            "purify": "Nearly empty filters and channels of small norm: the paper. "
            "Half empty, and a quarter of the layer's median norm: ours; the group's "
            "code has norms for one network (nightsnack/YOLObile). Before the last "
            "retraining, which makes up for it: ours; there after it, and retraining "
            "again is optional.",
            "shrink": "Unused path removal: the paper. Exact and physical: ours.",
            "strength": STARTS,
            "refreshes": UPDATES,
            "epochs": "10 + 10 under ADMM, retraining once, at the end: the paper's "
            "order; 1 : 1 from 200 + 200 in the same group's code.",
        },
        later="8 bit, with distillation",
    ),
    "progressive-admm": NamedRecipe(
        title="Ye et al., Progressive DNN Compression: A Key to Achieve Ultra-High "
        "Weight Pruning and Quantization Rates using ADMM",
        arxiv="1903.09769",
        recipe=_admm(
            *(Unstructured(), 5.75),
            then=_admm(
                *(Unstructured(), 11.5),
                quantization=Quantization(
                    Binary(), ends_last=True, share=0.3, rounds=10
                ),
            ),
        ),
        shares=(lambda rate: rate / 2,),
        origins={
            "structure": "Single weights: the paper.",
            "method": "ADMM with a growing rho, in two steps, zeros masked in between: "
            "the paper. rho times 1.3 at each update: the authors' code "
            "(yeshaokai/Robustness-Aware-Pruning-ADMM).",
            "rate": "5.75, then 11.5: VGG-16 on CIFAR-10 without loss, and the second "
            "step at twice the rate of the first, both from a reading note of the "
            "paper. A rate given is halved for the first step." + BUDGET,
            "strength": "rho 1e-3 at the start: the authors' code.",
            "refreshes": "9: every 20th of 200 epochs in the authors' code.",
            "epochs": "1 : 1 and both steps alike, from 200 + 200 in the authors' "
            "code.",
            "levels": "Binary, and all layers but the first and the last before these "
            "two: the paper; with what pruning has left: ours." + ROUNDS,
        },
    ),
    "patdnn": NamedRecipe(
        title="Niu et al., PatDNN: Achieving Real-Time DNN Execution on Mobile Devices "
        "with Pattern-based Weight Pruning",
        arxiv="2001.00138",
        recipe=_admm(Pattern(entries=4, size=8), 4.5),
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
            + BUDGET,
            "strength": STARTS,
            "refreshes": UPDATES,
            "epochs": LENGTHS,
        },
    ),
    "yolobile-punched": NamedRecipe(
        title="Cai et al., YOLObile: Real-Time Object Detection on Mobile Devices via "
        "Compression-Compilation Co-Design",
        arxiv="2009.05697",
        recipe=_admm(*(Punched(8, 4), 8, 10 ** (3 / 15), 1e-4, 15), retrain_epochs=28),
        origins={
            "structure": "Blocks of 8 filters x 4 channels: the authors' code "
            "(nightsnack/YOLObile). Groups ranked by their root mean square: ours; "
            "there by the norms of their 4 channels, summed.",
            "method": "ADMM: the authors' code, where rho grows from 1e-4 to 1e-1 in "
            "steps of 10. By equal factors from update to update: ours.",
            "rate": "8, one of the rates with published profiles (2, 4, 8, 10, 14)."
            + BUDGET,
            "strength": "rho 1e-4 at the start: the authors' code.",
            "refreshes": "15 after the one at the start: 4 for each of 4 rhos, every "
            "6th of 25 epochs in the authors' code.",
            "epochs": "1 : 2.8, from 4 x 25 + 280 in the authors' code.",
        },
    ),
}
