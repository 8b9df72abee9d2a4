"""A network function in a virtual machine: an nftables program between interfaces, forwarding.

What a light function (`testbed.vnf`) is compared with: the same program, addresses and
connections, but with a kernel of its own around them, all of which moves when it is migrated.
Routes in the platform's node that lead to the function are the caller's.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import TopologyError
from testbed.guests.images import find
from testbed.guests.machine import Machine
from testbed.guests.migration import MigrationOptions, VmMigrationReport, migrate
from testbed.guests.qemu import accelerator
from testbed.guests.qemu.vm import QemuVm
from testbed.guests.tap import Tap
from testbed.kernel import NetworkNamespace

_FORWARDING = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
}


@dataclass(frozen=True)
class Port:
    """A cable between a node and a function, both ends with their addresses ("10.9.0.1/30").

    `device` is the interface in the guest, as the program names it; `tap` the one in the node.
    """

    device: str
    address: str
    tap: str
    tap_address: str

    def __post_init__(self) -> None:
        here, there = (ipaddress.ip_interface(a) for a in (self.address, self.tap_address))
        if here.network != there.network or here.ip == there.ip:
            raise TopologyError(
                f"port {self.device}: {self.address} and {self.tap_address}",
                remedy="give two addresses of one subnet",
            )

    def mac(self, end: str) -> str:
        """MAC address of an end, "guest" or "node", the same wherever the guest runs."""
        digest = hashlib.sha256(f"{self.tap}/{self.address}/{end}".encode()).hexdigest()
        return ":".join(("52", "54", *(digest[at : at + 2] for at in (0, 2, 4, 6))))

    def plug(self, namespace: NetworkNamespace) -> Tap:
        """Make this cable's TAP in a namespace."""
        tap = Tap(self.tap, namespace)
        try:
            tap.configure(
                mac=self.mac("node"),
                address=self.tap_address,
                neighbour=str(ipaddress.ip_interface(self.address).ip),
                neighbour_mac=self.mac("guest"),
            )
        except BaseException:
            tap.close()
            raise
        return tap


class VmFunction:
    """A running function; `boot` makes one.  `vm` is its machine, where it runs now.

    `boot_s` is what it took from starting QEMU to a guest that answers, `start_s` to one that
    forwards.
    """

    def __init__(self, ports: Sequence[Port], vm: QemuVm, boot_s: float, start_s: float) -> None:
        self.ports = tuple(ports)
        self.vm = vm
        self.boot_s = boot_s
        self.start_s = start_s

    @classmethod
    async def boot(
        cls,
        namespace: NetworkNamespace,
        ports: Sequence[Port],
        program: str,
        *,
        name: str = "vm",
        routes: Mapping[str, str] | None = None,
        sysctls: Mapping[str, str | int] | None = None,
        memory_mb: int = 96,
        log: Path | None = None,
    ) -> VmFunction:
        """Boot a guest in `namespace` that runs the nftables `program` between `ports`.

        `routes` are the guest's, destination to gateway; `sysctls` (net/...) are set in it beside
        those that make it forward.  `log` gets its console.  Raises `ExperimentError` where the
        guest does not boot or refuses the program, `FeatureError` where the image is missing.
        """
        machine = Machine(
            find("function"),
            memory_mb,
            macs=tuple(port.mac("guest") for port in ports),
            name=name,
            accelerator=accelerator.choose(),
        )
        began = time.monotonic()
        vm = await _start(machine, namespace, ports, log=log)
        try:
            await vm.ready()
            booted = time.monotonic()
            settings = {**_FORWARDING, **(sysctls or {})}
            await vm.run(_script(ports, program, routes or {}, settings))
        except BaseException:
            await vm.close()
            raise
        return cls(ports, vm, booted - began, time.monotonic() - began)

    async def run(self, script: str) -> str:
        """Run shell commands in the guest (`nft`, and what busybox has); what they said."""
        return await self.vm.run(script)

    async def migrate(
        self,
        namespace: NetworkNamespace,
        address: str,
        *,
        options: MigrationOptions | None = None,
        on_resume: Callable[[], None] | None = None,
        log: Path | None = None,
    ) -> VmMigrationReport:
        """Move to another node's namespace, which the memory reaches at `address`.

        There it has TAPs with the same names and addresses, so neither the guest nor the node
        has anything to learn.  `on_resume` is where routes to the function move.  When this
        raises, the function goes on where it was.
        """
        target = await _start(
            self.vm.machine, namespace, self.ports, incoming_from=self.vm, log=log
        )
        try:
            report = await migrate(self.vm, target, address, options, on_resume=on_resume)
        except BaseException:
            await target.close()
            raise
        left, self.vm = self.vm, target
        await left.close()
        return report

    async def close(self) -> None:
        """End the machine and take its TAPs away."""
        await self.vm.close()


async def _start(
    machine: Machine,
    namespace: NetworkNamespace,
    ports: Sequence[Port],
    *,
    log: Path | None,
    incoming_from: QemuVm | None = None,
) -> QemuVm:
    taps: list[Tap] = []
    try:
        for port in ports:
            taps.append(port.plug(namespace))
        return await QemuVm.start(machine, namespace, taps, incoming_from=incoming_from, log=log)
    except BaseException:
        for tap in taps:
            tap.close()
        raise


def _script(
    ports: Sequence[Port],
    program: str,
    routes: Mapping[str, str],
    sysctls: Mapping[str, str | int],
) -> str:
    """The shell commands that make a fresh guest into the function."""
    lines = ["set -e"]
    for number, port in enumerate(ports):
        lines.append(f"ip link set eth{number} name {port.device}")
        lines.append(f"ip addr add {port.address} dev {port.device}")
        lines.append(f"ip link set {port.device} up")
    lines += [f"ip route add {to} via {gateway}" for to, gateway in routes.items()]
    lines += [f"echo {value} >/proc/sys/{name}" for name, value in sysctls.items()]
    return "\n".join([*lines, "nft -f - <<'END-OF-PROGRAM'", program, "END-OF-PROGRAM", ""])
