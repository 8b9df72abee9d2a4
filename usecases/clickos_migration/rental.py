"""Capacity at operator B, rented and given back: M2 as the next hop, a way to it, compression.

What M1 has redirected travels between the data centres over the interconnect, as it is or, with
processing, through the compressing tunnel between them (`tunnel`), and on from M2 over operator
B's wide-area path.  When to rent, and whom to redirect, is the orchestrator's to decide.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from testbed.mptcp.redirection.nexthop import NextHop
from testbed.run import NodeProcess, Recorder
from usecases.clickos_migration.prices import Plan
from usecases.clickos_migration.wiring import facing, gateway, subnet

_DEVICE = "squeeze"
_STOP_S = 10.0


class Rental:
    """Rented capacity that `start` makes and `stop` gives back, each once.

    `function_s` is for how long functions were rented, added up over them; `tunnel` holds the
    accounts of the tunnel's two ends, dc1's first, once it has stopped.
    """

    def __init__(self, net: Any, record: Recorder, name: str, clients: int) -> None:
        self._net, self._record, self._name = net, record, name
        self._clients = [subnet(net, f"client{number}") for number in range(1, clients + 1)]
        self._ends: list[NodeProcess] = []
        self._began = 0.0
        self.hop: NextHop | None = None
        self.plan: Plan | None = None
        self.function_s = 0.0
        self.tunnel: list[dict[str, Any]] = []

    async def start(self, plan: Plan) -> NextHop:
        """Rent by `plan`; connections can be redirected to what is returned."""
        self._began, self.plan = time.monotonic(), plan
        if plan is Plan.PROCESSING:
            self._ends += await asyncio.gather(self._end("dc1", "dc2"), self._end("dc2", "dc1"))
        self._route(compressed=plan is Plan.PROCESSING)
        address = str(self._net["m2"].IP())
        self.hop = NextHop(self._net["m2"].netns, address, outward=address)
        return self.hop

    async def _end(self, side: str, other: str) -> NodeProcess:
        own, there = (str(facing(self._net, each, "dci").ip) for each in (side, other))
        end = await NodeProcess.start(
            self._net[side],
            [sys.executable, "-m", "usecases.clickos_migration.tunnel", _DEVICE,
             "--local", own, "--remote", there],
            self._record,
            name=f"{self._name}.{side}",
        )  # fmt: skip
        await end.ready()
        return end

    def _route(self, *, compressed: bool) -> None:
        """Lead what goes to M2, and what comes back from there, over the interconnect."""
        net, hop = self._net, subnet(self._net, "m2")
        net["m1"].add_route(hop, via=gateway(net, "m1", "dc1"))
        ways = [("dc1", hop, "dci"), *(("dc2", client, "dci") for client in self._clients)]
        for node, target, neighbour in ways:
            if compressed:
                net[node].add_route(target, dev=_DEVICE)
            else:
                net[node].add_route(target, via=gateway(net, node, neighbour))
        for client in self._clients:
            net["dci"].add_route(client, via=gateway(net, "dci", "dc1"))

    async def stop(self) -> None:
        """Give everything back."""
        if self.plan is None or self.hop is None:
            return
        self.function_s = self.plan.functions * (time.monotonic() - self._began)
        self.hop.close()
        self._route(compressed=False)
        for end in self._ends:
            await end.send({"command": "stop"})
        self.tunnel = [await end.done(_STOP_S) for end in self._ends]
        self.plan = None
