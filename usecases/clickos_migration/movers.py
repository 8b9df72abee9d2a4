"""The contenders of variant migrate: what is put at data centre 1 and moved to data centre 2.

LightFunction   the function and its state, by pre-copy
Forgetful       the same function, begun anew at the other place
VirtualMachine  the same function with a kernel of its own, all of whose memory moves
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from testbed.guests import VmFunction
from testbed.kernel.conntrack import ConntrackTable
from testbed.vnf import marks
from testbed.vnf.agent import Agent
from testbed.vnf.compiler import Program, compile_text
from testbed.vnf.function import Function
from testbed.vnf.migration import migrate
from usecases.clickos_migration.functions import (
    CLICK,
    NFTABLES,
    devices,
    ports,
    vm_routes,
)
from usecases.clickos_migration.steering import Steering
from usecases.clickos_migration.wiring import facing

FROM, TO = "dc1", "dc2"


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a move took, by whoever moved: seconds and payload bytes.

    `switched_s` is when traffic was led to the other place (CLOCK_MONOTONIC): downtime ends then.
    """

    downtime_s: float
    switched_s: float
    total_s: float
    bytes: int


@dataclass(frozen=True)
class Site:
    """The network, who leads traffic to a function in it, and the subnets of its clients."""

    net: Any
    steering: Steering
    clients: list[str]


class Mover(Protocol):
    """Something that is put at data centre 1 and can be moved to data centre 2."""

    async def place(self) -> None:
        """Have it forward at data centre 1."""

    async def move(self) -> Moved:
        """Move it, traffic included."""

    async def remove(self) -> None:
        """End it, wherever it is, and lead traffic to data centre 1 again."""

    async def found(self) -> int:
        """Connections in which it has found that they ask for a film, by its own count."""

    async def labelled(self) -> int:
        """Connections that it knows as asking for a film, by their entries.

        To be asked for when nothing is going on: the kernel goes through a large table for it,
        and on a machine with few processors packets wait for that.
        """


class LightFunction:
    """The function with its state; the bytes travel between agents in the data centres."""

    def __init__(self, site: Site) -> None:
        self._net, self._steering, self._clients = site.net, site.steering, site.clients
        self._switched_s = 0.0
        self._program: Program = compile_text(CLICK, file="firewall.click")
        self._function: Function | None = None

    @property
    def function(self) -> Function:
        """The function where it is now; it must have been placed."""
        assert self._function is not None
        return self._function

    def _instantiate(self, place: str) -> Function:
        function = Function.instantiate(
            self._program,
            devices=devices(self._net[place].netns, self._clients),
            name="firewall",
        )
        self._steering.attach(place)
        return function

    async def place(self) -> None:
        """Have it forward at data centre 1."""
        self._function = self._instantiate(FROM)
        self._steering.switch(FROM)

    async def move(self) -> Moved:
        """Move it, traffic included."""
        address = str(facing(self._net, TO, "dci").ip)
        with (
            Agent(self._net[TO].netns, address) as agent,
            agent.reached_from(self._net[FROM].netns) as channel,
        ):
            report = await asyncio.to_thread(
                migrate,
                self.function,
                lambda: self._instantiate(TO),
                channel,
                self._switch,
            )
        assert isinstance(report.target, Function)
        self._function = report.target
        return Moved(
            downtime_s=report.downtime_s,
            switched_s=self._switched_s,
            total_s=report.total_s,
            bytes=report.bytes,
        )

    def _switch(self) -> None:
        self._steering.switch(TO)
        self._switched_s = time.monotonic()

    async def remove(self) -> None:
        """End it, and lead traffic to data centre 1 again."""
        if self._function is not None:
            self._function.destroy()
        self._steering.switch(FROM)

    async def found(self) -> int:
        """Connections in which it has found that they ask for a film."""
        return int(self.function.read("dpi.matches").split()[0])

    async def labelled(self) -> int:
        """Connections that it knows as asking for a film, by their entries."""
        with ConntrackTable(self.function.namespace) as table:
            return len(table.dump(mark=(film_label(self.function), marks.LABEL)))


def film_label(function: Function) -> int:
    """The mark, under `marks.LABEL`, of connections that ask for films."""
    return marks.shifted(int(function.read("dpi.labels").split()[0]), marks.LABEL)


class Forgetful(LightFunction):
    """The same function, instantiated at the other place without what it knew."""

    async def move(self) -> Moved:
        """Move it, traffic included."""
        source, began = self.function, time.monotonic()
        target = self._instantiate(TO)
        switching = time.monotonic()
        self._switch()
        source.destroy()
        self._function = target
        return Moved(
            downtime_s=self._switched_s - switching,
            switched_s=self._switched_s,
            total_s=time.monotonic() - began,
            bytes=0,
        )


class VirtualMachine:
    """The function in a guest; its memory travels from one QEMU to the other."""

    def __init__(self, site: Site, log: Path) -> None:
        self._net, self._steering, self._clients = site.net, site.steering, site.clients
        self._log = log
        self._switched_s = 0.0
        self._guest: VmFunction | None = None

    async def place(self) -> None:
        """Boot it, and have it forward at data centre 1."""
        self._guest = await VmFunction.boot(
            self._net[FROM].netns,
            ports(),
            NFTABLES,
            name="firewall",
            routes=vm_routes(self._clients),
            sysctls=_VM_SETTINGS,
            log=self._log,
        )
        self._steering.attach(FROM)
        self._steering.switch(FROM)

    async def move(self) -> Moved:
        """Move it, traffic included."""
        assert self._guest is not None
        report = await self._guest.migrate(
            self._net[TO].netns,
            str(facing(self._net, TO, "dci").ip),
            on_resume=self._resumed,
            log=self._log,
        )
        return Moved(
            downtime_s=report.downtime_s,
            switched_s=self._switched_s,
            total_s=report.total_s,
            bytes=report.bytes,
        )

    def _resumed(self) -> None:
        self._steering.attach(TO)
        self._steering.switch(TO)
        self._switched_s = time.monotonic()

    async def remove(self) -> None:
        """End it, and lead traffic to data centre 1 again."""
        if self._guest is not None:
            await self._guest.close()
        self._steering.switch(FROM)

    async def found(self) -> int:
        """Connections that it knows as asking for a film: a guest's table is its own affair."""
        return await self.labelled()

    async def labelled(self) -> int:
        """Connections that it knows as asking for a film, by their entries."""
        assert self._guest is not None
        said = await self._guest.run("grep -c 'mark=1 ' /proc/net/nf_conntrack || true")
        return int(said.split()[0])


_VM_SETTINGS = {
    "net/netfilter/nf_conntrack_max": 65536,
    # what belongs to no connection must not begin one, as in the light function
    "net/netfilter/nf_conntrack_tcp_loose": 0,
}
