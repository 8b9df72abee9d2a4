"""What the commands on use cases share: options, JSON, verdicts in colour.

Standard output is for results; with --json it carries nothing but JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from testbed.report.publish import Judged

F = TypeVar("F", bound=Callable[..., Any])

STYLES = {"holds": "green", "does not hold": "red", "not measurable here": "yellow"}

_PATH = click.option(
    "--path", "folders", multiple=True, metavar="DIR",
    help="Folder (or file) of use cases of your own; also $TESTBED_PATH.",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def common(function: F) -> F:
    """The options --path and --json."""
    return _PATH(_JSON(function))


def print_json(value: Any) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def out() -> Console:
    """The terminal's standard output, for tables; long text is wrapped, not cut."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on standard error while something takes its time."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def print_claims(console: Console, judged: tuple[Judged, ...]) -> None:
    """The table of claims with their verdicts."""
    from rich.table import Table

    if not judged:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", ratio=3)
    table.add_column("measured", ratio=2)
    for each in judged:
        verdict = each.verdict
        table.add_row(
            f"[{STYLES[verdict.outcome]}]{verdict.outcome}[/]",
            f"{_escaped(each.claim.statement)} [dim]{_escaped(each.claim.source)}[/]",
            _escaped(verdict.measured or verdict.why),
        )
    console.print(table)
