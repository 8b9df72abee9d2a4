"""`testbed bench NAME`: benchmarks found by entry point, ours (in `benchmarks/`) and others'.

A benchmark is a click command with `--quick` and `--json` that prints a Markdown table on
standard output and its progress on standard error.  One with `--fetch` needs software that is
not installed with LiquidNet and gets it into a cache when that is given.
"""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import click

from testbed.errors import ParameterError

_GROUP = "liquidnet.benchmarks"


def names() -> list[str]:
    """Of the installed benchmarks."""
    return sorted({point.name for point in entry_points(group=_GROUP)})


def load(name: str) -> click.Command | None:
    """The benchmark called `name`."""
    for point in entry_points(group=_GROUP, name=name):
        found: click.Command = point.load()
        return found
    return None


class Benchmarks(click.Group):
    """A group whose commands are the installed benchmarks, `all` and `list`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return [*super().list_commands(ctx), *names()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The benchmark called `cmd_name`."""
        return super().get_command(ctx, cmd_name) or load(cmd_name)


@click.group(cls=Benchmarks)
def bench() -> None:
    """Measure this machine: ratios and errors, each in one run."""


@bench.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print names and purposes as JSON.")
def show(as_json: bool) -> None:
    """Name the benchmarks, one a line, with what each measures."""
    lines = {name: _purpose(name) for name in names()}
    if as_json:
        click.echo(json.dumps(lines, indent=1))
        return
    width = max(map(len, lines), default=0)
    for name, purpose in lines.items():
        click.echo(f"{name:{width}}  {purpose}")


def _purpose(name: str) -> str:
    command = load(name)
    return command.get_short_help_str(100) if command else ""


@bench.command("all")
@click.option("--quick", is_flag=True, help="The short profile of each.")
@click.option("--only", multiple=True, metavar="NAME", help="Only these (may be repeated).")
@click.option("--skip", multiple=True, metavar="NAME", help="Not these (may be repeated).")
@click.option("--fetch", is_flag=True, help="Let benchmarks get other emulators and kernels.")
@click.option(
    "--update", "page", type=click.Path(path_type=Path, dir_okay=False),
    help="Put each table into its marked block of this page.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what all found as JSON.")
def everything(
    quick: bool,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    fetch: bool,
    page: Path | None,
    as_json: bool,
) -> int:
    """Run every benchmark and print each table with what the machine was.

    Exit status 1 when one failed; what this machine cannot measure is named, and is no failure.
    """
    from testbed.cli import _bench_all

    chosen = _chosen(only, skip)
    if as_json and page:
        raise ParameterError("--json with --update", remedy="give one of them")
    if page and not page.is_file():
        raise ParameterError(f"--update {page}", remedy="name a page that exists")
    options = {name: _options(name, quick=quick, fetch=fetch, json=as_json) for name in chosen}
    return _bench_all.run_all(options, page=page, as_json=as_json)


def _chosen(only: tuple[str, ...], skip: tuple[str, ...]) -> list[str]:
    known = names()
    for name in (*only, *skip):
        if name not in known:
            raise ParameterError(f"no benchmark {name!r}", remedy=f"choose of {', '.join(known)}")
    return [name for name in only or known if name not in skip]


def _options(name: str, **wanted: bool) -> list[str]:
    """Those of the options wanted that the benchmark takes."""
    command = load(name)
    taken = {word for param in command.params for word in param.opts} if command else set()
    return [f"--{word}" for word, want in wanted.items() if want and f"--{word}" in taken]


commands = [bench]
