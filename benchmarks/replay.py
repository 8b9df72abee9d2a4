"""Are traces played when they should be, and do links deliver what a trace lets through?"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from benchmarks._compare import print_result, say, table
from testbed.links.synthetic import deliveries_of, random_walk
from testbed.links.trace import Row, Trace, deliveries
from testbed.sandbox import call

_LINKS: dict[str, dict[str, Any]] = {
    "htb": {"bw": 10},
    "fabric": {"bw": 10, "delay": "5ms"},
}
_FLOOD = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for _ in range(10):
        sender.sendto(bytes(1472), (sys.argv[1], 9))
    time.sleep(0.003)
"""


@click.command()
@click.option("--quick", is_flag=True, help="Three seconds a trace.")
@click.option("--seconds", default=8.0, help="How long each trace is played.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(quick: bool, seconds: float, as_json: bool) -> None:
    """How late changes of a replay come, and delivered bytes against the trace's."""
    seconds = 3.0 if quick else seconds
    rows = []
    for engine in _LINKS:
        for name, trace in _traces().items():
            say(f"{engine}: {name}, {seconds:g} s ...")
            rows.append({"engine": engine, "trace": name, **call(_play, engine, trace, seconds)})
    print_result({"rows": rows}, _table(rows), as_json)


def _traces() -> dict[str, Trace]:
    walk = random_walk(seconds=30, mean_mbps=10, seed=5)
    rates = Trace("walk", tuple(Row(at_s=r.at_s, rate_bps=r.rate_bps) for r in walk.rows), 30.0)
    windows = deliveries("windows", deliveries_of(rates))
    fast = deliveries("fast", deliveries_of(rates), window_s=0.01)
    return {"CSV, every 100 ms": rates, "deliveries, 50 ms": windows, "deliveries, 10 ms": fast}


def _play(engine: str, trace: Trace, seconds: float) -> dict[str, Any]:
    from testbed.network import Network

    net = Network(engine="fabric" if engine == "fabric" else "auto")
    for name in ("h1", "h2"):
        net.addHost(name)
    link = net.addLink("h1", "h2", queue="50ms", **_LINKS[engine])
    with net:
        net.staticArp()
        flood = net["h1"].popen([sys.executable, "-c", _FLOOD, net["h2"].IP()])
        player = link.replay(trace, direction="h1", loop=True)
        time.sleep(0.5)
        before, began = _delivered(net), time.monotonic()
        time.sleep(seconds)
        after, ended = _delivered(net), time.monotonic()
        link.stop_replay()
        flood.kill()
        flood.communicate()
    due = trace.bits(ended - player.epoch) - trace.bits(began - player.epoch)
    late = player.lateness
    return {
        "changes": late.total,
        "late_p50_ms": late.p50 * 1e3,
        "late_p99_ms": late.p99 * 1e3,
        "late_max_ms": late.maximum * 1e3,
        "delivered_ratio": (after - before) * 8 / due,
    }


def _delivered(net: Any) -> int:
    there: int = net.engines.reports()[0].delivered_bytes
    return there


def _table(rows: list[dict[str, Any]]) -> str:
    head = ["engine", "trace", "changes", "late p50, p99, max ms", "delivered / trace"]
    return table(head, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[object]:
    late = ", ".join(f"{row[f'late_{part}_ms']:.2f}" for part in ("p50", "p99", "max"))
    return [row["engine"], row["trace"], row["changes"], late, f"{row['delivered_ratio']:.3f}"]
