# SPDX-License-Identifier: Apache-2.0
"""Pruning without training: a trained model, a few unlabelled inputs, no labels.

`source` (a Keras model or a `.tflite` file as layers) -> `losses` (what each rate of
each layer loses and costs, and the choice among them) -> `pruning` (layer by layer) ->
`one_shot` (the public function) -> `result`.
"""

from tfrewprune.oneshot.losses import Infeasible, LossTable
from tfrewprune.oneshot.one_shot import prune_one_shot
from tfrewprune.oneshot.result import OneShotResult

__all__ = ["Infeasible", "LossTable", "OneShotResult", "prune_one_shot"]
