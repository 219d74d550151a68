# SPDX-License-Identifier: Apache-2.0
"""Reasons below a table, each once, however many layers share it."""

from rich.console import Console
from rich.padding import Padding
from rich.text import Text


class Footnotes:
    """Numbers reasons in the order in which they come up."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def mark(self, label: str, reason: str) -> str:
        """The label with the reason's number, such as `dense (2)`."""
        number = self._number.setdefault(reason, len(self._number) + 1)
        return f"{label} ({number})"

    def print(self, console: Console) -> None:
        """Prints every reason with its number."""
        for reason, number in self._number.items():
            note = Padding(Text(f"({number}) {reason}"), (0, 0, 0, 1))
            console.print(note, highlight=False)
