# SPDX-License-Identifier: Apache-2.0
"""The stages between a Keras model and a pruned one."""

from tfrewprune.pipeline.collapse import CollapseWatch
from tfrewprune.pipeline.compression import CompressResult, compress
from tfrewprune.pipeline.distillation import Teacher
from tfrewprune.pipeline.gradual import GradualPrune
from tfrewprune.pipeline.levels import (
    LevelRow,
    QuantizeResult,
    format_levels,
    quantize,
)
from tfrewprune.pipeline.likeness import arrange
from tfrewprune.pipeline.prune import hard_prune, mask_zeros
from tfrewprune.pipeline.purification import purify
from tfrewprune.pipeline.search import RateSearch, Trial, largest_rate
from tfrewprune.pipeline.steering import StrengthControl
from tfrewprune.pipeline.summary import sparsity_summary
from tfrewprune.pipeline.train import levels_train, masked_retrain, reweighted_train
from tfrewprune.rows import LayerRow, format_rows
from tfrewprune.wrappers.cloning import strip
from tfrewprune.wrappers.selection import lamp_scores

__all__ = [
    "CollapseWatch",
    "CompressResult",
    "GradualPrune",
    "LayerRow",
    "LevelRow",
    "QuantizeResult",
    "RateSearch",
    "StrengthControl",
    "Teacher",
    "Trial",
    "arrange",
    "compress",
    "format_levels",
    "format_rows",
    "hard_prune",
    "largest_rate",
    "lamp_scores",
    "levels_train",
    "mask_zeros",
    "masked_retrain",
    "purify",
    "quantize",
    "reweighted_train",
    "sparsity_summary",
    "strip",
]
