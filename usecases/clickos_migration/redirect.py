"""Variant redirect: the load of live connections balanced over wide-area paths.

Clients' connections share the direct path.  After a while the operator acts, in each of three
ways (contenders) on connections of their own, one after the other on the same network:

    nothing      it does nothing
    reroute      it routes them differently inside its domain, as far as OpenFlow or MPLS reach
    redirect     M1 takes some of them to M2 at operator B, by the other wide-area path
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from testbed.run import Claim, Figure, Recorder
from usecases.clickos_migration.parameters import ClickosMigrationParameters
from usecases.clickos_migration.paths import PathMeter
from usecases.clickos_migration.reroute import InternalPaths, close_peering
from usecases.clickos_migration.transfers import Transfer, directions, prepare

ABOUT = "live connections balanced over two wide-area paths"
QUICK = {"redirect.before": 2.5, "redirect.after": 4.0}

NOTHING, REROUTE, REDIRECT = "nothing", "reroute", "redirect"
CONTENDERS = (NOTHING, REROUTE)

_FIRST_PORT = 6000
_SETTLE_S = 1.0  # slow start, and what follows a change, is not what a path's goodput is about


async def run(net: Any, params: ClickosMigrationParameters, record: Recorder) -> None:
    """One trial: every contender, on connections of its own."""
    wanted = directions(params.redirect.uploads, params.redirect.downloads)
    prepare([net["server1"], *(net[f"client{n}"] for n in range(1, len(wanted) + 1))])
    close_peering(net)
    record.start_clock()
    with PathMeter(net, record) as meter:
        for number, contender in enumerate(CONTENDERS):
            record.progress(number / len(CONTENDERS), contender)
            attempt = Attempt(net, params, record, meter, contender)
            await attempt.connect(wanted, _FIRST_PORT + number * len(wanted))
            await attempt.drive()
            await attempt.finish()


class Attempt:
    """One contender's share of a trial."""

    def __init__(
        self,
        net: Any,
        params: ClickosMigrationParameters,
        record: Recorder,
        meter: PathMeter,
        contender: str,
    ) -> None:
        self._net, self._params, self._record, self._meter = net, params, record, meter
        self._internal = InternalPaths(net)
        self.contender = contender
        self._transfers: Sequence[Transfer] = ()
        self._began = self._acted = self._ended = 0.0

    async def connect(self, wanted: Sequence[tuple[str, str]], first_port: int) -> None:
        """Start all connections, one to each client; data flow when this returns."""
        setting = self._params.redirect
        self._transfers = await asyncio.gather(
            *(
                Transfer.start(
                    self._net,
                    self._record,
                    name=f"{self.contender}.{name}",
                    client=f"client{number + 1}",
                    direction=direction,
                    port=first_port + number,
                    duration_s=setting.before + setting.after,
                    congestion=self._params.congestion,
                    seed=self._record.trial.seed + number,
                )
                for number, (name, direction) in enumerate(wanted)
            )
        )

    async def drive(self) -> None:
        """Let them run, act, let them run on; count what each link carries before and after."""
        setting = self._params.redirect
        self._began = time.monotonic()
        self._meter.source = self.contender
        self._record.event("contender", name=self.contender)
        counts = [self._meter.carried()]
        await asyncio.sleep(setting.before)
        counts.append(self._meter.carried())
        self._acted = time.monotonic()
        await self._act()
        await asyncio.sleep(max(0.0, self._acted + setting.after - time.monotonic()))
        self._ended = time.monotonic()
        counts.append(self._meter.carried())
        for when, (start, end) in zip(("before", "after"), pairwise(counts), strict=True):
            for link, count in end.items():
                source = f"{self.contender}.{link}"
                self._record.result(f"carried_{when}", count - start[link], "B", source)

    async def _act(self) -> None:
        if self.contender == REROUTE:
            self._internal.use_alternative()
            self._record.event("rerouted", mark="rerouted inside A")

    async def finish(self) -> None:
        """Wait for all ends, put the network back, and record what came of it."""
        await asyncio.gather(
            *(each.finish(self._params.redirect.after) for each in self._transfers)
        )
        self._meter.source = ""
        self._internal.restore()
        self._tell()

    def _tell(self) -> None:
        result, source = self._record.result, self.contender
        arrived = [each.arrived for each in self._transfers]
        spans = {
            "before": (self._began + _SETTLE_S, self._acted),
            "after": (self._acted + _SETTLE_S, self._ended),
        }
        for name, span in spans.items():
            total = sum(each.goodput(*span) for each in arrived)
            result(f"goodput_{name}", total, "bit/s", source)
        result("connections", len(self._transfers), "", source)
        result("survivors", sum(each.intact for each in self._transfers), "", source)


CLAIMS: tuple[Claim, ...] = ()
FIGURES: tuple[Figure, ...] = ()
