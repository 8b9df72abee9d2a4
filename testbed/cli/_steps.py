"""Progress of work that goes step by step: a bar on a terminal, a line a step in a log.

Both on standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Step = Callable[[str, float], None]


@contextmanager
def steps(title: str) -> Iterator[Step]:
    """What is told of each step, and how much of it is done (0 to 1; 0: not known)."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title)
        return
    columns = (
        TextColumn(f"[bold]{title}"), BarColumn(bar_width=28), TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text, fraction: progress.update(
            task, description=text, completed=fraction, total=1 if fraction else None
        )


def _lines(title: str) -> Step:
    last = [""]

    def step(text: str, _fraction: float) -> None:
        if text != last[0]:
            last[0] = text
            click.echo(f"{title}: {text}", err=True)

    return step
