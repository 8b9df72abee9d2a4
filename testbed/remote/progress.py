"""What is being done on another machine, for whoever shows it."""

from __future__ import annotations


class Progress:
    """Told of each step; this one shows nothing."""

    def step(self, text: str) -> None:
        """A step begins: "copying the project"."""

    def moved(self, done: int, total: int) -> None:
        """Bytes of the step that are done, and that there are."""

    def line(self, text: str) -> None:
        """A line that a program said in this step."""
