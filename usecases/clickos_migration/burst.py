"""Variant burst: a flash crowd hits operator A, who rents capacity at operator B meanwhile.

The same crowds of live connections come, one after the other on the same network, to

    small           A's direct path, too small for the crowd
    large           a direct path provisioned for the crowd, all the time
    dear-compute    the small one, and capacity rented at B at these prices
    dear-network    the same at those prices

M1 redirects connections, live ones and new ones, to what is rented.  What is decided, and by
which prices, is in `orchestrator` and `prices`; who carries it out in `operator` and `rental`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from testbed.mptcp.redirection.messages import Outcome
from testbed.run import Recorder
from usecases.clickos_migration.burst_report import CLAIMS as CLAIMS
from usecases.clickos_migration.burst_report import (
    CONTENDERS,
    DEAR_COMPUTE,
    DEAR_NETWORK,
    LARGE,
)
from usecases.clickos_migration.burst_report import FIGURES as FIGURES
from usecases.clickos_migration.crowds import Crowd, serve
from usecases.clickos_migration.operator import Operator
from usecases.clickos_migration.prices import Bill, Prices
from usecases.clickos_migration.transfers import prepare
from usecases.clickos_migration.wiring import facing, interconnect_bytes, received

if TYPE_CHECKING:
    from usecases.clickos_migration.parameters import ClickosMigrationParameters

ABOUT = "a flash crowd, and capacity rented for it at another operator"
QUICK = {"burst.lead": 1.5, "burst.spacing": 2.0, "burst.stay": 3.5, "burst.tail": 1.0}

_MESSAGE = 4096  # bytes of an exchange, each way
_WINDOW = 4  # exchanges of a connection under way; users ask for no more before
_OPENING = 80  # connections of a wave that arrive in a second
_LOOK_S = 0.1
_SETTLE_S = 0.5


async def run(net: Any, params: ClickosMigrationParameters, record: Recorder) -> None:
    """One trial: every contender, with crowds of its own."""
    clients = [net[f"client{number}"] for number in range(1, params.burst.clients + 1)]
    prepare([net["server1"], *clients])
    server = await serve(net, record, mptcp=True, congestion=params.congestion)
    record.start_clock()
    for number, name in enumerate(CONTENDERS):
        record.progress(number / len(CONTENDERS), name)
        contender = Contender(net, params, record, name)
        await contender.run()
        contender.tell()
        await asyncio.sleep(_SETTLE_S)
    await server.send({"command": "stop"})
    record.result("corrupt", (await server.done(10))["corrupt"], "")


class Contender:
    """One contender's share of a trial."""

    def __init__(
        self, net: Any, params: ClickosMigrationParameters, record: Recorder, name: str
    ) -> None:
        self.name = name
        self._net, self._params, self._record = net, params, record
        self._own_mbps = params.burst.large if name == LARGE else params.paths.direct_bw
        self._scenarios: dict[str, Prices] = {
            DEAR_COMPUTE: params.burst.dear_compute.prices,
            DEAR_NETWORK: params.burst.dear_network.prices,
        }
        self._crowds: list[Crowd] = []
        self._asking = 0  # connections that ask for something at the moment
        self._asked_mbit = 0.0
        self._bill = Bill()
        self._operator: Operator | None = None

    async def run(self) -> None:
        """Let the crowds come and go."""
        link = facing(self._net, "transit", "far").link
        link.update(bw=self._own_mbps)
        if self.name in self._scenarios:
            self._operator = Operator(
                self._net, self._record, self.name,
                self._params.burst.policy(self._own_mbps), self._scenarios[self.name],
                self._params.burst.clients,
            )  # fmt: skip
        carried, began = interconnect_bytes(self._net), time.monotonic()
        self._record.event("contender", name=self.name)
        looking = asyncio.create_task(self._look())
        try:
            await self._come_and_go()
        finally:
            looking.cancel()
            await asyncio.wait([looking])
        self._bill.owned_mbps_s = self._own_mbps * (time.monotonic() - began)
        if self._operator is not None:
            await self._operator.close()
            self._bill.function_s = self._operator.rental.function_s
        self._bill.carried_mbit = (interconnect_bytes(self._net) - carried) * 8e-6
        link.update(bw=self._params.paths.direct_bw)

    async def _come_and_go(self) -> None:
        burst = self._params.burst
        base = await self._arrive("base", 1, burst.base)
        await asyncio.sleep(burst.lead / 2)
        if self._operator is not None:
            await self._operator.learn()
        await asyncio.sleep(burst.lead / 2)
        waves = []
        for number, count in enumerate(burst.waves, 1):
            arriving = asyncio.create_task(self._arrive(f"wave{number}", number + 1, count))
            await asyncio.sleep(burst.spacing if number < len(burst.waves) else burst.stay)
            waves.append(await arriving)
        await asyncio.gather(*(self._leave(*each) for each in waves))
        await asyncio.sleep(burst.tail)
        await self._leave(*base)

    async def _arrive(self, crowd: str, client: int, count: int) -> tuple[Crowd, int]:
        rate = count * self._params.burst.demand * 1e6 / 8 / _MESSAGE
        started = await Crowd.start(
            self._net, self._record, name=f"{self.name}.{crowd}", client=f"client{client}",
            connections=count, rate=rate, mptcp=True, congestion=self._params.congestion,
            more=("--size", str(_MESSAGE), "--window", str(_WINDOW), "--text",
                  "--opening", str(_OPENING)),
        )  # fmt: skip
        self._asking += count
        self._crowds.append(started)
        return started, count

    async def _leave(self, crowd: Crowd, count: int) -> None:
        self._asking -= count
        await crowd.finish()

    async def _look(self) -> None:
        """Every 100 ms: what is asked for, what the own path carries; let the operator see it."""
        ends = (("transit", "far"), ("far", "transit"))
        before, last = [received(self._net, *end) for end in ends], time.monotonic()
        due = last
        while True:
            due += _LOOK_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now, after = time.monotonic(), [received(self._net, *end) for end in ends]
            rates = [(b - a) * 8e-6 / (now - last) for a, b in zip(before, after, strict=True)]
            asked_mbps = self._asking * self._params.burst.demand
            self._asked_mbit += asked_mbps * (now - last)
            self._record.sample(self.name, "demand", asked_mbps * 1e6, "bit/s")
            self._record.sample(self.name, "own_path", max(rates) * 1e6, "bit/s")
            if self._operator is not None:
                self._operator.measured(rates)
            before, last = after, now

    def tell(self) -> None:
        """Record what came of it."""
        result, told = self._record.result, [crowd.results for crowd in self._crowds]
        # the last message of each is its answer to the roll call, which no user asked for
        called = sum(each["connections"] - each["lost"] for each in told) * _MESSAGE
        got_mbit = (sum(each["bytes_verified"] for each in told) - called) * 8e-6
        result("served", got_mbit / self._asked_mbit, "", self.name)
        result("verified", sum(each["bytes_verified"] for each in told), "B", self.name)
        result("connections", sum(each["connections"] for each in told), "", self.name)
        result("lost", sum(each["lost"] for each in told), "", self.name)
        result("slowest", max(each["slowest"] for each in told), "s", self.name)
        result("carried", self._bill.carried_mbit * 1e6 / 8, "B", self.name)
        for scenario, prices in self._scenarios.items():
            for part, cost in self._bill.parts(prices).items():
                result(f"cost of {part}", cost, "", f"{self.name}.{scenario}")
            result("cost", self._bill.cost(prices), "", f"{self.name}.{scenario}")
        if self._operator is not None:
            self._tell_operator(self._operator)

    def _tell_operator(self, operator: Operator) -> None:
        result = self._record.result
        for metric, value in operator.results.items():
            result(metric, value, "" if metric == "expected_ratio" else "s", self.name)
        moved = operator.outcomes.count(Outcome.REDIRECTED)
        result("redirections", len(operator.outcomes), "", self.name)
        result("moved", moved, "", self.name)
        ends = operator.rental.tunnel
        raw, carried = (sum(end[key] for end in ends) for key in ("bytes_in", "bytes_out"))
        if carried:
            result("tunnel_in", raw, "B", self.name)
            result("tunnel_out", carried, "B", self.name)
            result("tunnel_cpu", sum(end["cpu_s"] for end in ends), "s", self.name)
