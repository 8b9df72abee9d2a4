"""`Guest`: a virtual machine as a node of a topology, with Mininet's surface.

    self.addHost("vm", cls=Guest, image="micro", memory="128M")
    self.addLink("vm", "r1", bw=20, delay="10ms")

It starts with the network, gets its addresses and routes, and ends with the network.  `cmd` runs
in a shell of the guest's.  A guest that is `on` a node has no links: it runs among that node's
programs, with a subnet of its own behind the node, and can move to another one.

Here a node's surface is put on a machine; how the machine is started and moved is for
`residence`, programs for `program`, interfaces for `interface`.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from testbed.errors import ExperimentError, TopologyError
from testbed.guests import equipment, hardware, images, terminal
from testbed.guests.background import BACKGROUND
from testbed.guests.interface import GuestIntf, PlacedIntf
from testbed.guests.migration import MigrationOptions, VmMigrationReport
from testbed.guests.qemu.vm import QemuVm
from testbed.guests.reports import Line
from testbed.guests.residence import Residence
from testbed.kernel import rtnetlink
from testbed.network.addressing import NodeRoutes
from testbed.network.failure import KILLED
from testbed.network.node import Host

CRASHED = "crashed"


class Guest(terminal.Terminal, Host):
    """A virtual machine in a topology.

    image      what it boots (`testbed image list`)
    memory     "128M"
    cpus       processors that it sees
    cpu_limit  processor time it may take, in processors (0.5: half of one)
    display    "1024x600": it has a screen, for `screenshot`
    on         a node that it runs on (or several, of which the first has it at the beginning,
               and the others may be moved to); these are routers

    What waits (`run`, `put`, `migrate`, ...) is a coroutine of any event loop; Mininet's methods
    are functions.  Raises `ParameterError` for hardware that cannot be, `FeatureError` where the
    image or QEMU is missing, `ExperimentError` where it does not boot.
    """

    intf_class = GuestIntf
    stack_elsewhere = True

    def __init__(self, name: str, **params: Any) -> None:
        self.hardware = hardware.Hardware.of(name, params)
        self._commands: dict[str, None] = {}
        self._booting: asyncio.Future[None] | None = None
        self.residence = Residence(self, self._crashed)
        super().__init__(name, **params)

    @classmethod
    def check(cls, name: str, params: Mapping[str, Any]) -> None:
        """Raise `ParameterError` for hardware that cannot be."""
        hardware.Hardware.of(name, params)

    @classmethod
    def carriers(cls, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of the nodes that it may run on."""
        return hardware.carriers(params)

    # -- its place in the network -------------------------------------------------------------

    def settle_in(self) -> None:
        """Take a place on each node that it may run on; nothing to boot is said at once."""
        images.find(self.hardware.image)
        names = self.carriers(self.params)
        if not names:
            return
        if linked := [intf for intf in self.intfList() if intf.link is not None]:
            raise TopologyError(
                f"{self.name} runs on {names[0]} and has a link too ({linked[0].link})",
                remedy="give it links, or on=",
            )
        nodes = [self._network[each] for each in names]
        PlacedIntf(f"{self.name}-eth0", node=self, moveIntfFn=lambda *_words: None)
        self.residence.settle(nodes)

    def addIntf(self, intf: Any, port: int | None = None, moveIntfFn: Any = None) -> None:
        """Register an interface, which becomes a card of the machine; before it runs."""
        if self.residence.vm is not None:
            raise TopologyError(
                f"{self.name} runs, and takes no more interfaces", remedy="link it before the start"
            )
        super().addIntf(intf, port=port, moveIntfFn=moveIntfFn)

    @property
    def cards(self) -> list[GuestIntf]:
        """Its interfaces, in the order of the machine's network cards."""
        return [intf for intf in self.intfList() if intf.name != "lo"]

    @property
    def gateway(self) -> Any:
        """The interface opposite, of the node that it runs on; None for one with links."""
        return self.residence.gateway

    @property
    def host(self) -> Any:
        """The node that it runs on; None for one with links."""
        return self.gateway.node if self.gateway is not None else None

    # -- the machine --------------------------------------------------------------------------

    @property
    def vm(self) -> QemuVm:
        """The running machine; it lives in an event loop of its own (see `background`).

        Raises `ExperimentError` when it does not run.
        """
        self._require_running()
        if self.residence.vm is None:
            raise ExperimentError(f"{self.name} does not run yet", remedy="start the network first")
        return self.residence.vm

    async def run(self, script: str, *, given: bytes = b"", limit_s: float = 30.0) -> str:
        """Run shell commands, with `given` as their input; what they said (see `Vm.run`)."""
        return await BACKGROUND.there(self.vm.run(script, given=given, limit_s=limit_s))

    async def put(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Write a file in the guest, with the folders that lead to it."""
        await BACKGROUND.there(self.vm.put(path, data, executable=executable))

    async def screenshot(self, path: Path) -> None:
        """Write what its display shows, as PNG."""
        await BACKGROUND.there(self.vm.screenshot(path))

    async def lines(self) -> AsyncIterator[Line]:
        """What programs in it report, from the first line on (see `reports`)."""
        reports, number = self.vm.lines, 0
        while (line := await BACKGROUND.there(reports.line(number))) is not None:
            yield line
            number += 1

    def limit_cpu(self, processors: float) -> None:
        """Change its `cpu_limit` while it runs."""
        self.vm.limit_cpu(processors)

    @property
    def console(self) -> str:
        """All that its console has said since it was started."""
        return self.vm.console

    # -- moving -------------------------------------------------------------------------------

    async def migrate(
        self, host: Any, options: MigrationOptions | None = None, **more: Any
    ) -> VmMigrationReport:
        """Move to another node that it may run `on`, as it runs (see `Residence.migrate`)."""
        return await BACKGROUND.there(self.residence.migrate(host, options, **more))

    async def suspend(self, path: Path) -> None:
        """Save its state to a file, and stop; `resume` goes on from there."""
        await BACKGROUND.there(self.residence.suspend(path))

    async def resume(self, path: Path, host: Any = None) -> None:
        """Go on from a saved state, where it was or on another node, with the addresses there."""
        await BACKGROUND.there(self.residence.resume(path, host))
        self.failed = ""

    # -- the surface of a node ----------------------------------------------------------------

    def tell(self, *commands: str) -> None:
        """Run commands in the guest if it runs; when it boots, all is configured anyway."""
        if self.residence.equipped and not self.failed:
            BACKGROUND.call(self.vm.run("\n".join(("set -e", *commands))))

    def sysctl(self, name: str, value: str | int | None = None) -> str:
        """Read kernel setting `name` in the guest, writing `value` first if given."""
        if value is not None:
            self.settings[name] = value
            self.tell(equipment.setting(name, value))
            if self.residence.vm is None:
                return str(value)
        return BACKGROUND.call(self.vm.run(f"cat {equipment.setting_path(name)}")).strip()

    def setARP(self, ip: str, mac: str) -> None:
        """Add a static neighbour on the default interface."""
        self._keep(equipment.neighbour(ip, mac, self.defaultIntf().name))

    def add_route(
        self, destination: str, *, via: str = "", dev: str = "", table: int = 0, metric: int = 0
    ) -> None:
        """Add or replace a route to `destination` ("10.1.0.0/16", "::/0")."""
        self._keep(equipment.added_route(destination, via, dev, table, metric))

    def apply_routes(self, routes: NodeRoutes) -> None:
        """Install planned routes, and a routing table per address where there are several."""
        self._planned = routes
        self.tell(*equipment.planned(routes))

    def _keep(self, command: str) -> None:
        self._commands[command] = None
        self.tell(command)

    def equipment(self) -> str:
        """The script that makes a machine which has just booted into this node."""
        cards = [intf.card for intf in self.cards]
        placed = self.gateway is not None
        return equipment.equip(
            cards,
            routes=equipment.behind(self.residence.gateways, cards[0].name)
            if placed
            else self._planned,
            commands=self._commands,
            settings=self.settings,
        )

    async def round_trip(
        self, target: str, *, source: str = "", tries: int = 3, wait_s: float = 1.0
    ) -> tuple[float | None, str]:
        """Round-trip time in seconds of the first echo answered, or None and why (see `echo`)."""
        seconds = max(1, math.ceil(wait_s))
        ask = f"ping -c 1 -W {seconds} {f'-I {source}' if source else ''} {target}"
        script = f"for n in $(seq {tries}); do {ask} && break; done 2>&1; true"
        said = await self.run(script, limit_s=30 + tries * seconds)
        found = re.search(r"time=([\d.]+) ms", said)
        if found:
            return float(found[1]) / 1e3, ""
        return None, f"no answer to {tries} echoes"

    # -- its life -----------------------------------------------------------------------------

    def switch_on(self) -> None:
        """Begin to boot; machines boot beside each other."""
        self._booting = BACKGROUND.begin(self.residence.boot())

    def start_programs(self) -> None:
        """Wait until it has booted, then run what `on_start` names."""
        if self._booting is not None:
            booting, self._booting = self._booting, None
            BACKGROUND.wait(booting)
        super().start_programs()

    def freeze(self) -> None:
        """Hang: the machine stands still and nothing gets in or out, while the carrier stays."""
        self.vm  # noqa: B018 (which must run)
        super().freeze()

    def stand_still(self) -> list[int]:
        """Stop the machine's process."""
        pid = self.vm.process.pid
        os.kill(pid, signal.SIGSTOP)
        return [pid]

    def kill(self) -> None:
        """Lose power: the machine is gone at once, with all that was in it."""
        if self.failed == KILLED:
            raise ExperimentError(f"{self.name} is killed already", remedy="restart it first")
        for intf in self.wired:
            self.netlink.request(rtnetlink.set_link(intf.index, up=False))
        self._network.cuts.remove(self)
        self._stopped = ()
        BACKGROUND.call(self.residence.end())
        self.close_shell()
        self.failed = KILLED
        self._tell("node kill", "killed")

    def restart(self, host: Any = None) -> None:
        """Boot anew, on `host` if it is to be another node that it may run on."""
        if self.failed not in (KILLED, CRASHED):
            self.kill()
        self.failed = ""
        for intf in self.wired:
            self.netlink.request(rtnetlink.set_link(intf.index, up=True))
        self._network.cuts.renew(self)
        self._booting = BACKGROUND.begin(self.residence.boot(host))
        for link in {intf.link for intf in self.wired}:
            link.renew(self)
        self.start_programs()
        self._tell("node restart", "restarted")

    @property
    def wired(self) -> list[Any]:
        """Its ends of links."""
        return [intf for intf in self.intfList() if intf.link is not None]

    def _crashed(self, reason: str) -> None:
        """The machine has ended without being asked to."""
        self.failed = CRASHED
        self.close_shell()
        if self.network is not None:
            self.network.notify(
                "node crash", mark=f"{self.name} crashed", node=self.name, reason=reason
            )

    def terminate(self) -> None:
        """End the machine, and let go of its namespace."""
        if not self.ended:
            if self._booting is not None:
                BACKGROUND.loop.call_soon_threadsafe(self._booting.cancel)
            BACKGROUND.call(self.residence.end())
            self.close_shell()
        super().terminate()
