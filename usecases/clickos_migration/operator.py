"""Operator A's eyes and hands: measures the load, carries the orchestrator's decisions out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from testbed.mptcp.redirection.driver import Redirector
from testbed.mptcp.redirection.messages import Outcome
from testbed.mptcp.redirection.watcher import Flow, Watcher
from testbed.run import Recorder
from usecases.clickos_migration.orchestrator import (
    Decision,
    Load,
    Orchestrator,
    Policy,
    Redirect,
    Rent,
)
from usecases.clickos_migration.prices import Prices
from usecases.clickos_migration.ratio import sample_ratio
from usecases.clickos_migration.rental import Rental
from usecases.clickos_migration.wiring import facing


class Operator:
    """Runs one orchestrator at M1.  Times in `results` are in seconds.

    `detected`: from the first measurement that found the path full to the decision to rent.
    `rented`: from there until connections could be redirected.  `redirected`: from the decision
    until the first lot of them had been.
    """

    def __init__(
        self, net: Any, record: Recorder, name: str, policy: Policy, prices: Prices, clients: int
    ) -> None:
        self._net, self._record, self._name = net, record, name
        self._policy, self._prices = policy, prices
        self._inside = facing(net, "m1", "edge").name
        self.watcher = Watcher(net["m1"].netns, self._inside)
        self._redirector = Redirector(self.watcher)
        self.rental = Rental(net, record, name, clients)
        self._orchestrator: Orchestrator | None = None
        self._moved: set[Flow] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._full_since: float | None = None
        self._ready = asyncio.Event()
        self.results: dict[str, float] = {}
        self.outcomes: list[Outcome] = []

    async def learn(self) -> float:
        """Sample how well the present traffic compresses, and begin to decide by that."""
        ratio = await sample_ratio(self._net["m1"].netns, self._inside)
        self._orchestrator = Orchestrator(self._policy, self._prices, ratio=ratio)
        self.results["expected_ratio"] = ratio
        return ratio

    @property
    def away(self) -> int:
        """Connections that live on rented capacity."""
        return len(self.rental.hop.watcher.connections) if self.rental.hop is not None else 0

    def measured(self, rates_mbps: Sequence[float]) -> None:
        """Take the own path's rates, since the last time, in its two directions."""
        now, busier = time.monotonic(), max(rates_mbps)
        if busier < self._policy.full * self._policy.capacity_mbps:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        if self._orchestrator is None:
            return
        here = [
            flow
            for flow, connection in self.watcher.connections.items()
            if connection.session is not None and not connection.joined and flow not in self._moved
        ]
        load = Load(
            time_s=now,
            rate_mbps=busier,
            both_mbps=sum(rates_mbps),
            connections=here,
            away=self.away,
        )
        for decision in self._orchestrator.measured(load):
            self._carry_out(decision, now)

    def _carry_out(self, decision: Decision, now: float) -> None:
        if isinstance(decision, Rent):
            self.results["detected"] = now - (self._full_since or now)
            self._event("rents", f"rents: {decision.plan.value}", plan=decision.plan.value,
                        rate_mbps=decision.rate_mbps, costs=decision.costs)  # fmt: skip
            self._start(self._rent(decision, now))
        elif isinstance(decision, Redirect):
            flows = tuple(flow for flow in decision.connections if isinstance(flow, Flow))
            self._event("redirects", "", asked=len(flows))
            self._start(self._redirect(flows, now))
        else:
            self._event("releases", "gives back")
            self._start(self.rental.stop())

    def _event(self, kind: str, label: str, **more: Any) -> None:
        self._record.event(kind, contender=self._name, label=label, **more)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._record.fail(error)

    async def _rent(self, decision: Rent, decided: float) -> None:
        await self.rental.start(decision.plan)
        self.results["rented"] = time.monotonic() - decided
        self._ready.set()

    async def _redirect(self, flows: tuple[Flow, ...], decided: float) -> None:
        await self._ready.wait()
        hop = self.rental.hop
        assert hop is not None
        assert self._orchestrator is not None
        reports = await self._redirector.redirect_many(flows, hop)
        done = {flow for flow, report in zip(flows, reports, strict=True)
                if report.outcome is Outcome.REDIRECTED}  # fmt: skip
        self._moved |= done
        self._orchestrator.settled(done, set(flows) - done)
        self.outcomes += [report.outcome for report in reports]
        self.results.setdefault("redirected", time.monotonic() - decided)
        self._event("redirected", "", moved=len(done), asked=len(flows))

    async def close(self) -> None:
        """Let what is under way end, and give everything back."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.rental.stop()
        await self._redirector.close()
        self.watcher.close()
