"""Addresses and routes by plan, from who is wired to whom; nothing here touches the kernel.

A *segment* is a set of interfaces that reach each other without a router: the two ends of a
link, or everything around a tree of switches.  The plan gives every segment an IPv4 and an IPv6
subnet and every interface an address in each (routers first, so that a gateway is usually .1),
keeping those given by hand; hosts a default route to the nearest gateway; routers a shortest
path to every segment.

A host on several segments also gets a routing table for each of its addresses: what leaves by
an address leaves by that address's interface.  Without it the second subflow of an MPTCP
connection is sent into the first interface and never comes up.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.errors import TopologyError
from testbed.kernel.rtnetlink import Interface, Network

_DEFAULTS = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_METRIC_STEP = 100


class Port(NamedTuple):
    """One interface as the plan sees it."""

    node: str
    interface: str
    router: bool = False
    switch: bool = False


Segment = tuple[Port, ...]
Addresses = dict[tuple[str, str], list[Interface]]


@dataclass(frozen=True, kw_only=True)
class AddressPlan:
    """Where planned subnets are taken from: a /24 and a /64 for each segment, in order."""

    v4: str = "10.0.0.0/8"
    v6: str = "fd00::/32"

    def subnets(self) -> tuple[Iterator[Network], Iterator[Network]]:
        """Subnets to hand out, from the second on (10.0.1.0/24, fd00:0:1::/64 come first)."""
        v4 = iter(ipaddress.IPv4Network(self.v4).subnets(new_prefix=24))
        v6 = iter(ipaddress.IPv6Network(self.v6).subnets(new_prefix=48))
        next(v4), next(v6)
        return v4, (next(iter(net.subnets(new_prefix=64))) for net in v6)


@dataclass(frozen=True)
class Route:
    """A route of one node; `via` is empty for an on-link route."""

    destination: Network
    interface: str
    via: str = ""
    metric: int = 0


@dataclass(frozen=True)
class SourceTable:
    """Routes for what leaves by `source` (a /32 or /128)."""

    source: Network
    routes: tuple[Route, ...]


@dataclass
class NodeRoutes:
    """All planned routes of one node."""

    main: list[Route] = field(default_factory=list)
    by_source: list[SourceTable] = field(default_factory=list)


def segments(links: Iterable[tuple[Port, Port]]) -> list[Segment]:
    """Group interfaces into segments: the ends of a link meet, and so do a switch's ports."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    members: list[Port] = []
    for ends in links:
        keys = []
        for port in ends:
            keys.append(f"switch {port.node}" if port.switch else f"{port.node} {port.interface}")
            if not port.switch:
                members.append(port)
        parent[root(keys[0])] = root(keys[1])
    grouped: dict[str, list[Port]] = {}
    for port in members:
        grouped.setdefault(root(f"{port.node} {port.interface}"), []).append(port)
    return [tuple(sorted(group, key=lambda port: not port.router)) for group in grouped.values()]


def plan_addresses(
    parts: Sequence[Segment],
    fixed: Mapping[tuple[str, str], Sequence[Interface]],
    plan: AddressPlan,
) -> Addresses:
    """Addresses for every interface; those in `fixed` are kept and name their segment's subnet.

    Raises `TopologyError` where a segment is given two subnets of one family, or is too large.
    """
    planned: Addresses = {}
    pools = plan.subnets()
    taken = {address.network for given in fixed.values() for address in given}
    for segment in parts:
        for version, pool in zip((4, 6), pools, strict=True):
            subnet = _subnet_by_hand(segment, fixed, version)
            if subnet is None:
                subnet = next(
                    net
                    for net in pool
                    if not any(net.overlaps(t) for t in taken if t.version == net.version)
                )
            _fill(planned, segment, fixed, subnet)
    return planned


def _subnet_by_hand(
    segment: Segment, fixed: Mapping[tuple[str, str], Sequence[Interface]], version: int
) -> Network | None:
    found = {
        address.network
        for port in segment
        for address in fixed.get((port.node, port.interface), ())
        if address.version == version
    }
    if len(found) > 1:
        names = ", ".join(port.node for port in segment)
        subnets = ", ".join(sorted(map(str, found)))
        raise TopologyError(
            f"the segment of {names} is given the subnets {subnets}",
            remedy="give its interfaces addresses of one subnet",
        )
    return found.pop() if found else None


def _fill(
    planned: Addresses,
    segment: Segment,
    fixed: Mapping[tuple[str, str], Sequence[Interface]],
    subnet: Network,
) -> None:
    """Give each interface of a segment one address of `subnet`."""
    given = {
        (port.node, port.interface): address
        for port in segment
        for address in fixed.get((port.node, port.interface), ())
        if address.version == subnet.version
    }
    used = {address.ip for address in given.values()}
    free = (ip for ip in subnet.hosts() if ip not in used)
    for port in segment:
        key = (port.node, port.interface)
        address = given.get(key)
        if address is None:
            ip = next(free, None)
            if ip is None:
                raise TopologyError(
                    f"subnet {subnet} is too small for the {len(segment)} interfaces on it",
                    remedy="give the segment a larger subnet by hand",
                )
            address = ipaddress.ip_interface(f"{ip}/{subnet.prefixlen}")
        planned.setdefault(key, []).append(address)


def plan_routes(
    parts: Sequence[Segment], addresses: Mapping[tuple[str, str], Sequence[Interface]]
) -> dict[str, NodeRoutes]:
    """Routes of every node over the given segments and addresses."""
    routes: dict[str, NodeRoutes] = {}
    for position, _segment in enumerate(parts):
        _route_towards(position, parts, addresses, routes)
    hosts = {port.node for segment in parts for port in segment if not port.router}
    for node in sorted(hosts):
        routes[node] = _host_routes(node, parts, addresses)
    return routes


def _route_towards(
    target: int,
    parts: Sequence[Segment],
    addresses: Mapping[tuple[str, str], Sequence[Interface]],
    routes: dict[str, NodeRoutes],
) -> None:
    """Add every router's shortest path to one segment (breadth first from the segment)."""
    at_router: dict[str, list[tuple[int, Port]]] = {}
    for position, segment in enumerate(parts):
        for port in segment:
            if port.router:
                at_router.setdefault(port.node, []).append((position, port))
    reached = {port.node for port in parts[target] if port.router}
    waiting = deque(reached)
    while waiting:
        closer = waiting.popleft()
        for position, towards in at_router[closer]:
            for port in parts[position]:
                if port.router and port.node not in reached:
                    reached.add(port.node)
                    waiting.append(port.node)
                    entry = routes.setdefault(port.node, NodeRoutes())
                    entry.main += _via(parts[target], port, towards, addresses)


def _via(
    target: Segment,
    port: Port,
    gateway: Port,
    addresses: Mapping[tuple[str, str], Sequence[Interface]],
) -> list[Route]:
    """Routes of `port`'s node to a segment's subnets through `gateway`, in both families."""
    sample = target[0]
    found = []
    for subnet in (address.network for address in addresses[sample.node, sample.interface]):
        via = _address(gateway, subnet.version, addresses)
        if via:
            found.append(Route(subnet, port.interface, via))
    return found


def _address(
    port: Port, version: int, addresses: Mapping[tuple[str, str], Sequence[Interface]]
) -> str:
    for address in addresses.get((port.node, port.interface), ()):
        if address.version == version:
            return str(address.ip)
    return ""


def _host_routes(
    node: str,
    parts: Sequence[Segment],
    addresses: Mapping[tuple[str, str], Sequence[Interface]],
) -> NodeRoutes:
    """Default routes of a host by order of its interfaces, and its source tables."""
    routes = NodeRoutes()
    own = [(segment, port) for segment in parts for port in segment if port.node == node]
    for number, (segment, port) in enumerate(own):
        gateway = next((other for other in segment if other.router), None)
        for address in addresses.get((node, port.interface), ()):
            via = _address(gateway, address.version, addresses) if gateway else ""
            default = next(net for net in _DEFAULTS if net.version == address.version)
            table = [Route(address.network, port.interface)]
            if via:
                metric = _METRIC_STEP * (number + 1)
                routes.main.append(Route(default, port.interface, via, metric))
                table.append(Route(default, port.interface, via))
            if len(own) > 1:
                source = ipaddress.ip_network(address.ip)
                routes.by_source.append(SourceTable(source, tuple(table)))
    return routes
