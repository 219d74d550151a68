# SPDX-License-Identifier: Apache-2.0
"""Tells of layers that lose everything while a method acts, when it happens."""

from __future__ import annotations

import keras

from tfrewprune.caller import warn_caller
from tfrewprune.recipe import Recipe
from tfrewprune.wrappers.moments import inner_optimizer, reach
from tfrewprune.wrappers.targets import Target, hooked_kernels

#: Groups of a smaller rms hold nothing.
EMPTY = 1e-8


class CollapseWatch(keras.callbacks.Callback):
    """Warns, after the epoch in which it happens, of a layer that is left empty.

    A layer has collapsed when no more groups are left in it than it keeps in any case
    (`minimum_groups`): nothing passes through it any longer, and retraining must find
    its weights anew. `collapsed` in the logs is the number of such layers.

    Attributes:
        collapsed: Layer path to the epoch, counted from 1, of those that collapsed.

    Args:
        recipe: Gives the groups that a layer keeps at least.
        tell: Whether to warn; else such layers are only counted, in the logs.

    Warns:
        UserWarning: Once a layer.
    """

    def __init__(self, recipe: Recipe, tell: bool = True):
        super().__init__()
        self.recipe, self.tell = recipe, tell
        self.collapsed: dict[str, int] = {}

    def on_train_begin(self, logs=None):
        self.collapsed = {}

    def on_epoch_end(self, epoch, logs=None):
        least = max(1, self.recipe.minimum_groups)
        targets = [t for t in hooked_kernels(self.model) if _pruned(t)]
        empty = [target.label for target in targets if self._left(target) <= least]
        for path in empty:
            if self.tell and path not in self.collapsed:
                self.collapsed[path] = epoch + 1
                warn_caller(
                    f"Layer {path!r} collapsed in epoch {epoch + 1}: no more than "
                    f"{least} of its groups is left. Give it a rule with a rate of its "
                    "own, a lower rate, or a longer phase.",
                )
        if logs is not None and targets:
            logs["collapsed"] = len(empty)

    def _left(self, target: Target) -> int:
        """Groups, or what a structure ranks in their place, that are not emptied."""
        structure, shape = target.structure, target.shape
        rms = structure.rms(target.kernel(), shape)
        threshold = 0.0
        if target.penalty is not None:
            # As far as the optimizer moves weights that nothing pulls.
            step = reach(inner_optimizer(self.model), target.variable, 0.0)
            threshold = target.penalty.method.emptied_below(step)
        return int((rms >= max(threshold, EMPTY)).sum())


def _pruned(target: Target) -> bool:
    """Whether a method acts on the kernel, which has groups to lose."""
    masked = target.mask is not None and target.mask.groups is not None
    return (target.penalty is not None or masked) and (
        target.structure.group_count(target.shape) > 1
    )
