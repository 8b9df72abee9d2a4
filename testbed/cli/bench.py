"""`testbed bench NAME`: benchmarks found by entry point, ours (in `benchmarks/`) and others'."""

from __future__ import annotations

from importlib.metadata import entry_points

import click

_GROUP = "liquidnet.benchmarks"


class Benchmarks(click.Group):
    """A group whose commands are the installed benchmarks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted(point.name for point in entry_points(group=_GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The benchmark called `cmd_name`."""
        for point in entry_points(group=_GROUP, name=cmd_name):
            found: click.Command = point.load()
            return found
        return None


@click.group(cls=Benchmarks)
def bench() -> None:
    """Measure this machine: ratios and errors, each in one run."""


commands = [bench]
