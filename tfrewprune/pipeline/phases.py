# SPDX-License-Identifier: Apache-2.0
"""A user's callbacks over the phases of one compression.

Epochs count on from phase to phase, as in one long training. What must not happen is
that a callback made for one training works against the two: that a "best" checkpoint
is the dense model of the first phase, that early stopping undoes the penalty, or that
a resumed run enters the wrong phase.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence

import keras

from tfrewprune.caller import warn_caller

Callback = keras.callbacks.Callback


class PhaseCallbacks:
    """Gives every phase the callbacks that are right for it.

    - `EarlyStopping` and `ModelCheckpoint(save_best_only=True)` judge a model by a
      metric: they act in one phase only, the last where all candidates are finished.
    - `CSVLogger` writes all phases to its file.
    - `BackupAndRestore` keeps a backup for each phase in a folder of its own: a run
      that was interrupted goes on in the right phase with the right weights. The
      backups are deleted when all phases are done, unless it was told to keep them.
    - All others take part in every phase.

    Args:
        callbacks: The user's callbacks; None for none.
        trained: Names of the phases that train, in order.
        finished: Names of those all of whose models are finished: pruned, on their
            levels.
    """

    def __init__(
        self,
        callbacks: Iterable[Callback] | None,
        trained: Sequence[str],
        finished: Sequence[str],
    ):
        self._callbacks = list(callbacks or [])
        fit = [name for name in trained if name in finished]
        self._judged = next(reversed([*trained, *fit]), None)
        idle = [type(c).__name__ for c in self._callbacks if _judges(c)]
        if idle and not fit:
            warn_caller(
                f"{', '.join(idle)} chooses among models that are not pruned, or not "
                "on their levels, yet: there is no retraining phase "
                "(retrain_epochs=0).",
            )
        self._appending: list[Callback] = []
        self._first = True

    def of(self, phase: str) -> list[Callback]:
        """The callbacks for the `fit` of a phase; call it once a phase, in order."""
        chosen = []
        for callback in self._callbacks:
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                chosen.append(_backup_of(callback, phase))
            elif phase == self._judged or not _judges(callback):
                logs = isinstance(callback, keras.callbacks.CSVLogger)
                if logs and not self._first and not callback.append:
                    callback.append = True
                    self._appending.append(callback)
                chosen.append(callback)
        self._first = False
        return chosen

    def release(self) -> None:
        """Leaves the callbacks as they came, however the phases ended."""
        for callback in self._appending:
            callback.append, callback.append_header = False, True

    def finish(self) -> None:
        """Deletes the backups of all phases, which are done."""
        for callback in self._callbacks:
            # With the twins' folders inside its own.
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                callback.on_train_end()


def _judges(callback: Callback) -> bool:
    return isinstance(callback, keras.callbacks.EarlyStopping) or (
        isinstance(callback, keras.callbacks.ModelCheckpoint)
        and callback.save_best_only
    )


def _backup_of(callback: Callback, phase: str) -> Callback:
    """The same callback with a folder of its own for one phase."""
    twin = copy.copy(callback)
    keras.callbacks.BackupAndRestore.__init__(
        twin,
        os.path.join(callback.backup_dir, phase),
        save_freq=callback.save_freq,
        double_checkpoint=callback.double_checkpoint,
        delete_checkpoint=False,
    )
    return twin
