"""What does a link cost packets?  TCP throughput and round-trip time, against a bare veth pair.

Two hosts and, between them, in turn:

    bare veth   two namespaces and a veth pair by two netlink requests, none of this project's
                classes in the way
    plain       a link of ours without any impairment: a veth pair too
    bridge      two plain links and a Linux bridge
    ovs         two plain links and Open vSwitch's userspace datapath
    htb         a link of the kernel's shaper at a rate it is not to reach
    fabric      the userspace engine, without a rate

iperf3 with one TCP connection (cubic), then ping; every contender in every round, each in a
sandbox of its own.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import click

from benchmarks._compare import Ratio, alone, interleaved, print_result, say, table
from testbed.errors import ExperimentError
from testbed.network import ovs

_FASTEST_MBPS = 1_000_000
_PINGS = 200


class Figures(NamedTuple):
    """Of one contender in one round: TCP payload in Mb/s, median round trip in ms."""

    mbps: float
    rtt_ms: float


@click.command()
@click.option("--rounds", type=click.IntRange(1), help="Rounds of all contenders (3).")
@click.option("--seconds", type=float, help="Of TCP, each time (2).")
@click.option("--quick", is_flag=True, help="Two rounds of one second.")
@click.option("--json", "as_json", is_flag=True, help="Print every round as JSON.")
def command(rounds: int | None, seconds: float | None, quick: bool, as_json: bool) -> None:
    """TCP throughput and round trips over each kind of link against a bare veth pair."""
    seconds = seconds or (1.0 if quick else 2.0)
    contenders = {name: partial(_take, name, seconds) for name in _MAKERS}
    if lacks := alone(ovs.missing):
        say(f"ovs is left out: {lacks}")
        del contenders["ovs"]
    found = interleaved(contenders, rounds or (2 if quick else 3))
    facts = {name: [figures._asdict() for figures in each] for name, each in found.items()}
    print_result(facts, _table(found), as_json)


def _take(name: str, seconds: float) -> Figures:
    say(f"{name} ...")
    return alone(_MAKERS[name], seconds)


def _bare(seconds: float) -> Figures:
    from testbed.kernel import NetworkNamespace, RtNetlink
    from testbed.kernel import rtnetlink as rt

    ends = [NetworkNamespace.create() for _ in range(2)]
    home = RtNetlink()
    home.request(rt.new_veth(*(rt.VethEnd("eth0", 5, namespace.fd) for namespace in ends)))
    for number, namespace in enumerate(ends, 1):
        with namespace:
            inside = RtNetlink()
        address = ipaddress.ip_interface(f"10.0.0.{number}/8")
        inside.batch([rt.add_address(5, address), rt.set_link(5, up=True)])

    def popen(side: int, argv: list[str]) -> subprocess.Popen[str]:
        with ends[side]:
            return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    return _measure(popen, "10.0.0.2", seconds)


def _ours(seconds: float, *, switch: str = "", engine: str = "auto", **link: Any) -> Figures:
    from mininet.topo import SingleSwitchTopo, Topo

    from testbed.network import Bridge, Network, OVSSwitch

    class Pair(Topo):
        def build(self) -> None:
            self.addLink(self.addHost("h1"), self.addHost("h2"), **link)

    topo = SingleSwitchTopo(2) if switch else Pair()
    kind = OVSSwitch if switch == "ovs" else Bridge
    with Network(topo, engine=engine, switch=kind) as net:
        client, server = net["h1"], net["h2"]

        def popen(side: int, argv: list[str]) -> subprocess.Popen[str]:
            node = (client, server)[side]
            started: subprocess.Popen[str] = node.popen(argv, stdout=subprocess.PIPE, text=True)
            return started

        return _measure(popen, server.IP(), seconds)


_MAKERS: dict[str, Callable[[float], Figures]] = {
    "bare veth": _bare,
    "plain": _ours,
    "bridge": partial(_ours, switch="bridge"),
    "ovs": partial(_ours, switch="ovs"),
    "htb": partial(_ours, bw=_FASTEST_MBPS),
    "fabric": partial(_ours, engine="fabric", delay=0),
}


def _measure(
    popen: Callable[[int, list[str]], subprocess.Popen[str]], address: str, seconds: float
) -> Figures:
    """Ping first, which also waits for the path; then TCP from side 0 to side 1."""
    answer = popen(0, ["ping", "-q", "-c", "3", "-i", "0.2", "-w", "10", address]).communicate()[0]
    words = ["ping", "-n", "-c", str(_PINGS), "-i", "0.002", "-W", "1", address]
    answer = popen(0, words).communicate()[0]
    trips = [float(trip) for trip in re.findall(r"time=([\d.]+) ms", answer)]
    if not trips:
        raise ExperimentError(f"no ping to {address} was answered: {answer.strip()}")
    listener = popen(1, ["iperf3", "-s", "-1", "--forceflush"])
    assert listener.stdout is not None
    while "listening" not in (line := listener.stdout.readline()):
        if not line:
            raise ExperimentError("iperf3 did not begin to listen")
    command = ["iperf3", "-J", "-C", "cubic", *apart(), "-t", str(seconds), "-c", address]
    client = popen(0, command)
    report = json.loads(client.communicate()[0])
    listener.communicate()
    if "error" in report:
        raise ExperimentError(f"iperf3: {report['error']}")
    return Figures(report["end"]["sum_received"]["bits_per_second"] / 1e6, median(trips))


def apart() -> list[str]:
    """Client and server on a processor each: left to the scheduler, rates differ twofold."""
    first, *others = sorted(os.sched_getaffinity(0))
    return ["-A", f"{first},{others[0]}"] if others else []


def _table(found: dict[str, list[Figures]]) -> str:
    first = found["bare veth"]
    rows = [
        [
            name,
            median(each.mbps for each in figures),
            Ratio.of([each.mbps for each in figures], [each.mbps for each in first]),
            median(each.rtt_ms for each in figures),
            Ratio.of([each.rtt_ms for each in figures], [each.rtt_ms for each in first]),
        ]
        for name, figures in found.items()
    ]
    return table(["between two hosts", "TCP Mb/s", "of bare", "RTT ms", "of bare"], rows)
