"""A guest's machine and where it is: started, equipped, moved, suspended, ended.

All of it happens in the event loop of `background`; the node (`node.Guest`) is what others see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import ExperimentError, TopologyError
from testbed.guests import images
from testbed.guests.berth import Berth, NodeBerth, OwnBerth
from testbed.guests.machine import Machine
from testbed.guests.migration import MigrationOptions, VmMigrationReport, migrate
from testbed.guests.network import GuestNetwork, prepare, readdress
from testbed.guests.qemu import accelerator
from testbed.guests.qemu.vm import QemuVm
from testbed.network.shell import HOSTS_FILE

if TYPE_CHECKING:
    from testbed.guests.node import Guest

HOSTS_IN_GUEST = "/etc/hosts"


class Residence:
    """Where `guest` lives.  `vm` is the machine while it runs, `equipped` whether it is the node.

    `on_end` is called, with the reason, when the machine ends without being asked to.
    """

    def __init__(self, guest: Guest, on_end: Callable[[str], None]) -> None:
        self._guest, self._on_end = guest, on_end
        self._places: dict[str, NodeBerth] = {}  # by the names of nodes, the present one first
        self._place = ""
        self._watching: asyncio.Task[None] | None = None
        self.vm: QemuVm | None = None
        self.equipped = False

    def settle(self, nodes: Sequence[Any]) -> None:
        """Take a place on each node; the guest starts on the first."""
        (card,) = self._guest.cards
        for node in nodes:
            self._places[node.name] = NodeBerth(node, self._guest.name, card.mac or "")
        self._place = nodes[0].name

    @property
    def gateway(self) -> Any:
        """The interface opposite, of the node that the guest is on; None where it is on none."""
        return self._places[self._place].gateway if self._place else None

    @property
    def gateways(self) -> list[str]:
        """The gateway's addresses."""
        return [each for each in (self.gateway.ip, self.gateway.ip6) if each]

    # -- its life -----------------------------------------------------------------------------

    async def boot(self, host: Any = None) -> None:
        """Start the machine, on `host` if it is to be another node, and make it the node."""
        place = self._chosen(host)
        self.vm = await self._start(place)
        self._stay(place)
        try:
            await self.vm.ready()
            hosts = HOSTS_FILE.read_bytes() if HOSTS_FILE.exists() else b""
            await self.vm.put(HOSTS_IN_GUEST, hosts)
            await self.vm.run(self._guest.equipment())
        except BaseException:
            await self.end()
            raise
        self.equipped = True

    async def end(self) -> None:
        """End the machine, if it runs; its state is lost."""
        vm, self.vm, self.equipped = self.vm, None, False
        if self._watching is not None:
            self._watching.cancel()
        if vm is not None:
            await vm.close()

    async def suspend(self, path: Path) -> None:
        """Save the machine's state to a file, and end it."""
        await self._running.save(path)
        await self.end()

    async def resume(self, path: Path, host: Any) -> None:
        """Go on from a saved state, on `host` if that is another node than before."""
        if self.vm is not None:
            raise ExperimentError(f"{self._guest.name} runs", remedy="suspend or kill it first")
        place = self._chosen(host)
        berth = self._berth(place)
        self.vm = await QemuVm.restore(
            path,
            self._machine(),
            berth.namespace,
            berth.plug(),
            log=self._log(),
            before_exec=berth.before_exec,
        )
        moves, left = place != self._place, self._guest.cards[0].addresses
        self._stay(place)
        if moves:
            await readdress(self.vm, self._network(left))
        else:
            await self.vm.ready()
        self.equipped = True

    async def migrate(
        self, host: Any, options: MigrationOptions | None = None, *, address: str = "", **more: Any
    ) -> VmMigrationReport:
        """Move the running machine to `host`, where it gets the addresses of its place there.

        The memory goes to `address` of that node; left out, to one on a link between the two
        nodes, or its first.  `more` is `on_progress` of `testbed.guests.migrate`.  Raises
        `ExperimentError` when it fails; the message says what has become of the machine.
        """
        source, place = self._running, self._chosen(host)
        if place == self._place:
            raise TopologyError(
                f"{self._guest.name} is on {place} already", remedy="name another node"
            )
        address = address or self._reached_at(place)
        left = self._guest.cards[0].addresses
        await prepare(source)
        target = await self._start(place, incoming_from=source)

        async def resumed() -> None:
            self.vm = target
            self._stay(place)
            self._guest.follow(target)
            await readdress(target, self._network(left))

        try:
            report = await migrate(source, target, address, options, on_resume=resumed, **more)
        except BaseException:
            if self.vm is source:
                await target.close()
            raise
        finally:
            if self.vm is target:
                await source.close()
        return report

    # -- parts of it --------------------------------------------------------------------------

    @property
    def _running(self) -> QemuVm:
        if self.vm is None:
            raise ExperimentError(f"{self._guest.name} does not run", remedy="restart it first")
        return self.vm

    def _chosen(self, host: Any) -> str:
        name = self._place if host is None else str(host)
        if host is not None and name not in self._places:
            known = ", ".join(self._places) or "none"
            raise TopologyError(
                f"{self._guest.name} has no place on {name}", remedy=f"give it on= (now: {known})"
            )
        return name

    def _berth(self, place: str) -> Berth:
        return self._places[place] if place else OwnBerth(self._guest, self._guest.cards)

    async def _start(self, place: str, incoming_from: QemuVm | None = None) -> QemuVm:
        berth = self._berth(place)
        machine = incoming_from.machine if incoming_from else self._machine()
        taps = berth.plug()
        try:
            return await QemuVm.start(
                machine,
                berth.namespace,
                taps,
                incoming_from=incoming_from,
                log=self._log(),
                before_exec=berth.before_exec,
            )
        except BaseException:
            for tap in taps:
                tap.close()
            raise

    def _machine(self) -> Machine:
        hardware = self._guest.hardware
        return hardware.machine(
            images.find(hardware.image),
            macs=tuple(intf.mac or "" for intf in self._guest.cards),
            accelerator=accelerator.choose(),
        )

    def _log(self) -> Path | None:
        network = self._guest.network
        path = network.log_path if network is not None else None
        return path(self._guest.name) if path is not None else None

    def _stay(self, place: str) -> None:
        """The machine is there now: this is the one to be watched."""
        self._place = place
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.create_task(self._watch(self._running))

    async def _watch(self, vm: QemuVm) -> None:
        reason = await asyncio.shield(vm.crashed)
        self._watching = None  # this task, which is not to be cancelled by what it does
        await self.end()
        self._on_end(reason)

    def _network(self, left: Sequence[str | None]) -> GuestNetwork:
        """What the guest has where it is now; it comes with the addresses `left`."""
        (card,) = self._guest.cards
        return GuestNetwork(
            device=card.name,
            addresses=card.card.addresses,
            gateways=tuple(self.gateways),
            left=tuple(each.partition("/")[0] for each in left if each),
        )

    def _reached_at(self, place: str) -> str:
        """An address of the node `place` that the present node is linked with, or its first."""
        node, here = self._places[place].node, self._places[self._place].node
        linked = [own.ip for own, _theirs in node.connectionsTo(here) if own.ip]
        return str(linked[0] if linked else node.IP())
