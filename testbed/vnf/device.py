"""Devices of a network function: what the far end is in, addresses, routes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.errors import ParameterError
from testbed.kernel import NetworkNamespace, rtnetlink
from testbed.kernel.rtnetlink import Interface, Message, Network


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device of a function: a veth pair whose far end is in a platform, such as a server.

    `platform` is the namespace of the far end, which is called `peer` there (NAME-DEVICE where
    none is given) and gets `peer_addresses` or joins `bridge`.  The function's end gets
    `addresses` ("10.1.0.2/24") and `routes`, a next hop ("" on the link) by destination.
    """

    platform: NetworkNamespace
    addresses: Sequence[str] = ()
    routes: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""
    peer_addresses: Sequence[str] = ()
    bridge: str = ""
    mac: str = ""
    mtu: int = 0

    @property
    def interfaces(self) -> list[Interface]:
        """The function's addresses; `ParameterError` for what is none."""
        return interfaces(self.addresses)

    @property
    def own_routes(self) -> dict[Network, str]:
        """Next hop by destination, with the networks that the addresses are in."""
        found: dict[Network, str] = {
            each.network: "" for each in self.interfaces if each.network.num_addresses > 1
        }
        for destination, via in self.routes.items():
            found[network(destination)] = via
        return found


def interfaces(addresses: Sequence[str]) -> list[Interface]:
    """Addresses with prefixes; `ParameterError` for what is none."""
    try:
        return [ipaddress.ip_interface(each) for each in addresses]
    except ValueError as error:
        raise ParameterError(
            f"address of a device: {error}", remedy="write one such as 10.1.0.2/24"
        ) from None


def network(destination: str) -> Network:
    """A destination, "default" among them; `ParameterError` for what is none."""
    try:
        return ipaddress.ip_network("0.0.0.0/0" if destination == "default" else destination)
    except ValueError as error:
        raise ParameterError(
            f"route of a device: {error}", remedy="write one such as 10.1.0.0/16"
        ) from None


def configuration(index: int, device: Device) -> Iterator[Message]:
    """Addresses and routes of a device, which comes up."""
    for address in device.interfaces:
        yield rtnetlink.add_address(index, address)
    yield rtnetlink.set_link(index, up=True, mtu=device.mtu)
    on_link = {each.network for each in device.interfaces}
    for destination, via in device.own_routes.items():
        if via or destination not in on_link:
            yield rtnetlink.add_route(destination, via=via, index=index)
