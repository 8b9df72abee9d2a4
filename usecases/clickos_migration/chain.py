"""Variant chain: live connections led through one more middlebox at a time.

Connections in both directions start on the direct path through M1.  M1 redirects them to M2; from
then on it is M2 that redirects them, to another address of its own from which the way leads on
through M3, and again for M4 and M5.  Each length is kept for a while.

Results carry the length, or the length and the connection or the box, as their source.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.mptcp.redirection.driver import Redirector
from testbed.mptcp.redirection.watcher import Flow
from testbed.observe.throughput import received
from testbed.run import Recorder
from usecases.clickos_migration.chain_report import CLAIMS as CLAIMS
from usecases.clickos_migration.chain_report import FIGURES as FIGURES
from usecases.clickos_migration.parameters import ClickosMigrationParameters
from usecases.clickos_migration.paths import PathMeter
from usecases.clickos_migration.redirecting import Steering, tell
from usecases.clickos_migration.rtt import measure as measure_rtt
from usecases.clickos_migration.transfers import DOWN, UP, Transfer, prepare

ABOUT = "live connections through one more middlebox at a time"
QUICK = {"chain.hold": 2.5}

_SETTLE_S = 1.0  # after a redirection, before what a length carries is measured
_SPARE_RTTS, _SPARE_S = 8, 0.7  # that a redirection may take, when the length of transfers is set
_PORT = 7000


@dataclass
class Stage:
    """One length of the chain: from when, when it was measured, and what boxes counted then."""

    length: int
    began: float
    measured: tuple[float, float] = (0.0, 0.0)
    seen: dict[str, int] = field(default_factory=dict)


async def run(net: Any, params: ClickosMigrationParameters, record: Recorder) -> None:
    """One trial."""
    prepare(
        [net["server1"], *(net[f"client{number}"] for number in range(1, params.chain.clients + 1))]
    )
    record.start_clock()
    async with Steering(net, params.tear_down) as steering:
        with PathMeter(net, record) as meter:
            meter.source = "chain"
            growth = Growth(net, params, record, steering)
            await growth.connect()
            for length in range(1, params.chain.longest + 1):
                record.progress((length - 1) / params.chain.longest, f"{length} middleboxes")
                await growth.lengthen(length)
                await growth.hold(length)
            await growth.finish()


def boxes(length: int) -> list[str]:
    """The middleboxes of a chain of so many."""
    return [f"m{number}" for number in range(1, length + 1)]


class Growth:
    """The connections of a trial, and the chain they go through."""

    def __init__(
        self, net: Any, params: ClickosMigrationParameters, record: Recorder, steering: Steering
    ) -> None:
        self._net, self._params, self._record, self._steering = net, params, record, steering
        self._transfers: Sequence[Transfer] = ()
        self._flows: dict[str, Flow] = {}
        self._redirector: Redirector = steering.first
        self._stages: list[Stage] = []

    async def connect(self) -> None:
        """Start all connections, one to each client."""
        chain = self._params.chain
        spare = _SPARE_S + _SPARE_RTTS * self._params.paths.rtt / 1e3
        duration = chain.longest * (chain.hold + spare)
        self._transfers = await asyncio.gather(
            *(
                Transfer.start(
                    self._net,
                    self._record,
                    name=f"{direction}{number}",
                    client=f"client{number}",
                    direction=direction,
                    port=_PORT + number,
                    duration_s=duration,
                    congestion=self._params.congestion,
                    rate_bps=chain.rate * 1e6,
                    seed=self._record.trial.seed + number,
                )
                for number, direction in enumerate((UP, DOWN) * chain.connections, 1)
            )
        )
        self._flows = {each.name: each.flow for each in self._transfers}

    async def lengthen(self, length: int) -> None:
        """Lead the connections through so many middleboxes, M1 included."""
        self._stages.append(Stage(length, time.monotonic()))
        if length == 1:
            return
        hop = self._steering.chain(boxes(length)[1:])
        self._record.event("lengthened", mark=f"to M{length}", length=length)
        reports = await self._steering.redirect(list(self._flows.values()), hop, self._redirector)
        done = 0
        for name, report in zip(list(self._flows), reports, strict=True):
            done += tell(self._record, report, f"{length}.{name}")
            if report.flow is not None:
                self._flows[name] = report.flow
        self._record.result("wanted", len(reports), "", str(length))
        self._record.result("redirected", done, "", str(length))
        self._redirector = await self._steering.redirector(hop)

    async def hold(self, length: int) -> None:
        """Keep this length, and count what each box receives meanwhile."""
        stage = self._stages[-1]
        await asyncio.sleep(_SETTLE_S)
        start, before = time.monotonic(), self._counts()
        held_s = self._params.chain.hold - _SETTLE_S
        await measure_rtt(self._net, self._record, str(length), for_s=held_s)
        stage.measured = start, time.monotonic()
        stage.seen = {box: count - before[box] for box, count in self._counts().items()}

    async def finish(self) -> None:
        """Wait for both ends of all connections, and record what came of it."""
        await asyncio.gather(*(each.finish(self._params.chain.hold) for each in self._transfers))
        for stage in self._stages:
            self._tell(stage)
        self._record.result("connections", len(self._transfers), "")
        self._record.result("survivors", sum(each.intact for each in self._transfers), "")

    def _tell(self, stage: Stage) -> None:
        """What was measured at one length."""
        result, length = self._record.result, stage.length
        span = self._params.chain.hold - _SETTLE_S
        for each in self._transfers:
            source, arrived = f"{length}.{each.name}", each.arrived
            result("goodput", arrived.goodput(*stage.measured), "bit/s", source)
            result("delivered", arrived.within(*stage.measured), "B", source)
            if length > 1:
                gap = arrived.longest_silence(stage.began, stage.began + span)
                before = arrived.longest_silence(stage.began - span, stage.began)
                result("gap", gap, "s", source)
                result("added_gap", gap - before, "s", source)
        for box, count in stage.seen.items():
            result("seen", count, "B", f"{length}.{box}")

    def _counts(self) -> dict[str, int]:
        return {
            box: received(*(intf for intf in self._net[box].intfList() if intf.name != "lo"))
            for box in boxes(self._params.chain.longest)
        }
