"""A light network function: one compiled program in a network namespace of its own.

    program = compile_file(Path("nat.click"))
    with Function.instantiate(program, devices={"eth0": Device(node.netns, ...)}) as function:
        function.read("counter.count")

What the program does to packets is the compiler's business, what can be read and written of its
elements that of `handlers`; its state is taken and put back by `testbed.vnf.state`.

Source: D3.1 section 3.1.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from testbed.errors import KernelError, ParameterError
from testbed.kernel import NetworkNamespace, RtNetlink, conntrack, rtnetlink
from testbed.kernel.namespaces import sysctl
from testbed.kernel.nftables import Nftables
from testbed.kernel.rtnetlink import Message, VethEnd
from testbed.vnf import handlers, qdiscs, routing, strings
from testbed.vnf.click import Graph
from testbed.vnf.compiler import compile_graph, compile_text
from testbed.vnf.control import ControlSocket
from testbed.vnf.device import Device, configuration, interfaces
from testbed.vnf.device import network as network_of
from testbed.vnf.program import TABLE, Program

__all__ = ["Device", "Function"]

_FIRST_INDEX = 2
_LOOPBACK = 1
_SETTINGS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    # answers to connections that the function translates come to its own addresses
    "net/ipv4/conf/all/accept_local": 1,
    # the kernel would look for a local socket before the graph has decided
    "net/ipv4/ip_early_demux": 0,
}
_WITH_IPV6 = {"net/ipv6/conf/all/forwarding": 1}
_WITHOUT_IPV6 = {"net/ipv6/conf/default/disable_ipv6": 1, "net/ipv6/conf/all/disable_ipv6": 1}
_UP, _PATIENCE_S, _POLL_S = 6, 5.0, 0.001  # operstate of RFC 2863
_CHECKSUMS = "net/netfilter/nf_conntrack_checksum"
_GATES = ("prerouting", "output")


class Function:
    """A running network function.  Made by `instantiate`; `destroy` (or `with`) ends it.

    `namespace` is its network namespace, `tables` names the tables of nftables that hold its
    program and state, `program` is what it was compiled from: instantiated again with the same
    program (or the same graph with other values), another function can take over its state.
    """

    tables: tuple[str, ...]

    def __init__(
        self, name: str, program: Program, devices: Mapping[str, Device], stack: ExitStack
    ) -> None:
        self.name, self.program, self.devices = name, program, dict(devices)
        self.tables = (program.table,)
        self.lock = threading.RLock()  # handlers may be called from the control socket's threads
        self.indexes = {each: _FIRST_INDEX + n for n, each in enumerate(devices)}
        self.paused = False
        self.namespace = NetworkNamespace.create()
        stack.callback(self.namespace.close)
        with self.namespace:
            self.netlink = RtNetlink()
        stack.callback(self.netlink.close)
        self._connected: list[int] = []
        stack.callback(self._disconnect)
        self.nftables = Nftables(self.namespace)
        stack.callback(self.nftables.close)
        self._stack = stack

    @classmethod
    def instantiate(
        cls,
        program: Program | Graph | str,
        *,
        devices: Mapping[str, Device],
        name: str = "function",
        values: Mapping[str, str] | None = None,
    ) -> Function:
        """Start a function; it forwards when this returns.

        `program` may be the text of a configuration, whose variables get `values`.  Raises
        `ClickError` for a mistake in it, `ParameterError` for devices that do not fit, and
        `KernelError`; nothing is left of a function that could not be started.
        """
        if isinstance(program, str):
            program = compile_text(program, file=name, values=values)
        elif isinstance(program, Graph):
            program = compile_graph(program)
        _check_devices(program, devices)
        with ExitStack() as stack:
            function = cls(name, program, devices, stack)
            function._start()
            function._stack = stack.pop_all()
        return function

    # -- starting ---------------------------------------------------------------------------

    def _start(self) -> None:
        """Devices come up last: no packet passes before the whole program is there."""
        versions = self._versions()
        self.namespace.set_sysctls(
            {**_SETTINGS, **(_WITH_IPV6 if 6 in versions else _WITHOUT_IPV6)}
        )
        for name, device in self.devices.items():
            self._connect(name, device)
        self.nftables.run(self.program.ruleset(ipv6=6 in versions))
        conntrack.tell_all(self.namespace)
        self._verify_no_checksums()
        strings.add(self.namespace, self.program.family, TABLE, self.program.strings)
        messages = [rtnetlink.set_link(_LOOPBACK, up=True)]
        for name, device in self.devices.items():
            messages += configuration(self.indexes[name], device)
        for version in versions:
            messages += self._routing(version)
        for queues in self.program.queues:
            messages += qdiscs.install(self.indexes[queues.device], queues)
        self.netlink.batch(messages)
        for name, device in self.devices.items():
            self._await_up(name, device)

    def _verify_no_checksums(self) -> None:
        """Whoever a packet is for verifies it; connection tracking would do it on the way, too."""
        with self.namespace:
            if os.path.exists(f"/proc/sys/{_CHECKSUMS}"):  # else its module is not loaded
                sysctl(_CHECKSUMS, 0)

    def _routing(self, version: int) -> Iterator[Message]:
        """Rules and tables of all ways out."""
        yield from routing.rules(self.program.exits, version)
        for exit_ in self.program.exits:
            own, index = self.devices[exit_.device].own_routes, self.indexes[exit_.device]
            yield from routing.routes(exit_, index, own, version)

    def _versions(self) -> list[int]:
        """Versions of IP that its devices have addresses of."""
        found = {each.version for device in self.devices.values() for each in device.interfaces}
        return sorted(found | {4})

    def _connect(self, name: str, device: Device) -> None:
        """Make a device's veth pair, its far end up and on its bridge."""
        peer = self.peer(name)
        with device.platform:
            platform = RtNetlink()
        try:
            bridge = platform.index(device.bridge) if device.bridge else 0
            far = VethEnd(peer, 0, device.platform.fd, up=True, master=bridge)
            near = VethEnd(name, self.indexes[name], self.namespace.fd, mac=device.mac)
            platform.request(rtnetlink.new_veth(far, near))
            self._connected.append(near.index)
            if device.peer_addresses or device.mtu:
                index = platform.index(peer)
                messages: list[Message] = [
                    rtnetlink.add_address(index, each) for each in interfaces(device.peer_addresses)
                ]
                if device.mtu:
                    messages.append(rtnetlink.set_link(index, mtu=device.mtu))
                platform.batch(messages)
        except KernelError as error:
            raise KernelError(error.errno or 0, f"device {name} of {self.name}: {error}") from error
        finally:
            platform.close()

    def _await_up(self, name: str, device: Device) -> None:
        """Until both ends carry packets: the kernel does that some time after it was asked to.

        Newer kernels do it at the latest when somebody asks for the interface's state.
        """
        deadline = time.monotonic() + _PATIENCE_S
        with device.platform:
            platform = RtNetlink()
        try:
            ends = ((self.netlink, name), (platform, self.peer(name)))
            while any(link.link(end).operstate != _UP for link, end in ends):
                if time.monotonic() > deadline:
                    raise KernelError(
                        errno.ETIMEDOUT, f"device {name} of {self.name} does not come up"
                    )
                time.sleep(_POLL_S)
        finally:
            platform.close()

    def peer(self, device: str) -> str:
        """The name that the far end of a device has in its platform."""
        return self.devices[device].peer or f"{self.name}-{device}"[-15:]

    # -- life -------------------------------------------------------------------------------

    def pause(self) -> None:
        """Drop all packets from now on, in either direction; state stands still.

        Packets are not held: those would have to be carried to where the function goes on, and
        senders repeat them anyway.
        """
        with self.lock:
            if not self.paused:
                self.nftables.run("\n".join(f"add {each}" for each in self._gates()))
                self.paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        with self.lock:
            if self.paused:
                self.nftables.run(
                    "\n".join(f"delete {each.partition(' {')[0]}" for each in self._gates())
                )
                self.paused = False

    def _gates(self) -> list[str]:
        table = self.program.table
        return [
            f"chain {table} pause_{hook} {{ type filter hook {hook} priority -400; policy drop; }}"
            for hook in _GATES
        ]

    def add_route(self, device: str, destination: str, via: str = "") -> None:
        """Route `destination` over a device, for what the graph sends out of it and otherwise."""
        network = network_of(destination)
        index = self.indexes[device]
        messages = [rtnetlink.add_route(network, via=via, index=index)]
        for exit_ in self.program.exits:
            if exit_.device == device and not exit_.gateway:
                messages += [
                    rtnetlink.add_route(network, via=via, index=index, table=routing.table(exit_))
                ]
        self.netlink.batch(messages)

    def destroy(self) -> None:
        """End the function: its interfaces are gone when this returns.  May be called again."""
        self._stack.close()

    def _disconnect(self) -> None:
        """Remove its interfaces, but for those whose platform has gone."""
        for index in self._connected:
            try:
                self.netlink.request(rtnetlink.delete_link(index))
            except KernelError as error:
                if error.errno != errno.ENODEV:
                    raise

    def control(self, path: Path) -> ControlSocket:
        """Serve the handlers on a Unix socket until the function is destroyed."""
        served = ControlSocket(self, path)
        self._stack.callback(served.close)
        return served

    def __enter__(self) -> Function:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.destroy()

    # -- handlers ---------------------------------------------------------------------------

    def read(self, handler: str) -> str:
        """What a read handler says ("counter.count", "list"); `HandlerError` if there is none."""
        with self.lock:
            return handlers.read(self, handler)

    def has(self, handler: str, *, write: bool = False) -> None:
        """Raise `HandlerError` unless there is such a read (or write) handler."""
        handlers.find(self, handler, write=write)

    def write(self, handler: str, value: str = "") -> None:
        """Write a handler ("shaper.rate", "10Mbps"); raises `HandlerError`."""
        with self.lock:
            handlers.write(self, handler, value)


def _check_devices(program: Program, devices: Mapping[str, Device]) -> None:
    missing = [each for each in program.devices if each not in devices]
    if missing:
        raise ParameterError(
            f"{program.graph.file} uses device {missing[0]}",
            remedy=f"give it, as {', '.join(devices) or 'nothing'} is given",
        )
    versions = {each.version for device in devices.values() for each in device.interfaces}
    if program.family == "ip" and 6 in versions:
        raise ParameterError(
            f"{program.graph.file} has a Tee, which copies IPv4 only",
            remedy="give its devices no IPv6 addresses",
        )
