"""How long a light network function is away while it moves, and how many bytes that takes.

A firewall that translates sources moves between two platforms under live TCP connections, whose
every byte is verified and who are all asked at the end whether they live.  State crosses a link
with a rate and a delay, carried by the fabric.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from benchmarks._compare import alone, print_result, say, table

_SIZES = (1, 10, 100, 1000, 10_000)
_RATE = 500  # verified exchanges a second, in all


@click.command()
@click.option("--quick", is_flag=True, help="Up to 100 connections.")
@click.option("--delay", default="10ms", help="Of the link between the platforms, one way.")
@click.option("--bw", default=100.0, help="Of this link, Mb/s.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(quick: bool, delay: str, bw: float, as_json: bool) -> None:
    """Downtime, total time and bytes of a function's move, by its live connections."""
    rows = []
    for size in _SIZES[:3] if quick else _SIZES:
        say(f"{size} connections ...")
        rows.append(alone(_measure, size, delay, bw))
    print_result({"rows": rows}, _table(rows), as_json)


def _measure(size: int, delay: str, bw: float) -> dict[str, Any]:
    from testbed.links import LinkSpec
    from testbed.vnf.migration import migrate
    from testbed.vnf.rig import Firewall, Rig

    with Rig(LinkSpec(bw=bw, delay=delay)) as rig:
        source = rig.firewall()
        rig.lead_through(source)
        targets: list[Firewall] = []

        def instantiate() -> Firewall:
            targets.append(rig.firewall())
            return targets[0]

        channel = rig.agent().reached_from(rig.platforms[0])
        with _connections(rig, size) as client:
            report = migrate(source, instantiate, channel, lambda: rig.lead_through(targets[0]))
            done = _roll(client)
    return {
        "connections": done["connections"],
        "lost": done["lost"],
        "downtime_s": report.downtime_s,
        "copy_s": report.copy_s,
        "total_s": report.total_s,
        "bytes": report.bytes,
        "rounds": len(report.rounds),
        "packets_lost": report.lost,
        "delay": delay,
    }


@contextmanager
def _connections(rig: Any, size: int) -> Iterator[subprocess.Popen[str]]:
    """Live connections from the client to the server; the process that has them."""
    from testbed.vnf.rig import SERVER

    arguments = ["--connections", str(size), "--rate", str(_RATE), "--opening", "2500"]
    with _program(rig.server, "server"), _program(rig.client, "client", SERVER, *arguments) as it:
        yield it


@contextmanager
def _program(place: Any, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "traffic.many", *arguments]
    process = place.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        _until(process, "ready")
        yield process
    finally:
        process.kill()
        process.communicate()


def _roll(client: subprocess.Popen[str]) -> dict[str, Any]:
    assert client.stdin
    client.stdin.write('{"command": "finish"}\n')
    client.stdin.flush()
    return _until(client, "done")


def _until(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    for line in process.stdout or ():
        message: dict[str, Any] = json.loads(line)
        if message["kind"] == kind:
            return message
    raise click.ClickException(f"the traffic ended before it was {kind}")


def _table(rows: list[dict[str, Any]]) -> str:
    head = [
        "connections", "of them lost", "downtime ms", "of it the last copy ms", "total ms",
        "bytes", "bytes a connection", "rounds", "packets lost",
    ]  # fmt: skip
    return table(
        head,
        [
            [
                row["connections"],
                row["lost"],
                row["downtime_s"] * 1e3,
                row["copy_s"] * 1e3,
                row["total_s"] * 1e3,
                row["bytes"],
                row["bytes"] / row["connections"],
                row["rounds"],
                row["packets_lost"],
            ]
            for row in rows
        ],
    )
