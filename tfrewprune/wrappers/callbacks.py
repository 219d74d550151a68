# SPDX-License-Identifier: Apache-2.0
"""Callbacks: refresh the penalty weights, put sparsity and penalty into the logs."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfrewprune.caller import warn_caller
from tfrewprune.methods import Method
from tfrewprune.wrappers.attachment import adopt, apply_masks, revived_weights
from tfrewprune.wrappers.regularizer import MethodRegularizer
from tfrewprune.wrappers.targets import Target, hooked_kernels


class Reweight(keras.callbacks.Callback):
    """Recomputes the penalty weights alpha a few times during `fit`.

    The state is first computed from the weights at the start of the phase, then
    refreshed at evenly spaced points: 4 refreshes are at 20, 40, 60 and 80 % of all
    steps. The position is derived from the epoch number, so a run resumed with
    `BackupAndRestore` or `initial_epoch` refreshes where the whole run would have.

    While `fit` validates, the penalty is 0: `val_loss` is the task's loss (with other
    regularizers, as always), so that callbacks that watch it are not misled.

    Args:
        refreshes: Number of refreshes inside the phase.
        first_epoch: Number of the phase's first epoch, where epochs count on from an
            earlier phase.

    Raises:
        ValueError: A negative number.

    Warns:
        UserWarning: After the first step, if no step has asked for the gradient of a
            penalty: the model's `train_step` or `compute_loss` leaves out
            `self.losses`.
    """

    def __init__(self, refreshes: int = 4, first_epoch: int = 0):
        super().__init__()
        if isinstance(refreshes, bool) or not isinstance(refreshes, int):
            raise ValueError(
                f"Argument `refreshes` must be an integer. Received: {refreshes!r}"
            )
        if refreshes < 0:
            raise ValueError(
                f"Argument `refreshes` must be at least 0. Received: {refreshes}"
            )
        self.refreshes = refreshes
        self.first_epoch = first_epoch
        self._pending: list[float] = []
        self._started = self._checked = False
        self._epoch = 0

    def on_train_begin(self, logs=None):
        adopt(self.model)
        self._started = self._checked = False
        count = self.refreshes
        self._pending = [(index + 1) / (count + 1) for index in range(count)]

    def on_epoch_begin(self, epoch, logs=None):
        # Not in on_train_begin: BackupAndRestore loads the weights there.
        self._epoch = epoch
        if not self._started:
            self._started = True
            # Those up to the step before; the next one is this step's.
            self._pending = [p for p in self._pending if p > self._progress(-1) + 1e-9]
            if epoch == self.first_epoch:  # else the state came back with the weights
                self._refresh(start=True)

    def on_train_batch_begin(self, batch, logs=None):
        if self._pending and self._progress(batch) >= self._pending[0] - 1e-9:
            progress = self._progress(batch) + 1e-9
            self._pending = [p for p in self._pending if p > progress]
            self._refresh()

    def on_train_batch_end(self, batch, logs=None):
        if not self._checked:
            self._checked = True
            penalties = [p for p in self._penalties() if p.strength]
            if penalties and not any(penalty.felt for penalty in penalties):
                for penalty in penalties:
                    penalty.reported = True
                warn_caller(
                    f"The penalty has no effect: {type(self.model).__name__}'s "
                    "training step leaves the model's losses out of its loss. Add "
                    "`sum(self.losses)` in its `train_step` or `compute_loss`.",
                )

    def on_test_batch_begin(self, batch, logs=None):
        # Not in on_test_begin: after it Keras resets the metrics, which unmutes.
        if batch == 0:
            for penalty in self._penalties():
                penalty.mute()

    def on_test_end(self, logs=None):
        for penalty in self._penalties():
            penalty.mute(False)

    def _penalties(self) -> list[MethodRegularizer]:
        return [
            target.penalty
            for target in hooked_kernels(self.model)
            if target.penalty is not None and target.variable.trainable
        ]

    def _progress(self, batch: int) -> float:
        """Position inside the phase, 0 to 1; by epochs if their length is unknown."""
        params = self.params or {}  # Keras sets none in a loop of the user's own
        steps = params.get("steps")
        inside = min(batch / steps, 1.0) if steps else 0.0
        length = max(1, (params.get("epochs") or 1) - self.first_epoch)
        return (self._epoch - self.first_epoch + inside) / length

    def _refresh(self, start: bool = False) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        for target in hooked_kernels(self.model):
            if target.penalty is not None and target.penalty.state:
                target.penalty.refresh(target.variable.value, start)


class SparsityLogger(keras.callbacks.Callback):
    """Adds sparsity, rate and penalty of the pruned layers to the logs of each epoch.

    Keys: `sparsity` (fraction of weights that count as removed), `rate` (dense / kept),
    `penalty` (the part of the loss that is due to it; 0 without penalties), `strength`
    (of the penalties, as their geometric mean; 0 without). They are the same in all
    phases, so that one table holds them. A group counts as removed when its rms is
    below `threshold`; under a mask that is exactly the mask. Also sets masked weights
    to zero at the end of training, where an optimizer with `use_ema=True` overwrites
    the weights by their average.

    Put it before callbacks that read the logs (`CSVLogger`, `TensorBoard`).

    Warns once if weights outside the mask are not zero after an epoch.

    Args:
        threshold: Root mean square below which a group counts as removed; None for
            what the penalty's method takes for empty, 1e-3 without a penalty.
        layers: Also log `sparsity/{layer}` for every pruned layer.
    """

    def __init__(self, threshold: float | None = None, layers: bool = False):
        super().__init__()
        if threshold is not None and not threshold >= 0:
            raise ValueError(
                f"Argument `threshold` must be at least 0. Received: {threshold!r}"
            )
        self.threshold = threshold
        self.layers = layers
        self._warned = False

    def on_train_begin(self, logs=None):
        adopt(self.model)
        self._warned = False

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        targets = hooked_kernels(self.model)
        if not targets:
            return
        if not self._warned and (message := revived_weights(self.model)):
            self._warned = True
            warn_caller(message)
        kept = total = 0
        penalty, strengths = 0.0, []
        for target in targets:
            weights, survivors = target.shape.weights, self._surviving(target)
            kept, total = kept + survivors, total + weights
            if self.layers:
                logs[f"sparsity/{target.label}"] = 1.0 - survivors / weights
            if target.penalty is not None:
                strengths.append(target.penalty.strength)
                penalty += float(
                    ops.convert_to_numpy(
                        ops.stop_gradient(target.penalty.penalty(target.variable.value))
                    )
                )
        logs["sparsity"] = 1.0 - kept / total
        logs["rate"] = total / kept if kept else float("inf")
        logs["penalty"] = penalty
        logs["strength"] = _geometric_mean([each for each in strengths if each])

    def on_train_end(self, logs=None):
        apply_masks(self.model)

    def _surviving(self, target: Target) -> int:
        structure, shape = target.structure, target.shape
        if target.mask is not None and target.mask.groups is not None:
            return structure.kept(target.mask.groups, shape)
        rms = structure.rms(target.values(), shape)
        threshold = self.threshold
        if threshold is None:
            method = Method() if target.penalty is None else target.penalty.method
            threshold = method.threshold
        return structure.kept(structure.left(rms, shape, threshold), shape)


def _geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else 0.0
