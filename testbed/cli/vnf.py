"""`testbed vnf`: check Click configurations, see what they become, and try them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from testbed.errors import ParameterError

_VALUES = click.option(
    "--define", "defines", multiple=True, metavar="NAME=VALUE", help="Value of a variable."
)
_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def vnf() -> None:
    """Light network functions, written in the Click language."""


@vnf.command()
@_FILE
@_VALUES
@click.option("--json", "as_json", is_flag=True, help="Print what it becomes as JSON.")
def check(file: Path, defines: tuple[str, ...], as_json: bool) -> None:
    """Compile FILE and show the kernel's rules for it, or the mistake with line and column."""
    from testbed.vnf.compiler import compile_file

    program = compile_file(file, values=_values(defines))
    facts: dict[str, Any] = {
        "devices": list(program.devices),
        "elements": {name: each.element.kind for name, each in program.elements.items()},
        "ruleset": program.ruleset().splitlines(),
        "searches": [[each.chain, each.pattern.decode("latin-1")] for each in program.strings],
        "exits": [[each.mark, each.device, each.gateway] for each in program.exits],
        "shaped": {
            queues.device: [[each.minor, each.ceiling] for each in queues.classes]
            for queues in program.queues
        },
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    click.echo(program.ruleset())
    for chain, text in facts["searches"]:
        click.echo(f"# {chain} begins with a search for {text!r} (xt_string)")
    for mark, device, gateway in facts["exits"]:
        click.echo(f"# mark {mark:#x} leaves by {device}" + (f" over {gateway}" * bool(gateway)))
    for device, classes in facts["shaped"].items():
        for minor, ceiling in classes:
            click.echo(f"# {device}: HTB class 1:{minor:x} at {ceiling / 1e6:g} Mb/s")


@vnf.command()
@_FILE
@_VALUES
@click.option("--count", default=3, help="Pings through it.")
def run(file: Path, defines: tuple[str, ...], count: int) -> int:
    """Run FILE between two hosts, ping through it, and print its counters.

    The hosts are 10.1.0.1 on eth0 and 10.2.0.1 on eth1. Exit status 1 when no ping was answered.
    """
    from testbed.sandbox import ensure

    ensure()
    from testbed.vnf import trial
    from testbed.vnf.compiler import compile_file

    found = trial.run(compile_file(file, values=_values(defines)), count)
    click.echo(f"started in {found.start_ms:.1f} ms; {found.answered} of {count} pings answered")
    for name, value in found.counters.items():
        click.echo(f"{name}: {value}")
    return 0 if found.answered else 1


@vnf.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def elements(as_json: bool) -> None:
    """List the element classes, their arguments and handlers."""
    from testbed.vnf.elements import REGISTRY

    rows = {name: " ".join((cls.__doc__ or "").split()) for name, cls in sorted(REGISTRY.items())}
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for name, text in rows.items():
        click.echo(f"{name:22} {text}")


def _values(defines: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for each in defines:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise ParameterError(f"--define {each}", remedy="write --define NAME=VALUE")
        found[name] = value
    return found


commands = [vnf]
