"""Variant migrate: a middlebox moves from data centre 1 to data centre 2 while connections live.

One after the other on the same network, each with connections of its own:

    function     the function and its state, for every number of connections
    forgetful    the same function, begun anew at the other place
    vm           the same function in a virtual machine (`movers` has all three)
    redirected   no address moves: M1 redirects each connection to a next hop at operator B

What is measured is what clients see, what the interconnect carries, and what movers report.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from testbed.errors import ExperimentError
from testbed.guests import missing
from testbed.run import Recorder
from traffic.many import PORT
from usecases.clickos_migration.crowds import Crowd, serve
from usecases.clickos_migration.functions import GREETING
from usecases.clickos_migration.migrate_report import CLAIMS as CLAIMS
from usecases.clickos_migration.migrate_report import FIGURES as FIGURES
from usecases.clickos_migration.migrate_report import FORGETFUL, FUNCTION, VM
from usecases.clickos_migration.movers import (
    Forgetful,
    LightFunction,
    Moved,
    Mover,
    Site,
    VirtualMachine,
)
from usecases.clickos_migration.steering import Steering
from usecases.clickos_migration.tally import Tally
from usecases.clickos_migration.transfers import prepare
from usecases.clickos_migration.wide import move_wide
from usecases.clickos_migration.wiring import interconnect_bytes, subnet

if TYPE_CHECKING:
    from usecases.clickos_migration.parameters import ClickosMigrationParameters

ABOUT = "a middlebox moves between data centres with its connections' state"
QUICK = {
    "migrate.connections": (1, 100, 1000),
    "migrate.wide": 40,
    "migrate.before": 0.7,
    "migrate.after": 1.2,
    "migrate.opening": 1500,
    "migrate.patience": 2.0,
}

CLIENTS = ("client1", "client2")  # of those that ask for films, and the others
_EVERY_S = 0.02  # between samples: a move's downtime is to be seen
_DRAIN_S = 0.3  # for the last acknowledgements


async def run(net: Any, params: ClickosMigrationParameters, record: Recorder) -> None:
    """One trial: all contenders.  Where there is no guest, the virtual machine is left out."""
    prepare([net["server1"], *(net[name] for name in CLIENTS)])
    server = await serve(net, record, mptcp=True, congestion=params.congestion)
    steering = Steering(net, CLIENTS)
    site = Site(net, steering, [subnet(net, name) for name in CLIENTS])
    lacks = missing("function")
    if lacks:
        record.event("no-guest", why=lacks)
    record.start_clock()
    attempts = [(FUNCTION, number) for number in params.migrate.connections]
    attempts += [(FORGETFUL, number) for number in params.migrate.baseline]
    attempts += [(VM, number) for number in params.migrate.baseline if not lacks]
    for place, (name, number) in enumerate(attempts):
        record.progress(place / (len(attempts) + 1), f"{name}, {number} connections")
        await Attempt(net, params, record, name, number).run(_mover(name, site, record))
    record.progress(len(attempts) / (len(attempts) + 1), "redirected")
    await move_wide(net, params, record, site)
    await server.send({"command": "stop"})
    record.result("corrupt", (await server.done(10))["corrupt"], "")


def _mover(name: str, site: Site, record: Recorder) -> Mover:
    if name == VM:
        return VirtualMachine(site, record.log_path("vm"))
    return LightFunction(site) if name == FUNCTION else Forgetful(site)


class Attempt:
    """One move with `number` live connections, half of which ask for films."""

    def __init__(
        self,
        net: Any,
        params: ClickosMigrationParameters,
        record: Recorder,
        name: str,
        number: int,
    ) -> None:
        self._net, self._params, self._record = net, params, record
        self._number = number
        self.source = f"{name}-{number}"
        self._told: list[tuple[str, float, str]] = []
        self._crowds: list[Crowd] = []

    async def run(self, mover: Mover) -> None:
        """Put the mover in place, open the connections, move, count what is left."""
        try:
            await mover.place()
            hosts = [self._net[name] for name in ("server1", *CLIENTS)]
            with Tally(hosts, PORT) as tally:
                began = await self._move(mover, tally)
        finally:
            await asyncio.gather(*(crowd.stop() for crowd in self._crowds))
            await mover.remove()
        self._tell_clients(began)
        for metric, value, unit in self._told:
            self._record.result(metric, value, unit, self.source)

    async def _move(self, mover: Mover, tally: Tally) -> float:
        """Move with connections live; when that began."""
        migrate = self._params.migrate
        await self._arrive()
        # once round, so that each connection has shown what it asks for
        await asyncio.sleep(migrate.before + self._number / migrate.rate)
        films, carried = await mover.found(), interconnect_bytes(self._net)
        began = self._record.now()
        moved = await mover.move()
        self._tell_move(moved, began, interconnect_bytes(self._net) - carried)
        await asyncio.sleep(migrate.after)
        await asyncio.gather(*(crowd.finish() for crowd in self._crowds))
        await asyncio.sleep(_DRAIN_S)
        self._told.append(("packets_lost", tally.missing(), "packets"))
        # entries of closed connections stay for a while, and with them what was known
        self._told += [("films_before", films, ""), ("films_after", await self._known(mover), "")]
        return began

    async def _known(self, mover: Mover) -> int:
        """What it knows after the move; nothing if it does not answer any more."""
        try:
            known = await mover.labelled()
        except ExperimentError as error:
            self._record.event("died", contender=self.source, why=str(error))
            known = 0
        return known

    async def _arrive(self) -> None:
        films = (self._number + 1) // 2
        halves = [(CLIENTS[0], films, GREETING), (CLIENTS[1], self._number - films, "")]
        self._crowds += await asyncio.gather(
            *(self._crowd(client, count, greeting) for client, count, greeting in halves if count)
        )

    async def _crowd(self, client: str, count: int, greeting: str) -> Crowd:
        migrate = self._params.migrate
        more = ["--every", str(_EVERY_S), "--patience", str(migrate.patience)]
        more += ["--opening", str(migrate.opening / 2)]
        more += ["--greeting", greeting] if greeting else []
        return await Crowd.start(
            self._net, self._record, name=f"{self.source}.{client}", client=client,
            connections=count, rate=migrate.rate * count / self._number, mptcp=False,
            congestion=self._params.congestion, more=tuple(more),
        )  # fmt: skip

    def _tell_move(self, moved: Moved, began: float, carried: int) -> None:
        switched = moved.switched_s - self._record.epoch
        self._record.event("moved", contender=self.source, began=began, switched=switched,
                           total_s=moved.total_s, downtime_s=moved.downtime_s)  # fmt: skip
        self._told += [
            ("downtime", moved.downtime_s, "s"),
            ("total", moved.total_s, "s"),
            ("payload", moved.bytes, "B"),
            ("carried", carried, "B"),
        ]

    def _tell_clients(self, began: float) -> None:
        told = [crowd.results for crowd in self._crowds]
        self._told += [
            ("connections", sum(each["connections"] for each in told), ""),
            ("lost", sum(each["lost"] for each in told), ""),
            ("retransmissions", sum(each["retransmissions"] for each in told), "packets"),
            ("silence", max(each["silence_max"] for each in told), "s"),
            ("slowest", max(each["slowest"] for each in told), "s"),
        ]
        waits = [wait for each in told for wait in each["each"]["slowest"]]
        self._record.samples((began, self.source, "slowest_of_each", wait, "s") for wait in waits)
