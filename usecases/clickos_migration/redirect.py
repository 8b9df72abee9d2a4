"""Variant redirect: the load of live connections balanced over wide-area paths.

Clients' connections share the direct path.  After a while the operator acts, in each of three
ways (contenders) on connections of their own, one after the other on the same network:

    nothing      it does nothing
    reroute      it routes them differently inside its domain, as far as OpenFlow or MPLS reach
    redirect     M1 takes some of them to M2 at operator B, by the other wide-area path

Results carry the contender's name as their source, those of single connections and of links with
a further part behind a dot.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from testbed.run import Recorder
from usecases.clickos_migration.contenders import CONTENDERS, REDIRECT, REROUTE
from usecases.clickos_migration.parameters import ClickosMigrationParameters, Redirect
from usecases.clickos_migration.paths import PathMeter
from usecases.clickos_migration.redirect_claims import CLAIMS as CLAIMS
from usecases.clickos_migration.redirect_figures import FIGURES as FIGURES
from usecases.clickos_migration.redirecting import Steering, tell
from usecases.clickos_migration.reroute import InternalPaths, close_peering
from usecases.clickos_migration.rtt import measure as measure_rtt
from usecases.clickos_migration.transfers import DOWN, UP, Transfer, prepare

ABOUT = "live connections balanced over two wide-area paths"
QUICK = {"redirect.before": 2.5, "redirect.after": 5.0}

_FIRST_PORT = 6000
_SETTLE_S = 1.0  # a start, or a change, takes so long to be over


async def run(net: Any, params: ClickosMigrationParameters, record: Recorder) -> None:
    """One trial: every contender, on connections of its own."""
    wanted = connections(params.redirect)
    prepare([net["server1"], *(net[f"client{n}"] for n in range(1, params.redirect.clients + 1))])
    close_peering(net)
    record.start_clock()
    async with Steering(net, params.tear_down) as steering:
        with PathMeter(net, record) as meter:
            for number, contender in enumerate(CONTENDERS):
                record.progress(number / len(CONTENDERS), contender)
                attempt = Attempt(net, params, record, meter, steering, contender)
                await attempt.connect(wanted, _FIRST_PORT + number * len(wanted))
                await attempt.drive()
                await attempt.finish()


def connections(setting: Redirect) -> list[tuple[str, str, bool]]:
    """Name and direction of each connection, and whether it is among those to be moved."""
    found = []
    for direction, count in ((UP, setting.uploads), (DOWN, setting.downloads)):
        moved = math.ceil(count * setting.share / 100)
        found += [(f"{direction}{n}", direction, n <= moved) for n in range(1, count + 1)]
    return found


class Attempt:
    """One contender's share of a trial."""

    def __init__(
        self,
        net: Any,
        params: ClickosMigrationParameters,
        record: Recorder,
        meter: PathMeter,
        steering: Steering,
        contender: str,
    ) -> None:
        self._net, self._params, self._record = net, params, record
        self._meter, self._steering = meter, steering
        self._internal = InternalPaths(net)
        self.contender = contender
        self._transfers: Sequence[Transfer] = ()
        self._moved: Sequence[Transfer] = ()
        self._began = self._acted = self._ended = 0.0

    async def connect(self, wanted: Sequence[tuple[str, str, bool]], first_port: int) -> None:
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
                for number, (name, direction, _moved) in enumerate(wanted)
            )
        )
        pairs = zip(self._transfers, wanted, strict=True)
        self._moved = [transfer for transfer, (*_name, moved) in pairs if moved]

    async def drive(self) -> None:
        """Let them run, act, let them run on; count what each link carries before and after."""
        setting = self._params.redirect
        self._began = time.monotonic()
        self._meter.source = self.contender
        counts = [self._meter.carried()]
        await asyncio.sleep(_SETTLE_S)
        await measure_rtt(self._net, self._record, self.contender, for_s=setting.before - _SETTLE_S)
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
            self._record.event("reroute", mark="new route")
            self._internal.use_alternative()
        elif self.contender == REDIRECT:
            self._record.event("redirect", mark="redirection")
            await self._redirect()

    async def _redirect(self) -> None:
        flows = [each.flow for each in self._moved]
        reports = await self._steering.redirect(flows, self._steering.chain(["m2"]))
        done = 0
        for transfer, report in zip(self._moved, reports, strict=True):
            done += tell(self._record, report, transfer.name)
        self._record.result("wanted", len(reports), "", self.contender)
        self._record.result("redirected", done, "", self.contender)

    async def finish(self) -> None:
        """Wait for all ends, put the network back, and record what came of it."""
        await asyncio.gather(
            *(each.finish(self._params.redirect.after) for each in self._transfers)
        )
        self._meter.source = None
        self._internal.restore()
        self._record_goodput()
        self._record_gaps()
        self._record.result("connections", len(self._transfers), "", self.contender)
        intact = sum(each.intact for each in self._transfers)
        self._record.result("survivors", intact, "", self.contender)

    def _record_goodput(self) -> None:
        settled = self._acted + _SETTLE_S
        for name, start, end in (
            ("before", self._began + _SETTLE_S, self._acted),
            ("during", self._acted, settled),
            ("after", settled, self._ended),
        ):
            total = sum(each.arrived.goodput(start, end) for each in self._transfers)
            self._record.result(f"goodput_{name}", total, "bit/s", self.contender)

    def _record_gaps(self) -> None:
        """Longest silences of the connections to be moved, or that would be."""
        spans = {
            "before": (self._began + _SETTLE_S, self._acted),
            "after": (self._acted, self._ended),
        }
        for transfer in self._moved:
            for name, span in spans.items():
                gap = transfer.arrived.longest_silence(*span)
                self._record.result(f"gap_{name}", gap, "s", transfer.name)
