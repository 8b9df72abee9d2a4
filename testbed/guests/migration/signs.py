"""What the two QEMUs of a migration say as it goes, from the order on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from testbed.errors import ExperimentError
from testbed.guests.migration.report import Phase
from testbed.guests.qemu.monitor import Event
from testbed.guests.qemu.vm import QemuVm

ENDED = ("completed", "failed", "cancelled")


class Signs:
    """The events of one migration from `source` to `target`."""

    def __init__(self, source: QemuVm, target: QemuVm) -> None:
        self._source, self._target = source, target
        self._since = {vm: len(vm.monitor.events) for vm in (source, target)}
        self._epoch_s = time.monotonic() - time.time()

    @property
    def stopped(self) -> Event | None:
        """The guest stands still at the source."""
        return self._found(self._source, "STOP")

    @property
    def resumed(self) -> Event | None:
        """It runs at the target."""
        return self._found(self._target, "RESUME")

    @property
    def passes(self) -> list[Event]:
        """A pass over the memory begins."""
        return [event for event in self._events(self._source) if event.name == "MIGRATION_PASS"]

    @property
    def switched(self) -> bool:
        """Has post-copy begun, so that the target fetches what it lacks?"""
        return any(
            event.name == "MIGRATION" and event.data["status"] == "postcopy-active"
            for event in self._events(self._source)
        )

    @property
    def phase(self) -> Phase:
        """Where the migration is."""
        if self.resumed:
            return Phase.POST_COPY if self.switched else Phase.COMPLETED
        if self.stopped:
            return Phase.STOPPED
        return Phase.PRE_COPY if self.passes else Phase.SETUP

    def monotonic(self, event: Event) -> float:
        """When it was, by CLOCK_MONOTONIC."""
        return event.time_s + self._epoch_s

    async def wait_for_resume(self) -> Event:
        """Until the guest runs at the target; `ExperimentError` when that QEMU is gone."""
        return await self._event(self._target, lambda event: event.name == "RESUME")

    async def wait_for_pass(self, number: int) -> Event:
        """Until this pass or a later one begins; `ExperimentError` when the source is gone."""
        return await self._event(
            self._source,
            lambda event: event.name == "MIGRATION_PASS" and event.data["pass"] >= number,
        )

    async def wait_for_end(self) -> Event:
        """Until the source says that all is done; `ExperimentError` with its reason if not."""
        event = await self._event(
            self._source,
            lambda event: (
                event.name == "MIGRATION" and event.data["status"] in (*ENDED, "postcopy-paused")
            ),
        )
        if event.data["status"] != "completed":
            said: dict[str, Any] = await self._source.monitor.execute("query-migrate")
            raise ExperimentError(said.get("error-desc", "the connection broke"))
        return event

    def _events(self, vm: QemuVm) -> list[Event]:
        return vm.monitor.events[self._since[vm] :]

    def _found(self, vm: QemuVm, name: str) -> Event | None:
        return next((event for event in self._events(vm) if event.name == name), None)

    async def _event(self, vm: QemuVm, wanted: Callable[[Event], bool]) -> Event:
        try:
            return await vm.monitor.event(wanted, since=self._since[vm])
        except ExperimentError as error:
            end = "source" if vm is self._source else "target"
            raise ExperimentError(f"the {end}'s {error.message}") from error
