"""How a machine gets from one device to another, and its video with it.

    LiveMigration  it is migrated as it runs; its connection is Multipath TCP or plain TCP
    Cold           it is suspended to a file, which is copied and resumed from
    Restart        it is stopped, and another one is booted at the target, with another player

Times are CLOCK_MONOTONIC's here; the records' clock is the stage's affair.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from testbed.guests.migration import migrate
from testbed.guests.network import prepare
from testbed.guests.qemu.vm import QemuVm
from usecases.vm_migration.account import Moved
from usecases.vm_migration.berths import facing
from usecases.vm_migration.copying import copy
from usecases.vm_migration.journey import COLD, RESTART, Leg
from usecases.vm_migration.stage import Stage


class Mover(Protocol):
    """A way to move; `vm` is the machine, where it runs now."""

    vm: QemuVm

    async def move(self, leg: Leg) -> Moved:
        """Move the machine; its player plays on, or another one plays, at the target."""


def mover(stage: Stage, vm: QemuVm) -> Mover:
    """The mover of the trial's variant, for a machine that runs."""
    kinds: dict[str, Callable[[Stage, QemuVm], Mover]] = {RESTART: Restart, COLD: Cold}
    return kinds.get(stage.variant, LiveMigration)(stage, vm)


class LiveMigration:
    """QEMU migrates the machine as it runs; it gets its new address as soon as it is there."""

    def __init__(self, stage: Stage, vm: QemuVm) -> None:
        self.vm = vm
        self._stage = stage

    async def move(self, leg: Leg) -> Moved:
        """Migrate it."""
        source, target = self.vm, await self._stage.machines.awaiting(leg.target, self.vm)
        await prepare(source)
        addressed_s = 0.0

        async def resumed() -> None:
            nonlocal addressed_s
            await self._stage.readdress(target, leg.source, leg.target)
            addressed_s = time.monotonic()

        address = str(facing(self._stage.net, leg.target, leg.source).ip)
        options = self._stage.params.machine.options()
        report = await migrate(source, target, address, options, on_resume=resumed)
        self.vm = target
        await source.close()
        moments = report.moments
        return Moved(
            stopped_s=moments.stopped_s,
            downtime_s=report.downtime_s,
            payload=report.bytes,
            phases=(
                ("copy", moments.ordered_s, moments.stopped_s),
                ("down", moments.stopped_s, moments.resumed_s),
                ("network", moments.resumed_s, addressed_s),
            ),
        )


class Cold:
    """The machine's state travels as a file, and the machine stands still for all of it."""

    def __init__(self, stage: Stage, vm: QemuVm) -> None:
        self.vm = vm
        self._stage = stage

    async def move(self, leg: Leg) -> Moved:
        """Suspend it, copy its state, resume it."""
        await prepare(self.vm)
        net, began_s = self._stage.net, time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            here, there = Path(folder, "suspended"), Path(folder, "copied")
            await self.vm.save(here)
            await self.vm.close()
            saved_s = time.monotonic()
            size = await copy(
                here, there, sender=net[leg.source], receiver=net[leg.target],
                address=str(facing(net, leg.target, leg.source).ip),
            )  # fmt: skip
            copied_s = time.monotonic()
            self.vm = await self._stage.machines.restored(leg.target, there)
        resumed_s = time.monotonic()
        self._stage.viewer.watch(self.vm, anew=False)
        await self._stage.readdress(self.vm, leg.source, leg.target)
        return Moved(
            stopped_s=began_s,
            downtime_s=resumed_s - began_s,
            payload=size,
            phases=(
                ("down", began_s, saved_s),
                ("carry", saved_s, copied_s),
                ("down", copied_s, resumed_s),
                ("network", resumed_s, time.monotonic()),
            ),
        )


class Restart:
    """Another machine is booted at the target; what the stopped one knew is lost."""

    def __init__(self, stage: Stage, vm: QemuVm) -> None:
        self.vm = vm
        self._stage = stage

    async def move(self, leg: Leg) -> Moved:
        """Stop it, boot the other one, start its player."""
        began_s = time.monotonic()
        await self.vm.close()
        self.vm = await self._stage.machines.boot(leg.target)
        booted_s = time.monotonic()
        await self._stage.show(self.vm)
        return Moved(
            stopped_s=began_s,
            downtime_s=booted_s - began_s,
            payload=0,
            phases=(
                ("boot", began_s, booted_s),
                ("player", booted_s, time.monotonic()),
            ),
        )
