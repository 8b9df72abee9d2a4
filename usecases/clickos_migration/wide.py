"""The move across the wide area: no address moves, each connection is redirected instead.

The function at data centre 1 is M1 here.  What its inspection knows of a connection decides
where that is redirected to: M2 serves those that ask for films, M3 the others, so what was known
at M1 is known at operator B by the address that a connection comes to.  When none is left, M1
ends, and its connections live on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from testbed.kernel import conntrack_entry
from testbed.kernel.conntrack import ConntrackTable
from testbed.mptcp.counters import Address
from testbed.mptcp.redirection.driver import Redirector
from testbed.mptcp.redirection.messages import Outcome
from testbed.mptcp.redirection.nexthop import NextHop
from testbed.mptcp.redirection.watcher import Flow, Watcher
from testbed.run import Recorder
from testbed.vnf import marks
from testbed.vnf.function import Function
from usecases.clickos_migration.crowds import Crowd
from usecases.clickos_migration.functions import GREETING
from usecases.clickos_migration.migrate_report import WIDE
from usecases.clickos_migration.movers import LightFunction, Site, film_label

if TYPE_CHECKING:
    from usecases.clickos_migration.parameters import ClickosMigrationParameters

_HOPS = {"films": "m2", "others": "m3"}


async def move_wide(
    net: Any, params: ClickosMigrationParameters, record: Recorder, site: Site
) -> None:
    """Open Multipath TCP connections through the function, redirect them all, end it."""
    mover = LightFunction(site)
    await mover.place()
    function = mover.function
    with ExitStack() as stack:
        hops = {kind: stack.enter_context(_hop(net, node)) for kind, node in _HOPS.items()}
        watcher = stack.enter_context(Watcher(function.namespace, "in"))
        half = params.migrate.wide // 2
        crowds = {
            "films": await _crowd(net, params, record, "client1", params.migrate.wide - half),
            "others": await _crowd(net, params, record, "client2", half),
        }
        await asyncio.sleep(params.migrate.before)
        began = record.now()
        outcomes = await _redirect(function, watcher, hops)
        record.event("moved", contender=WIDE, began=began, total_s=record.now() - began)
        record.result("total", record.now() - began, "s", WIDE)
        await mover.remove()
        await asyncio.sleep(params.migrate.after)
        known = {kind: len(hop.watcher.connections) for kind, hop in hops.items()}
        told = {kind: await crowd.finish() for kind, crowd in crowds.items()}
    _tell(record, outcomes, told, known)


def _hop(net: Any, node: str) -> NextHop:
    address = str(net[node].IP())
    return NextHop(net[node].netns, address, outward=address)


async def _crowd(
    net: Any, params: ClickosMigrationParameters, record: Recorder, client: str, count: int
) -> Crowd:
    greeting = ("--greeting", GREETING) if client == "client1" else ()
    return await Crowd.start(
        net, record, name=f"{WIDE}.{client}", client=client, connections=count,
        rate=params.migrate.rate * count / params.migrate.wide, mptcp=True,
        congestion=params.congestion,
        more=("--patience", str(params.migrate.patience), *greeting),
    )  # fmt: skip


async def _redirect(
    function: Function, watcher: Watcher, hops: Mapping[str, NextHop]
) -> list[Outcome]:
    """Redirect every connection to the hop for its kind."""
    films = film_flows(function)
    flows = [f for f, known in watcher.connections.items() if known.session is not None]
    async with Redirector(watcher) as redirector:
        lots = [
            redirector.redirect_many([flow for flow in flows if (flow in films) is asks], hop)
            for asks, hop in ((True, hops["films"]), (False, hops["others"]))
        ]
        reports = await asyncio.gather(*lots)
    return [report.outcome for lot in reports for report in lot]


def film_flows(function: Function) -> set[Flow]:
    """The flows, on their clients' side, that the inspection has labelled."""
    label = film_label(function)
    with ConntrackTable(function.namespace) as table:
        entries = table.dump(mark=(label, marks.LABEL))
    return {
        Flow(
            Address(each.original.source, each.original.source_port),
            Address(each.original.destination, each.original.destination_port),
        )
        for each in conntrack_entry.read(entries)
    }


def _tell(
    record: Recorder,
    outcomes: list[Outcome],
    told: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, int],
) -> None:
    def result(metric: str, value: float, unit: str = "") -> None:
        record.result(metric, value, unit, WIDE)

    result("connections", sum(each["connections"] for each in told.values()))
    result("redirected", outcomes.count(Outcome.REDIRECTED))
    result("lost", sum(each["lost"] for each in told.values()))
    result("slowest", max(each["slowest"] for each in told.values()), "s")
    result("films_before", told["films"]["connections"])
    result("films_after", known["films"])
    result("others_after", known["others"])
