"""A run's progress on standard error: a bar on a terminal, a line a trial in a log.

Imported when a run begins, not with the command line: it needs rich and `testbed.run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from testbed.run.trial_process import Observer
from testbed.run.usecase import Trial


class _Lines(Observer):
    """An observer for logs: one line a trial on standard error."""

    def trial_started(self, trial: Trial, number: int, total: int) -> None:
        self._head = f"trial {number + 1}/{total}: {trial.variant} repeat {trial.repeat + 1}"

    def trial_ended(self, trial: Trial, error: str) -> None:
        click.echo(f"{self._head} {'FAILED: ' + error if error else 'done'}", err=True)


class _Bar(Observer):
    """An observer with a progress bar over all trials."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)
        self._number = 0
        self._name = ""

    def trial_started(self, trial: Trial, number: int, total: int) -> None:
        self._number = number
        self._name = f"{trial.variant} {trial.repeat + 1}"
        self._progress.update(self._task, total=total, completed=number, description=self._name)

    def trial_progress(self, fraction: float, text: str) -> None:
        description = f"{self._name}: {text}" if text else self._name
        self._progress.update(
            self._task, completed=self._number + fraction, description=description
        )

    def trial_ended(self, trial: Trial, error: str) -> None:
        self._progress.update(self._task, completed=self._number + 1)
        if error:
            self._progress.console.print(f"[red]failed[/] {escape(error)}", highlight=False)


@contextmanager
def watching(title: str) -> Iterator[Observer]:
    """An observer that shows a run's progress on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    description = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn(f"[bold]{title}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", table_column=description),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)
