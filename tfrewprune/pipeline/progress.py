# SPDX-License-Identifier: Apache-2.0
"""One progress bar over all training phases."""

from __future__ import annotations

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

SHOWN = ("loss", "accuracy", "val_accuracy", "rate")


class Progress:
    """Context manager: a bar that counts epochs, with the phase and its latest logs.

    Args:
        phases: Epochs of each phase, in order.
        verbose: 0: nothing; 1 or "auto": the bar; 2: left to Keras' own lines.

    Raises:
        ValueError: Another `verbose`.
    """

    def __init__(self, phases: dict[str, int], verbose: str | int = "auto"):
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(
                "Invalid value for argument `verbose`. Expected one of 'auto', 0, 1, "
                f"2. Received: verbose={verbose!r}"
            )
        self.fit_verbose = 2 if verbose == 2 else 0
        self._report = verbose != 0
        self._console = Console()
        self._bar = Bar(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=verbose in (0, 2),
        )
        self._task = self._bar.add_task("start", total=sum(phases.values()), figures="")

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exception):
        self._bar.stop()

    def phase(self, name: str) -> list[keras.callbacks.Callback]:
        """Callbacks that report the epochs of a phase."""
        self._bar.update(self._task, description=name)

        def advance(epoch, logs):
            figures = [f"{key} {logs[key]:.3g}" for key in SHOWN if key in (logs or {})]
            self._bar.update(
                self._task, completed=epoch + 1, figures="  ".join(figures)
            )

        return [keras.callbacks.LambdaCallback(on_epoch_end=advance)]

    def finish(self, text: str) -> None:
        """Prints the closing report, unless silent."""
        if self._report:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
