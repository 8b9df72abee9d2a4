"""A guest that may move between two nodes, over a fast cable or a slow one, and what it is told.

a ===== b      10.4.0.0/24 as fast as the machine is, 10.3.0.0/24 with a rate
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from mininet.topo import Topo

from testbed.errors import ExperimentError
from testbed.guests import Machine, Migration, MigrationOptions, QemuVm, VmMigrationReport, find
from testbed.guests.migration import Progress
from testbed.guests.tap import Tap
from testbed.network import Network

FAST = {"a": "10.4.0.1", "b": "10.4.0.2"}
SLOW = {"a": "10.3.0.1", "b": "10.3.0.2"}
TAP = "guest-tap"
MAC = "52:54:00:00:00:07"

# a guest that writes four megabytes of noise without end, and tells that it lives
BUSY = """
: >/run/beats
dd if=/dev/urandom of=/run/noise bs=1M count=2
while :; do cat /run/noise; done | dd of=/dev/null bs=4M iflag=fullblock &
while :; do echo x >>/run/beats; usleep 20000; done &
"""

When = Callable[[Progress], bool]
Deed = Callable[["Lab", Migration], Awaitable[object] | None]


class Cables(Topo):
    def build(self, bw: float = 50) -> None:
        for name in "ab":
            self.addHost(name, ip=None)
        for net, spec in (("10.4.0", {}), ("10.3.0", {"bw": bw})):
            ends = [
                {"intfName": f"{name}-{net[-3]}", "ip": f"{net}.{side}/24"}
                for side, name in enumerate("ab", 1)
            ]
            self.addLink("a", "b", intfName1=ends[0].pop("intfName"),
                         intfName2=ends[1].pop("intfName"), params1=ends[0], params2=ends[1],
                         **spec)  # fmt: skip


class Lab:
    """The guest `vm` at node `here`, and the ways in which its moves are spoilt."""

    def __init__(self, net: Network, vm: QemuVm) -> None:
        self.net, self.vm, self.here = net, vm, "a"
        self.target: QemuVm | None = None
        self.spoilt_s = 0.0

    @classmethod
    async def boot(cls, net: Network, machine: Machine | None = None) -> Lab:
        machine = machine or Machine(find(), macs=(MAC,))
        vm = await QemuVm.start(machine, net["a"].netns, [Tap(TAP, net["a"].netns)])
        await vm.ready()
        await vm.run(BUSY)
        return cls(net, vm)

    @classmethod
    async def restore(cls, net: Network, state: Path) -> Lab:
        machine = Machine(find(), macs=(MAC,))
        taps = [Tap(TAP, net["a"].netns)]
        return cls(net, await QemuVm.restore(state, machine, net["a"].netns, taps))

    @property
    def there(self) -> str:
        """The node where it is not."""
        return "b" if self.here == "a" else "a"

    async def move(
        self,
        options: MigrationOptions,
        when: When,
        deed: Deed,
        *,
        slowly: bool = False,
        machine: Machine | None = None,
    ) -> VmMigrationReport:
        """Move it; once `when` says so of the progress, do `deed`."""
        there = self.net[self.there].netns
        self.target = target = await QemuVm.start(
            machine or self.vm.machine, there, [Tap(TAP, there)], incoming_from=self.vm
        )
        due = asyncio.Event()

        def watch(progress: Progress) -> None:
            if when(progress):
                due.set()

        address = (SLOW if slowly else FAST)[self.there]
        migration = Migration(self.vm, target, address, options, on_progress=watch)

        async def spoil() -> None:
            await due.wait()
            self.spoilt_s = time.time()
            if (more := deed(self, migration)) is not None:
                await more

        spoiling = asyncio.create_task(spoil())
        try:
            report = await migration.run()
        except BaseException:
            await target.close()
            raise
        finally:
            spoiling.cancel()
            await asyncio.gather(spoiling, return_exceptions=True)
        left, self.vm, self.here = self.vm, target, self.there
        await left.close()
        return report

    async def fails(
        self, match: str, options: MigrationOptions, when: When, deed: Deed, **more: object
    ) -> None:
        """It fails with one line like this, and the target is no more."""
        with pytest.raises(ExperimentError, match=match) as said:
            await self.move(options, when, deed, **more)  # type: ignore[arg-type]
        assert "\n" not in str(said.value)
        assert self.target is not None
        assert self.target.process.status is not None
        assert not has_tap(self.net, self.there)

    async def lives(self) -> None:
        """The guest answers, and what it was doing goes on."""
        before = int(await self.vm.run("wc -l </run/beats"))
        async with asyncio.timeout(60):
            while int(await self.vm.run("wc -l </run/beats")) <= before:
                await asyncio.sleep(0.02)

    def stood_still(self) -> bool:
        """Had the source stopped the guest when its move was spoilt?"""
        stops = [event.time_s for event in self.vm.monitor.events if event.name == "STOP"]
        return bool(stops) and stops[-1] < self.spoilt_s

    async def close(self) -> None:
        await self.vm.close()


def kill_target(lab: Lab, _migration: Migration) -> None:
    assert lab.target is not None
    os.kill(lab.target.process.pid, signal.SIGKILL)


def kill_source(lab: Lab, _migration: Migration) -> None:
    os.kill(lab.vm.process.pid, signal.SIGKILL)


def cancel(_lab: Lab, migration: Migration) -> None:
    migration.cancel()


def cut(lab: Lab, _migration: Migration) -> None:
    lab.net["b"].cmd("ip link set b-3 down; ip link set b-4 down")


def mend(lab: Lab) -> None:
    lab.net["b"].cmd("ip link set b-3 up; ip link set b-4 up")


def has_tap(net: Network, node: str) -> bool:
    """Is the guest's cable in a node?"""
    return TAP in str(net[node].cmd("ip -o link"))


def qemus() -> list[int]:
    """Process numbers of the QEMUs in this sandbox."""
    found = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if file.read_text().startswith("qemu-system"):
                found.append(int(file.parent.name))
    return found


def between(use: Callable[[Network], Awaitable[None]], bw: float = 50) -> None:
    """Use the two nodes; nothing may be left when it is done."""
    with Network(Cables(bw=bw)) as net:
        asyncio.run(use(net))
        assert qemus() == []
        assert not any(has_tap(net, node) for node in "ab")
