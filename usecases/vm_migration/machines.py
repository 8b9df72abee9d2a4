"""Machines of one trial: booted, waiting for a migration, or restored, on either device."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

from testbed.errors import ExperimentError
from testbed.guests import Machine, images
from testbed.guests.qemu import accelerator
from testbed.guests.qemu.vm import QemuVm
from testbed.run import Recorder
from usecases.vm_migration.berths import DEVICE, MACHINE_MAC, Berth, berths
from usecases.vm_migration.parameters import VmMigrationParameters

_SUBFLOWS = 4  # at once; one is enough, but the kernel counts those that are being closed


class Machines:
    """Starts machines; all but their displays are of the same hardware.

    Every machine's QEMU runs in its device's control group, and is closed when the trial ends.
    """

    def __init__(self, net: Any, params: VmMigrationParameters, record: Recorder) -> None:
        self.berths = berths(net)
        self._record = record
        self._hardware = Machine(
            images.find("micro"),
            params.machine.memory,
            macs=(MACHINE_MAC,),
            name="machine",
            accelerator=accelerator.choose(),
        )
        self._displays = params.machine.displays()

    def display(self, device: str) -> str:
        """What a device's display offers ("480x270")."""
        width, height = self._displays[device]
        return f"{width}x{height}"

    async def boot(self, device: str) -> QemuVm:
        """A machine that has booted and has its address."""
        berth = self.berths[device]
        vm = await QemuVm.start(*self._place(device), **self._more(berth))
        await self._keep(vm).ready()
        await vm.run(_configuration(berth))
        return vm

    async def awaiting(self, device: str, source: QemuVm) -> QemuVm:
        """A machine that waits for `source` to be migrated to it."""
        return self._keep(
            await QemuVm.start(
                *self._place(device), incoming_from=source, **self._more(self.berths[device])
            )
        )

    async def restored(self, device: str, state: Path) -> QemuVm:
        """The machine whose state is in a file, going on."""
        return self._keep(
            await QemuVm.restore(state, *self._place(device), **self._more(self.berths[device]))
        )

    def _keep(self, vm: QemuVm) -> QemuVm:
        """See to it that a machine is closed in the end, and that its crash is the trial's."""
        self._record.defer(vm.close)
        vm.crashed.add_done_callback(self._crashed)
        return vm

    def _crashed(self, ended: asyncio.Future[str]) -> None:
        if not ended.cancelled():
            self._record.fail(ExperimentError(ended.result()))

    def _place(self, device: str) -> tuple[Any, ...]:
        berth = self.berths[device]
        machine = dataclasses.replace(self._hardware, display=self._displays[device])
        return machine, berth.node.netns, [berth.plug()]

    def _more(self, berth: Berth) -> dict[str, Any]:
        log = self._record.log_path(f"machine-{berth.node.name}")
        return {"log": log, "before_exec": berth.node.before_exec}


def _configuration(berth: Berth) -> str:
    """The shell commands that give a fresh machine its network."""
    return "\n".join(
        (
            "set -e",
            f"ip address add {berth.address} dev {DEVICE}",
            f"ip link set {DEVICE} up",
            f"ip route add default via {berth.gateway}",
            f"ip mptcp limits set subflow {_SUBFLOWS} add_addr_accepted {_SUBFLOWS}",
        )
    )
