# SPDX-License-Identifier: Apache-2.0
"""When callbacks look at a model; epochs as Keras tells of them, without training."""

import keras
import pytest

from tfrewprune.pipeline.clock import PhaseClock

pytestmark = pytest.mark.backend


class Looks(PhaseClock):
    """Progress at each look, and the steps until then."""

    def tick(self, progress):
        self.seen.append((self._steps, progress))

    def run(self, batches: int, together: int, epochs: int = 1, known: bool = True):
        """All that `fit` calls with `steps_per_execution=together`."""
        self.seen = []
        self.set_model(keras.Sequential())
        self.set_params({"epochs": epochs, "steps": batches if known else None})
        self.on_train_begin()
        for epoch in range(epochs):
            self.on_epoch_begin(epoch)
            for first in range(0, batches, together):
                self.on_train_batch_begin(first)
                self.on_train_batch_end(first + together - 1)
            self.on_epoch_end(epoch)
        return self.seen


def test_looks_are_as_far_apart_as_asked_after_the_first():
    assert Looks(every=0.5).run(8, 1, 2)[:-1] == [
        (1, 1 / 16),
        (4, 0.25),
        (8, 0.5),
        (12, 0.75),
        (16, 1.0),
    ]


def test_the_last_execution_of_an_epoch_ends_with_it():
    assert Looks(every=0.5).run(8, 5, 2)[:-1] == [
        (5, 5 / 16),
        (8, 0.5),
        (13, 13 / 16),
        (16, 1.0),
    ]


@pytest.mark.parametrize("together, looks", [(1, [43, 86, 90]), (10, [50, 90, 90])])
def test_looks_in_epochs_of_unknown_length_are_43_steps_apart(together, looks):
    seen = Looks().run(90, together, known=False)
    assert [steps for steps, _ in seen] == looks
