"""Progress on another machine, on standard error: a spinner on a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from testbed.remote.progress import Progress

_LINE_S = 5.0  # in a log, how often bytes are told of at most


class _Lines(Progress):
    """For logs."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._text = ""
        self._told = time.monotonic()

    def step(self, text: str) -> None:
        self._text, self._told = text, time.monotonic()
        click.echo(f"{self._name}: {text}", err=True)

    def moved(self, done: int, total: int) -> None:
        if time.monotonic() - self._told > _LINE_S:
            self._told = time.monotonic()
            click.echo(f"{self._name}: {self._text}: {amount(done, total)}", err=True)

    def line(self, text: str) -> None:
        click.echo(f"{self._name}: {text}", err=True)


class _Spinner(Progress):
    """For terminals."""

    def __init__(self, name: str, console: Console, status: Status) -> None:
        self._head = f"[bold]{escape(name)}[/]"
        self._console = console
        self._status = status
        self._text = ""

    def step(self, text: str) -> None:
        self._text = text
        self._status.update(f"{self._head} {escape(text)}")

    def moved(self, done: int, total: int) -> None:
        self._status.update(f"{self._head} {escape(self._text)}: {amount(done, total)}")

    def line(self, text: str) -> None:
        self._console.print(f"{self._head} [dim]{escape(text)}[/]", highlight=False)


def amount(done: int, total: int) -> str:
    """Bytes done of all."""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"


@contextmanager
def showing(name: str) -> Iterator[Progress]:
    """Progress on the machine called `name`, shown on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(name)
        return
    with console.status("") as status:
        yield _Spinner(name, console, status)
