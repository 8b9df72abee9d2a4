"""How do live connections take being redirected, and what does watching for them cost?

Many Multipath TCP connections carry verified bytes through m1, over links that lose packets; all
are redirected to m2, at once as far as the redirector lets them.  Counted are those redirected and
those whose every byte arrived.  The gap a redirection adds is a connection's longest time without
an arrival from its announcement until a second after its end, less its longest in a span as long
before; negative where losses did worse before.  Traffic runs in a process of its own, at a rate
that two processors can emulate: how late the emulated links were is told too.

Repeated: one connection is redirected again and again (`_repeated`).

Watching: a bulk transfer through m1, with and without the watcher's filter.
"""

from __future__ import annotations

import asyncio
import math
import socket
import statistics
import threading
import time
from collections.abc import Iterable
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from typing import Any

import click

from benchmarks._compare import Ratio, alone, interleaved, print_result, say, table

_LOSS_PERCENT = 1.0
_BEFORE_S, _AFTER_S, _PATIENCE_S = 2.5, 1.0, 60.0
_INTERVAL_S, _CHUNK = 0.05, 500
_DEFAULT = ((0.02, True), (0.08, False))
_QUICK = ((0.02, True), (0.02, False))
_FULL = tuple((rtt_s, up) for rtt_s in (0.0, 0.02, 0.08, 0.16) for up in (True, False))
_BULK_S = 1.0
_MOST_REPEATED = 24


@click.command()
@click.option("--quick", is_flag=True, help="One round trip time, fewer connections.")
@click.option("--full", is_flag=True, help="Round trips of 0 to 160 ms, both directions.")
@click.option("--tear-down", default="both", type=click.Choice(["rst", "mp_prio", "both"]))
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(quick: bool, full: bool, tear_down: str, as_json: bool) -> None:
    """Live connections redirected: survivors, join times, added gaps; the cost of watching."""
    from benchmarks._repeated import survived

    rows = []
    cases = _QUICK if quick else _FULL if full else _DEFAULT
    for number, (rtt_s, up) in enumerate(cases, 1):
        direction = "up" if up else "down"
        say(f"round trip {rtt_s * 1e3:.0f} ms, {direction}: {number} of {len(cases)} ...")
        rows.append(alone(_redirect, rtt_s, up, 50 if quick else 200, tear_down))
    say("one connection again and again ...")
    repeated = [alone(survived, user_space, _MOST_REPEATED) for user_space in (False, True)]
    say("watching a bulk transfer ...")
    rates = interleaved(
        {name: lambda on=on: alone(_bulk, on) for name, on in (("none", False), ("keys", True))},  # type: ignore[misc]
        3 if full else 2,
    )
    cost = Ratio.of(rates["keys"], rates["none"])
    text = (
        f"{_table(rows)}\n\n{_repeated_table(repeated)}\n\n"
        f"Rate of a bulk transfer with the watcher against none: {cost}"
    )
    facts = {"redirections": rows, "repeated": repeated, "watching": list(cost)}
    print_result(facts, text, as_json)


def _table(rows: list[dict[str, Any]]) -> str:
    return table(
        ["RTT ms", "data goes", "connections", "redirected", "whole", "join ms, median",
         "added gap ms, median", "added gap ms, 90%", "2 RTT + 60 ms", "links late ms, 99%"],
        [
            [f"{row['rtt_s'] * 1e3:.0f}", row["direction"], row["connections"],
             row["redirected"], row["whole"], 1e3 * row["join_s"], 1e3 * row["added_gap_s"],
             1e3 * row["added_gap_p90_s"], f"{2e3 * row['rtt_s'] + 60:.0f}",
             1e3 * row["late_p99_s"]]
            for row in rows
        ],
    )  # fmt: skip


def _repeated_table(rows: list[dict[str, Any]]) -> str:
    head = ["path manager at the client", "redirections tried", "survived", "whole", "then"]
    return table(
        head,
        [
            [row["manager"], row["tried"], row["redirected"], row["whole"], row["then"] or None]
            for row in rows
        ],
    )


# -- redirections --------------------------------------------------------------------------------


def _redirect(rtt_s: float, up: bool, count: int, tear_down: str) -> dict[str, Any]:
    """One row."""
    from benchmarks._detour import M2, M2_OUTWARD, Detour
    from testbed.mptcp.redirection.messages import Outcome
    from testbed.mptcp.redirection.nexthop import NextHop
    from testbed.mptcp.redirection.watcher import Watcher

    with (
        Detour(rtt_s=rtt_s, loss=_LOSS_PERCENT) as lab,
        Watcher(lab["m1"]) as watcher,
        NextHop(lab["m2"], M2, outward=M2_OUTWARD) as hop,
    ):
        context = get_context("fork")
        ours, theirs = context.Pipe()
        traffic = context.Process(target=_traffic, args=(theirs, lab, count, up))
        traffic.start()
        theirs.close()
        flows = ours.recv()
        time.sleep(_BEFORE_S)
        ended = asyncio.run(_all(watcher, hop, flows, tear_down))
        time.sleep(_AFTER_S)
        reports = [report for report, _ended_s in ended]
        ours.send([(at_s - (report.total_s or 0.0), at_s + _AFTER_S) for report, at_s in ended])
        found = ours.recv()
        traffic.join()
        late_s = lab.lag.quantile(0.99)
    added = sorted(during - before for _whole, during, before in found)
    return {
        "rtt_s": rtt_s,
        "direction": "up" if up else "down",
        "connections": count,
        "redirected": sum(report.outcome is Outcome.REDIRECTED for report in reports),
        "whole": sum(whole for whole, _during, _before in found),
        "join_s": _median(r.join_s for r in reports if r.join_s is not None),
        "added_gap_s": statistics.median(added),
        "added_gap_p90_s": added[int(0.9 * len(added))],
        "late_p99_s": late_s,
    }


def _median(values: Iterable[float]) -> float:
    return statistics.median(list(values) or [math.nan])


async def _all(watcher: Any, hop: Any, flows: list[Any], tear_down: str) -> list[tuple[Any, float]]:
    """Reports, and when each redirection ended (CLOCK_MONOTONIC, s)."""
    from testbed.mptcp.redirection.driver import Redirector

    async with Redirector(watcher) as redirector:

        async def one(flow: Any) -> tuple[Any, float]:
            report = await redirector.redirect(flow, hop, tear_down=tear_down)
            return report, time.monotonic()

        return await asyncio.gather(*map(one, flows))


def _traffic(pipe: Pipe, lab: Any, count: int, up: bool) -> None:
    from benchmarks._detour import PORT, SERVER
    from benchmarks._transfers import Transfers

    with Transfers(
        lab["client"],
        lab["server"],
        (SERVER[0], PORT),
        count=count,
        up=up,
        chunk=_CHUNK,
        interval_s=_INTERVAL_S,
    ) as transfers:
        pipe.send([each.flow for each in transfers.each])
        spans = pipe.recv()
        transfers.finish(_PATIENCE_S)
        pipe.send(
            [
                (
                    each.whole,
                    each.longest_gap_s(began_s, ended_s),
                    each.longest_gap_s(2 * began_s - ended_s, began_s),
                )
                for each, (began_s, ended_s) in zip(transfers.each, spans, strict=True)
            ]
        )


# -- watching ------------------------------------------------------------------------------------


def _bulk(watched: bool) -> float:
    """Bytes a second of one transfer as fast as it goes through m1."""
    from benchmarks._detour import PORT, SERVER, Detour
    from testbed.mptcp import sockets
    from testbed.mptcp.redirection.watcher import Watcher

    with Detour() as lab:
        watcher = Watcher(lab["m1"]) if watched else None
        with lab["server"]:
            listener = sockets.listen((SERVER[0], PORT), congestion="reno")
        with lab["client"]:
            client = sockets.connect((SERVER[0], PORT), congestion="reno")
        server, _peer = listener.accept()
        sender = threading.Thread(target=_pour, args=(client,))
        sender.start()
        taken, until_s = 0, time.monotonic() + _BULK_S
        while time.monotonic() < until_s:
            taken += len(server.recv(1 << 20))
        server.close()
        sender.join()
        if watcher is not None:
            watcher.close()
    return taken / _BULK_S


def _pour(sock: socket.socket) -> None:
    try:
        sock.settimeout(0.5)
        while True:
            sock.sendall(bytes(1 << 16))
    except OSError:  # the receiver has had enough, and reads no more
        sock.close()
