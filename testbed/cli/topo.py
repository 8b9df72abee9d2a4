"""`testbed topo FILE.py`: draw, start and check a topology, and open Mininet's CLI on it.

A file that builds its network itself is run as the program it is, on this engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.errors import ParameterError
from testbed.sandbox import ensure

if TYPE_CHECKING:
    from mininet.topo import Topo

    from testbed.network import Network

_DELAY_TOLERANCE_S = 0.001


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, metavar="[-- ARG...]")
@click.option("--class", "name", default="", help="Which topology of the file (see its `topos`).")
@click.option(
    "--arg", "arguments", multiple=True, metavar="KEY=VALUE", help="Argument of the topology."
)
@click.option("--draw", "picture", type=click.Path(path_type=Path), help="Write a picture here.")
@click.option("--engine", default="auto", help="auto, fabric or netem.")
@click.option("--check/--no-check", default=True, help="Ping everyone and probe each link.")
@click.option("--cli", "open_cli", is_flag=True, help="Open Mininet's command line.")
@click.option(
    "--at", "lines", multiple=True, metavar="'TIME CHANGE'", help="2s link h1 s1 down, say."
)
@click.option("--timeline", type=click.Path(path_type=Path), help="A file of such lines, or TOML.")
@click.option("--script", is_flag=True, help="Run FILE as a program, though it has a topology.")
@click.option("--uplink", is_flag=True, help="Let it reach this machine's network.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def topo(
    file: Path,
    words: tuple[str, ...],
    name: str,
    arguments: tuple[str, ...],
    picture: Path | None,
    engine: str,
    check: bool,
    open_cli: bool,
    lines: tuple[str, ...],
    timeline: Path | None,
    script: bool,
    uplink: bool,
    as_json: bool,
) -> int:
    """Draw, start and check the topology in FILE, a plain Mininet file.

    FILE may also be a topology of Mininet's own ("linear,3", "tree,2,3", "torus,3,3").  A file
    that holds no topology but a program is run, with ARG... as its arguments, on this engine.
    What --at and --timeline say happens to it afterwards, while --cli is open or until the last.
    Exit status 1 when a check or the program fails.
    """
    ensure(uplink=uplink)
    from testbed.network import load
    from testbed.network import script as program

    if script or (not load.is_own(file) and program.is_script(file)):
        program.run(file, words)
        return 0
    if words:
        raise ParameterError(f"{file} is no program, and takes no {words[0]}", remedy="see --help")
    from mininet.log import setLogLevel

    from testbed.network import Network, schedule
    from testbed.network.draw import draw

    setLogLevel("warning")
    built = load.build(load.load(file, name), file, load.arguments(arguments))
    if picture:
        draw(built, picture, title=f"{file.name}")
    with Network(built, engine=engine) as net:
        changes = schedule.gather(net, lines, timeline)
        found = _examine(net, built) if check else {}
        if as_json:
            click.echo(json.dumps(found, indent=1))
        else:
            _show(built, net, found)
            net.observers.append(_tell)
        with changes:
            if open_cli:
                _open_cli(net)
                changes.stop()
    return 0 if found.get("ok", True) else 1


def _tell(_kind: str, *, mark: str = "", **_data: Any) -> None:
    """Say that the network has changed."""
    click.echo(f"*** {mark}")


def _open_cli(net: Network) -> None:
    from mininet.cli import CLI
    from mininet.log import setLogLevel

    setLogLevel("info")
    CLI(net)


def _examine(net: Network, built: Topo) -> dict[str, Any]:
    """Who reaches whom, each impaired link's delay, and what the topology states of itself.

    Where it states something, that says who must reach whom.
    """
    from testbed.network.check import reachability
    from testbed.network.expect import check, stated
    from testbed.run.probe import probe

    expectations = stated(built)
    reached = reachability(net)
    delays = probe(net.links)
    links = [
        {
            "link": link.wire.name,
            "from": ends[0].node.name,
            "to": ends[1].node.name,
            "delay_ms": round(delay.expected_s * 1e3, 3),
            "measured_ms": round(delay.median_s * 1e3, 3),
            "ok": delay.within(_DELAY_TOLERANCE_S),
        }
        for link in net.links
        if link.wire is not None
        for direction, ends in zip(
            link.wire.directions,
            ((link.intf1, link.intf2), (link.intf2, link.intf1)),
            strict=True,
        )
        if (delay := delays.get((link.wire.name, direction)))
    ]
    outcomes = check(net, expectations)
    reachable = all(answer.ok for answer in reached) or bool(expectations)
    return {
        "ok": reachable
        and all(link["ok"] for link in links)
        and not any(outcome.fails for outcome in outcomes),
        "expectations": [outcome.as_dict() for outcome in outcomes],
        "unreachable": [[r.source, r.target, r.address] for r in reached if not r.ok],
        "pings": len(reached),
        "links": links,
        "engines": [choice._asdict() for choice in net.engines.choices()],
    }


def _show(built: Topo, net: Network, found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from testbed.network.draw import kind_of, link_label

    console = Console()
    table = Table("link", "", "", "what it does", box=None, pad_edge=False)
    for link, (_a, _b, info) in zip(net.links, built.links(sort=True, withInfo=True), strict=True):
        ends = [f"{i.node.name} [dim]{i.name} {i.ip or ''}[/]" for i in (link.intf1, link.intf2)]
        table.add_row(ends[0], "──", ends[1], link_label(info) or "[dim]plain[/]")
    counts = [kind_of(built, node) for node in built.nodes()]
    console.print(", ".join(_count(counts.count(kind), kind) for kind in sorted(set(counts))))
    console.print(table)
    if found:
        _show_checks(console, found)


def _count(number: int, kind: str) -> str:
    plural = "es" if kind == "switch" else "s"
    return f"{number} {kind}{plural if number != 1 else ''}"


def _show_checks(console: Any, found: dict[str, Any]) -> None:
    lost = found["unreachable"]
    bad = "[yellow]partly[/]" if found["expectations"] else "[red]FAILED[/]"
    mark = bad if lost else "[green]ok[/]"
    console.print(f"{mark}  reachability: {found['pings'] - len(lost)} of {found['pings']} pings")
    for source, target, address in lost if not found["expectations"] else ():
        console.print(f"        {source} does not reach {target} ({address})")
    for link in found["links"]:
        mark = "[green]ok[/]" if link["ok"] else "[red]FAILED[/]"
        console.print(
            f"{mark}  {link['link']}, {link['from']} to {link['to']}: "
            f"{link['measured_ms']} ms, configured {link['delay_ms']} ms"
        )
    if found["expectations"]:
        _show_expectations(console, found["expectations"])


def _show_expectations(console: Any, outcomes: list[dict[str, str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from testbed.cli._terminal import STYLES

    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what the topology states", ratio=3)
    table.add_column("measured", ratio=2)
    for each in outcomes:
        table.add_row(
            f"[{STYLES[each['outcome']]}]{each['outcome']}[/]",
            f"{escape(each['statement'])} [dim]{escape(each['source'])}[/]",
            escape(each["measured"] or each["why"]),
        )
    console.print(table)


commands = [topo]
