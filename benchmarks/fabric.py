"""What the userspace engine carries, how late frames leave and what that costs.

Frames are offered at a steady rate; beside the fabric stand what bounds it on this machine:

    veth        the same interfaces joined directly, segmentation and checksum offloads off
    forwarder   a process that passes frames on and does nothing else, at the same priority
    fabric      our engine with as many workers as there are processors
    one worker  our engine with one
    ordinary    our engine without real-time priority

TCP is iperf3's, over one link of the fabric and over a bare veth pair in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, NamedTuple

import click
from mininet.topo import Topo

from benchmarks._compare import alone, print_result, say, table
from benchmarks.bank import Bank
from testbed.links import LinkSpec, offloads
from testbed.network import Network

_DELAY = "2ms"


class Load(NamedTuple):
    """Frames of `size` bytes at `pps` frames/s in sum over `links` links."""

    links: int
    size: int
    pps: int


_FULL = [Load(1, 1514, pps) for pps in (82_500, 165_000)]
_SMALL = [Load(20, 64, pps) for pps in (100_000, 300_000)]
_TCP = [(100, "10ms"), (1000, "1ms"), (1000, "20ms")]
_CONTENDERS = ("veth", "forwarder", "fabric", "one worker", "ordinary")


@click.command()
@click.option("--quick", is_flag=True, help="One load of each kind, one second each.")
@click.option("--seconds", default=1.5, help="How long each load lasts.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(quick: bool, seconds: float, as_json: bool) -> None:
    """Frames per second, lag and cost of the userspace engine, against bare interfaces."""
    loads = [_FULL[0], _SMALL[-1]] if quick else _FULL + _SMALL
    frames = []
    for number, load in enumerate(loads):
        turn = number % len(_CONTENDERS)
        for contender in _CONTENDERS[turn:] + _CONTENDERS[:turn]:
            if load.links == 1 and contender == "one worker":
                continue  # one link has one worker anyway
            row = alone(_frames, contender, load, 1.0 if quick else seconds)
            frames.append(row)
            say(
                f"{load.pps} frames/s of {load.size} bytes, {load.links} links, {contender}: "
                f"{row['offered_pps']:.0f} offered, {row['delivered_pps']:.0f} delivered, "
                f"{row['engine_us_a_frame']:.2f} us, lag {_lag(row)} ms"
            )
    flows = []
    for bw, delay in _TCP[:1] if quick else _TCP:
        flow = alone(_flow, bw, delay, seconds) | {"veth_mbps": alone(_bare_flow, seconds)}
        flows.append(flow)
        say(f"TCP over {bw} Mb/s, {delay}: {flow['goodput_mbps']:.0f} Mb/s, lag {_lag(flow)} ms")
    markdown = f"{_frames_table(frames, loads)}\n\n{_flows_table(flows)}"
    print_result({"frames": frames, "tcp": flows}, markdown, as_json)


def _frames(contender: str, load: Load, seconds: float) -> dict[str, Any]:
    kind = contender if contender in ("veth", "forwarder") else "fabric"
    workers = 1 if contender == "one worker" else None
    with Bank(kind, [LinkSpec(delay=_DELAY)] * load.links, workers=workers) as bank:
        if contender == "ordinary":
            for worker in bank.engines.workers():
                os.sched_setscheduler(worker.pid, os.SCHED_OTHER, os.sched_param(0))
        found = bank.load(size=load.size, rate=load.pps, seconds=seconds)
    return {**found, "contender": contender, "asked_pps": load.pps}


# -- TCP -----------------------------------------------------------------------------------------


class _Pair(Topo):
    """Two hosts and a link."""

    def build(self, **link: Any) -> None:
        """One link with these parameters."""
        self.addHost("h1", ip="10.0.0.1/24")
        self.addHost("h2", ip="10.0.0.2/24")
        self.addLink("h1", "h2", **link)


def _flow(bw: float, delay: str, seconds: float) -> dict[str, Any]:
    with Network(_Pair(spec=LinkSpec(bw, delay)), engine="fabric") as net:
        goodput = _iperf(net, seconds)
        lag = net.engines.reports()[0].lag
        assert lag is not None
        return {
            "bw_mbps": bw,
            "delay": delay,
            "goodput_mbps": goodput,
            "lag_p50_ms": lag.p50 * 1e3,
            "lag_p99_ms": lag.p99 * 1e3,
            "lag_p99.9_ms": lag.p999 * 1e3,
            "lag_max_ms": lag.maximum * 1e3,
        }


def _bare_flow(seconds: float) -> float:
    with Network(_Pair()) as net:
        for host in net.hosts:
            offloads.disable(host.netns, *host.nameToIntf)
        return _iperf(net, seconds)


def _iperf(net: Any, seconds: float) -> float:
    """Mb/s that arrive, from h1 to h2, the first two seconds aside (reno, offloads off)."""
    h1, h2 = net.hosts
    server = h2.popen(["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    try:
        h2.cmd("until ss -Htln sport = 5201 | grep -q .; do sleep 0.02; done")
        answer = json.loads(h1.cmd(f"iperf3 -c 10.0.0.2 -C reno -O 2 -J -t {seconds:.0f}"))
    finally:
        server.terminate()
        server.wait()
    received: float = answer["end"]["sum_received"]["bits_per_second"]
    return received / 1e6


# -- tables --------------------------------------------------------------------------------------


def _frames_table(rows: list[dict[str, Any]], loads: list[Load]) -> str:
    head = [
        *("links", "bytes", "asked kframes/s", "contender", "offered", "delivered", "Gb/s"),
        *("delivered / offered", "lag p50, p99, p99.9, max ms"),
        *("engine us/frame", "source us/frame"),
    ]
    lines = [
        _frames_cells(row)
        for load in loads
        for contender in _CONTENDERS
        for row in rows
        if (row["links"], row["asked_pps"], row["contender"]) == (load.links, load.pps, contender)
    ]
    return table(head, lines)


def _frames_cells(row: dict[str, Any]) -> list[object]:
    return [
        row["links"],
        row["size"],
        row["asked_pps"] / 1e3,
        row["contender"],
        row["offered_pps"] / 1e3,
        row["delivered_pps"] / 1e3,
        row["delivered_pps"] * row["size"] * 8 / 1e9,
        f"{row['delivered_share']:.4f}",
        _lag(row),
        row["engine_us_a_frame"] or None,
        row["source_us_a_frame"],
    ]


def _lag(row: dict[str, Any]) -> str | None:
    values = [row[f"lag_{name}_ms"] for name in ("p50", "p99", "p99.9", "max")]
    return None if None in values else ", ".join(f"{value:.2f}" for value in values)


def _flows_table(rows: list[dict[str, Any]]) -> str:
    head = [
        *("bw Mb/s", "delay", "TCP goodput Mb/s", "of the rate", "bare veth Mb/s"),
        "lag p50, p99, p99.9, max ms",
    ]
    return table(
        head,
        [
            [
                row["bw_mbps"],
                row["delay"],
                row["goodput_mbps"],
                f"{row['goodput_mbps'] / row['bw_mbps']:.1%}",
                row["veth_mbps"],
                _lag(row),
            ]
            for row in rows
        ],
    )
