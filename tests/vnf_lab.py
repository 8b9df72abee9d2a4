"""Hosts around a network function, for live tests: clients on one side, servers on the other.

    client 10.1.0.1/24 -- bridge "inside" -- eth0 [function] eth1 -- bridge "outside" -- servers

The function is 10.1.0.254 and 10.2.0.254; servers are 10.2.0.1, 10.2.0.2, ...
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import testbed.vnf
from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.vnf.function import Device, Function

INSIDE, OUTSIDE = "10.1.0.254", "10.2.0.254"
_BRIDGES = {"inside": 10, "outside": 11}


def example(name: str) -> str:
    """The text of one of the examples that come with the testbed."""
    return (Path(testbed.vnf.__file__).parent / "examples" / f"{name}.click").read_text()


def configure(
    host: NetworkNamespace, index: int, address: str = "", *, route: str = "", via: str = ""
) -> None:
    """Another address for an interface of a host, or a route (to everywhere) over it."""
    with host:
        netlink = RtNetlink()
    if address:
        netlink.request(rtnetlink.add_address(index, ipaddress.ip_interface(address)))
    if via:
        everywhere = "::/0" if ":" in via else "0.0.0.0/0"
        network = ipaddress.ip_network(route or everywhere)
        netlink.request(rtnetlink.add_route(network, via=via, index=index))
    netlink.close()


class Lab:
    """A platform with two bridges, hosts on them, and functions between."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.platform = NetworkNamespace.create()
        self._stack.callback(self.platform.close)
        with self.platform:
            self._netlink = RtNetlink()
        self._stack.callback(self._netlink.close)
        self._netlink.batch(
            [rtnetlink.new_link("bridge", name, index) for name, index in _BRIDGES.items()]
        )
        self._hosts = 0

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def host(self, address: str, *, bridge: str, gateway: str = "") -> NetworkNamespace:
        """A host with one interface, up when this returns."""
        host = NetworkNamespace.create()
        self._stack.callback(host.close)
        self._hosts += 1
        far = rtnetlink.VethEnd(
            f"h{self._hosts}", 0, self.platform.fd, up=True, master=_BRIDGES[bridge]
        )
        self._netlink.request(rtnetlink.new_veth(far, rtnetlink.VethEnd("e0", 2, host.fd)))
        with host:
            netlink = RtNetlink()
        messages = [
            rtnetlink.set_link(1, up=True),
            rtnetlink.add_address(2, ipaddress.ip_interface(address)),
            rtnetlink.set_link(2, up=True),
        ]
        if gateway:
            everywhere = ipaddress.ip_network("0.0.0.0/0")
            messages.append(rtnetlink.add_route(everywhere, via=gateway, index=2))
        netlink.batch(messages)
        while netlink.link("e0").operstate != 6 or self._netlink.link(far.name).operstate != 6:
            pass
        netlink.close()
        return host

    def client(self, number: int = 1) -> NetworkNamespace:
        """10.1.0.NUMBER, which reaches everything over the function."""
        return self.host(f"10.1.0.{number}/24", bridge="inside", gateway=INSIDE)

    def server(self, number: int = 1, *, gateway: str = OUTSIDE) -> NetworkNamespace:
        """10.2.0.NUMBER, which reaches everything over the function."""
        return self.host(f"10.2.0.{number}/24", bridge="outside", gateway=gateway)

    def devices(self, *extra: str) -> dict[str, Device]:
        """The function's devices; `extra` are more addresses of the outer one."""
        inside = Device(platform=self.platform, addresses=[f"{INSIDE}/24"], bridge="inside")
        outside = Device(
            platform=self.platform, addresses=[f"{OUTSIDE}/24", *extra], bridge="outside"
        )
        return {"eth0": inside, "eth1": outside}

    def function(self, text: str, *extra: str, values: Mapping[str, str] | None = None) -> Function:
        """A running function, destroyed with the lab."""
        found = Function.instantiate(text, devices=self.devices(*extra), values=values)
        self._stack.callback(found.destroy)
        return found

    def listen(self, host: NetworkNamespace, port: int, kind: int = socket.SOCK_STREAM) -> Any:
        """A socket that waits for clients, closed with the lab."""
        with host:
            found = socket.socket(type=kind)
        self._stack.callback(found.close)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.settimeout(10)
        found.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            found.listen(64)
        return found

    def socket(self, host: NetworkNamespace, kind: int = socket.SOCK_STREAM) -> Any:
        """A socket in a host that gives up after ten seconds, closed with the lab."""
        with host:
            found = socket.socket(type=kind)
        self._stack.callback(found.close)
        found.settimeout(10)
        return found

    def connect(self, host: NetworkNamespace, address: str, port: int) -> Any:
        """A TCP connection from a host."""
        found = self.socket(host)
        found.connect((address, port))
        return found
