# SPDX-License-Identifier: Apache-2.0
"""Callbacks: refresh the penalty weights, put sparsity and penalty into the logs."""

from __future__ import annotations

import keras
from keras import ops

from tfrewprune.wrappers.attachment import apply_masks, variable_scope
from tfrewprune.wrappers.targets import Target, hooked_kernels


class Reweight(keras.callbacks.Callback):
    """Recomputes the penalty weights alpha a few times during `fit`.

    The state is first computed from the weights at the start of the phase, then
    refreshed at evenly spaced points: 4 refreshes are at 20, 40, 60 and 80 % of all
    steps. The position is derived from the epoch number, so a run resumed with
    `BackupAndRestore` or `initial_epoch` refreshes where the whole run would have.

    Args:
        refreshes: Number of refreshes inside the phase.

    Raises:
        ValueError: A negative number.
    """

    def __init__(self, refreshes: int = 4):
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
        self._pending: list[float] = []
        self._started = False
        self._epoch = 0

    def on_train_begin(self, logs=None):
        self._started = False
        count = self.refreshes
        self._pending = [(index + 1) / (count + 1) for index in range(count)]

    def on_epoch_begin(self, epoch, logs=None):
        # Not in on_train_begin: BackupAndRestore loads the weights there.
        self._epoch = epoch
        if not self._started:
            self._started = True
            self._pending = [p for p in self._pending if p > self._progress(0)]
            self._refresh(start=True, resumed=epoch > 0)

    def on_train_batch_begin(self, batch, logs=None):
        if self._pending and self._progress(batch) >= self._pending[0] - 1e-9:
            progress = self._progress(batch) + 1e-9
            self._pending = [p for p in self._pending if p > progress]
            self._refresh()

    def _progress(self, batch: int) -> float:
        """Position inside the phase, 0 to 1; by epochs if their length is unknown."""
        steps = self.params.get("steps")
        inside = min(batch / steps, 1.0) if steps else 0.0
        return (self._epoch + inside) / max(1, self.params.get("epochs") or 1)

    def _refresh(self, start: bool = False, resumed: bool = False) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        retrace = False
        tracked = {id(variable) for variable in self.model.non_trainable_variables}
        for target in hooked_kernels(self.model):
            penalty = target.penalty
            if penalty is None or not penalty.method.refreshed:
                continue
            bound = bool(penalty.state)
            owned = bound and all(id(v) in tracked for v in penalty.state.values())
            if start and resumed and owned:
                continue  # alpha came back with the weights
            with variable_scope(self.model):
                penalty.refresh(target.variable.value)
            # JAX bakes variables that no layer tracks into the compiled step.
            baked = keras.backend.backend() == "jax" and not owned
            retrace = retrace or baked or not bound
        if retrace:
            self.model.test_function = None
            self.model.make_train_function(force=True)


class SparsityLogger(keras.callbacks.Callback):
    """Adds sparsity, rate and penalty of the pruned layers to the logs of each epoch.

    Keys: `sparsity` (fraction of weights that count as removed), `rate` (dense / kept),
    `penalty` (the part of the loss that is due to it; absent without penalties). A
    group counts as removed when its rms is below `threshold`; under a mask that is
    exactly the mask. Also sets masked weights to zero at the end of training, where an
    optimizer with `use_ema=True` overwrites the weights by their average.

    Put it before callbacks that read the logs (`CSVLogger`, `TensorBoard`).

    Args:
        threshold: Root mean square below which a group counts as removed.
        layers: Also log `sparsity/{layer}` for every pruned layer.
    """

    def __init__(self, threshold: float = 1e-3, layers: bool = False):
        super().__init__()
        if not threshold >= 0:
            raise ValueError(
                f"Argument `threshold` must be at least 0. Received: {threshold!r}"
            )
        self.threshold = threshold
        self.layers = layers

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        targets = hooked_kernels(self.model)
        if not targets:
            return
        kept = total = 0
        penalty, penalized = 0.0, False
        for target in targets:
            weights, survivors = target.shape.weights, self._surviving(target)
            kept, total = kept + survivors, total + weights
            if self.layers:
                logs[f"sparsity/{target.path}"] = 1.0 - survivors / weights
            if target.penalty is not None:
                penalized = True
                penalty += float(
                    ops.convert_to_numpy(
                        ops.stop_gradient(target.penalty.penalty(target.variable.value))
                    )
                )
        logs["sparsity"] = 1.0 - kept / total
        logs["rate"] = total / kept if kept else float("inf")
        if penalized:
            logs["penalty"] = penalty

    def on_train_end(self, logs=None):
        apply_masks(self.model)

    def _surviving(self, target: Target) -> int:
        structure, shape = target.structure, target.shape
        sizes = structure.group_sizes(shape)
        if target.mask is not None and target.mask.groups is not None:
            return int(sizes[target.mask.groups].sum())
        kernel = target.spec.layout.to_kernel(target.weights())
        return int(sizes[structure.rms(kernel, shape) >= self.threshold].sum())
