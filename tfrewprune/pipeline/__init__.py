# SPDX-License-Identifier: Apache-2.0
"""The stages between a Keras model and a pruned one."""

from tfrewprune.pipeline.compression import CompressResult, compress
from tfrewprune.pipeline.gradual import GradualPrune
from tfrewprune.pipeline.prune import hard_prune
from tfrewprune.pipeline.steering import StrengthControl
from tfrewprune.pipeline.summary import LayerRow, format_rows, sparsity_summary
from tfrewprune.pipeline.train import masked_retrain, reweighted_train
from tfrewprune.wrappers.cloning import strip
from tfrewprune.wrappers.selection import lamp_scores

__all__ = [
    "CompressResult",
    "GradualPrune",
    "LayerRow",
    "StrengthControl",
    "compress",
    "format_rows",
    "hard_prune",
    "lamp_scores",
    "masked_retrain",
    "reweighted_train",
    "sparsity_summary",
    "strip",
]
