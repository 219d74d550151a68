# SPDX-License-Identifier: Apache-2.0
"""When callbacks look at a model in the course of a phase."""

from __future__ import annotations

import abc
import math

import keras

#: Steps between two looks where the length of an epoch is unknown.
STEPS = 43


class PhaseClock(keras.callbacks.Callback, abc.ABC):
    """Calls `tick(progress)` every few steps of a phase, 0 <= progress <= 1.

    Args:
        every: Epochs between two ticks; at least one step.
    """

    #: Number of the phase's first epoch, where epochs count on from an earlier phase.
    first_epoch: int = 0

    def __init__(self, every: float = 0.1):
        super().__init__()
        self.every = every
        self._epoch = 0
        self._due = 0.0
        self._steps = 0  # of the phase, as far as this run knows them
        self._inside = 0  # of them, in this epoch

    @abc.abstractmethod
    def tick(self, progress: float) -> None:
        """Looks at the model and acts; its weights are up to date."""

    def on_train_begin(self, logs=None):
        self._steps = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch = epoch - self.first_epoch
        self._inside = 0
        if self._length:
            self._steps = epoch * self._length
        if self._due < epoch:  # a run goes on that ticked before it was cut short
            self._due = self._after(epoch)

    def on_train_batch_end(self, batch, logs=None):
        before, length = self._inside, self._length
        self._count(batch)
        position = self._epoch + (self._inside / length if length else 0)
        if length:
            due = position >= self._due
        else:
            due = self._inside // STEPS > before // STEPS
        if due:
            self._due = self._after(position)
            self._tell(position)

    def on_epoch_end(self, epoch, logs=None):
        if self._is_last(epoch) or not self._length:
            self._tell(epoch + 1 - self.first_epoch)

    @property
    def _length(self) -> int | None:
        """Steps of an epoch; None while that is unknown."""
        return (self.params or {}).get("steps")

    def _count(self, batch: int) -> None:
        """Counts the steps up to `batch` of the epoch.

        They are several where the model was compiled with `steps_per_execution`, and
        Keras numbers the last execution's as if the epoch did not end within it.
        """
        inside = min(batch + 1, self._length or batch + 1)
        self._steps += inside - self._inside
        self._inside = inside

    def _is_last(self, epoch: int) -> bool:
        return epoch + 1 >= ((self.params or {}).get("epochs") or 1)

    def _after(self, position: float) -> float:
        """The next of the times that are multiples of `every`, interrupted or not."""
        return (math.floor(position / self.every + 1e-9) + 1) * self.every - 1e-9

    def _progress_at(self, position: float) -> float:
        """Epochs of the phase as its progress, 0 to 1."""
        epochs = ((self.params or {}).get("epochs") or 1) - self.first_epoch
        return min(1.0, position / max(1, epochs))

    def _tell(self, position: float) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.tick(self._progress_at(position))
