"""What do networks of up to four thousand hosts cost: to bring up, to hold, to be rid of?

Each network in a sandbox of its own, when the kernel has removed the one before.  "first ping" is
the time from the end of start() to the answer, at one host, of the host farthest from it in the
order of names, in IPv4 (its shell and the neighbours' resolution on the way included).  "gone" is
the time from the end of an experiment that stops nothing until the kernel has removed all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import click
from mininet.log import setLogLevel
from mininet.topo import Topo

from benchmarks import _footprint
from benchmarks._compare import alone, print_result, say, settle, table
from testbed.errors import ExperimentError

_SIZES = (10, 30, 100, 300, 1000, 2000, 4000)
_FANOUTS = {10: (1, 10), 30: (1, 30), 100: (2, 10), 300: (2, 17), 1000: (3, 10), 2000: (3, 13),
            4000: (3, 16)}  # fmt: skip
_PODS = (4, 8, 12, 16)
_ROUTERS = (50, 100, 200)


class Case(NamedTuple):
    """A network to measure."""

    name: str
    topology: Callable[[], Topo]
    quick: bool


def cases() -> Iterator[Case]:
    """All of them, kind by kind, small ones first."""
    from topologies.fat_tree import FatTree
    from topologies.random_graph import RandomGraph
    from topologies.star import Star
    from topologies.tree import Tree

    for hosts in _SIZES:
        yield Case(f"star of {hosts}", partial(Star, hosts), hosts in (10, 100))
    for hosts, (depth, fanout) in _FANOUTS.items():
        name = f"tree of {fanout}^{depth}"
        yield Case(name, partial(Tree, depth, fanout), hosts in (10, 100))
    for k in _PODS:
        yield Case(f"fat tree, k = {k}", partial(FatTree, k), k == 4)
    for routers in _ROUTERS:
        name = f"random graph of {routers}"
        yield Case(name, partial(RandomGraph, routers, 4), routers == 50)


@click.command()
@click.option("--only", default="", metavar="WORDS", help="Cases whose names contain this.")
@click.option("--quick", is_flag=True, help="Two or one of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(only: str, quick: bool, as_json: bool) -> None:
    """Bring-up, memory and removal of stars, trees, fat trees and random graphs."""
    rows = []
    for case in cases():
        if only in case.name and (case.quick or not quick):
            say(f"{case.name} ...")
            rows.append({"network": case.name, **measure(case.topology)})
    print_result({"rows": rows}, _table(rows), as_json)


def measure(topology: Callable[[], Topo]) -> dict[str, Any]:
    """What one network took and held."""
    found: dict[str, Any] = alone(_measure, topology)
    settle(patience_s=0)
    return {**found, "gone_s": time.perf_counter() - found.pop("end_s")}


def _measure(topology: Callable[[], Topo]) -> dict[str, Any]:
    from testbed.network import Host, Network

    setLogLevel("critical")
    before = _footprint.kernel_memory()
    cpu = _footprint.processor_seconds()
    start = time.perf_counter()
    net = Network(topology())
    net.start()
    up = time.perf_counter() - start
    user, kernel = (b - a for a, b in zip(cpu, _footprint.processor_seconds(), strict=True))
    hosts = [node for node in net.hosts if isinstance(node, Host)]
    return {
        "hosts": len(hosts),
        "routers": len(net.hosts) - len(hosts),
        "links": len(net.links),
        "up_s": up,
        "kernel_share": kernel / (user + kernel),
        "memory_mb": _footprint.memory(),
        "kernel_mb": _footprint.kernel_memory() - before,
        "files": _footprint.files(),
        "first_ping_s": _first_ping(hosts[0], hosts[-1]),
        "end_s": time.perf_counter(),  # all processes of a machine share this clock
    }


def _first_ping(source: Any, target: Any) -> float:
    start = time.perf_counter()
    answer = source.cmd(f"ping -n -c 1 -W 10 {target.IP()}")
    if "1 received" not in answer:
        raise ExperimentError(f"{source.name} does not reach {target.name}: {answer.strip()}")
    return time.perf_counter() - start


def _table(rows: list[dict[str, Any]]) -> str:
    head = [
        "network", "hosts", "routers", "links", "up s", "of it kernel", "first ping s", "gone s",
        "memory MB", "kernel MB", "files",
    ]  # fmt: skip
    return table(
        head,
        [
            [
                *(row[key] for key in ("network", "hosts", "routers", "links", "up_s")),
                f"{row['kernel_share']:.0%}", row["first_ping_s"], row["gone_s"],
                f"{row['memory_mb']:.0f}", f"{row['kernel_mb']:.0f}", row["files"],
            ]
            for row in rows
        ],
    )  # fmt: skip
