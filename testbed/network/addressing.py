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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from testbed.errors import TopologyError
from testbed.kernel.rtnetlink import Interface, Network
from testbed.network.paths import CONNECTED, Array, aggregate, neighbourhoods, next_hops

_DEFAULTS = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_METRIC_STEP = 100
AGGREGATED_FROM = 256  # segments; below, subnets follow the order of links, one route to each
_SPARSE = 4  # subnets scattered more widely than this over a plan are not aggregated


class Port(NamedTuple):
    """One interface as the plan sees it."""

    node: str
    interface: str
    router: bool = False
    switch: bool = False


Segment = tuple[Port, ...]
Addresses = dict[tuple[str, str], list[Interface]]


class Block(NamedTuple):
    """Equal parts that a plan's range is made of: a segment's subnet lies at the start of one."""

    range: Network
    prefix: int
    subnet_prefix: int

    def number(self, subnet: Network) -> int | None:
        """Which part begins with `subnet` (None where it is not one that the plan gives)."""
        offset = int(subnet.network_address) - int(self.range.network_address)
        number, rest = divmod(offset, 1 << (self.range.max_prefixlen - self.prefix))
        fits = not rest and 0 <= number < self.parts
        planned = subnet.prefixlen == self.subnet_prefix and fits
        return number if planned else None

    def network(self, number: int, doubled: int = 0) -> Network:
        """The part with this number, doubled so many times."""
        width = self.range.max_prefixlen
        start = int(self.range.network_address) + (number << (width - self.prefix))
        # of the class of the range: a small IPv6 number would be taken for an IPv4 address
        return type(self.range)((start, self.prefix - doubled))

    @property
    def parts(self) -> int:
        """How many there are."""
        return 1 << max(0, self.prefix - self.range.prefixlen)

    def subnet(self, part: Network) -> Network:
        """What a segment gets of a part."""
        return type(part)((int(part.network_address), self.subnet_prefix))


@dataclass(frozen=True, kw_only=True)
class AddressPlan:
    """Where planned subnets are taken from: a /24 and a /64 for each segment, in order.

    (10.0.1.0/24 and fd00:0:1::/64 come first; the rest of fd00:0:1::/48 stays free.)
    """

    v4: str = "10.0.0.0/8"
    v6: str = "fd00::/32"

    def block(self, version: int) -> Block:
        """How the range of one family is parted."""
        if version == 4:
            return Block(ipaddress.IPv4Network(self.v4), 24, 24)
        return Block(ipaddress.IPv6Network(self.v6), 48, 64)


class Route(NamedTuple):
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

    Subnets are handed out in the order of `parts`; from 256 on, in one that keeps neighbours
    together and lets groups begin at powers of two, so that routes aggregate.  Raises
    `TopologyError` where a segment is given two subnets of one family or is too large, or the
    plan has too few.
    """
    planned: Addresses = {}
    taken = {address.network for given in fixed.values() for address in given}
    pools = [_Pool(plan.block(version), taken) for version in (4, 6)]
    for group, aligned in _groups(parts, pools):
        for pool in pools:
            pool.align(len(group) if aligned else 1)
        for segment in (parts[place] for place in group):
            for version, pool in zip((4, 6), pools, strict=True):
                subnet = _subnet_by_hand(segment, fixed, version) or pool.take()
                _fill(planned, segment, fixed, subnet)
    return planned


def _groups(parts: Sequence[Segment], pools: Sequence[_Pool]) -> Iterator[tuple[list[int], bool]]:
    """In which order segments get subnets, and which of them begin at a power of two."""
    if len(parts) < AGGREGATED_FROM:
        yield list(range(len(parts))), False
        return
    members, names = _routers(parts)
    groups = neighbourhoods(members, len(names))
    # twice a group's size is always enough to begin it anew at a power of two
    room = min(pool.block.parts for pool in pools) > 4 * len(parts)
    yield from ((group, room) for group in groups)


class _Pool:
    """Subnets of a plan that are still free."""

    def __init__(self, block: Block, taken: Iterable[Network]) -> None:
        self.block = block
        self._taken = [net for net in taken if net.version == block.range.version]
        self._next = 1  # 10.0.1.0/24 and fd00:0:1::/64 come first

    def align(self, size: int) -> None:
        """Let the next subnet begin a part of the range that has room for `size` of them."""
        step = 1 << (size - 1).bit_length()
        self._next = -(-self._next // step) * step

    def take(self) -> Network:
        """The next subnet clear of those given by hand."""
        while self._next < self.block.parts:
            part = self.block.network(self._next)
            self._next += 1
            if not any(part.overlaps(other) for other in self._taken):
                return self.block.subnet(part)
        raise TopologyError(
            f"{self.block.range} has only {self.block.parts - 1} subnets to plan with",
            remedy="give AddressPlan a shorter prefix",
        )


def _routers(parts: Sequence[Segment]) -> tuple[list[list[int]], list[str]]:
    """The routers of each segment by number, and their names."""
    numbers: dict[str, int] = {}
    members = [
        [numbers.setdefault(port.node, len(numbers)) for port in segment if port.router]
        for segment in parts
    ]
    return members, list(numbers)


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
            address = _interface(int(ip), subnet)
        planned.setdefault(key, []).append(address)


def _interface(ip: int, subnet: Network) -> Interface:
    kind = ipaddress.IPv4Interface if subnet.version == 4 else ipaddress.IPv6Interface
    return kind((ip, subnet.prefixlen))


def plan_routes(
    parts: Sequence[Segment],
    addresses: Mapping[tuple[str, str], Sequence[Interface]],
    plan: AddressPlan | None = None,
) -> dict[str, NodeRoutes]:
    """Routes of every node over the given segments and addresses.

    Neighbouring subnets of `plan` that a router reaches through one next hop are one route.
    """
    routes = _router_routes(parts, addresses, plan or AddressPlan())
    at_host: dict[str, list[tuple[Segment, Port]]] = {}
    for segment in parts:
        for port in segment:
            if not port.router:
                at_host.setdefault(port.node, []).append((segment, port))
    for node, own in at_host.items():
        routes[node] = _host_routes(own, addresses)
    return routes


def _router_routes(
    parts: Sequence[Segment],
    addresses: Mapping[tuple[str, str], Sequence[Interface]],
    plan: AddressPlan,
) -> dict[str, NodeRoutes]:
    """Routes of routers along shortest paths (see `paths`)."""
    members, names = _routers(parts)
    first, hops = next_hops(members, len(names))
    port_at = {
        (port.node, place): port
        for place, segment in enumerate(parts)
        for port in segment
        if port.router
    }
    ends = [
        (port_at[names[here], place], port_at[names[there], place]) for here, place, there in hops
    ]
    routes = {name: NodeRoutes() for name in names}
    for version in (4, 6):
        via = [_address(gateway, version, addresses) for _port, gateway in ends]
        subnets = [_subnet(segment, version, addresses) for segment in parts]
        for router, destination, hop in _table(first, subnets, plan.block(version)):
            if via[hop]:
                route = Route(destination, ends[hop][0].interface, via[hop])
                routes[names[router]].main.append(route)
    return routes


def _table(
    first: Array, subnets: Sequence[Network | None], plan: Block
) -> Iterator[tuple[int, Network, int]]:
    """Router, destination and hop of each route; from AGGREGATED_FROM on, aggregated."""
    places = _places(subnets, plan) if len(subnets) >= AGGREGATED_FROM else {}
    others = sorted(set(range(len(subnets))) - set(places.values()))
    for place in others:
        subnet = subnets[place]
        if subnet is not None:
            for router in np.flatnonzero(first[:, place] != CONNECTED).tolist():
                yield router, subnet, int(first[router, place])
    if not places:
        return
    blocks = _blocks(first, places, plan, [subnets[place] for place in others])
    used = np.cumsum([number in places for number in range(blocks.shape[1])])
    for doubled, routers, starts, hops in aggregate(blocks):
        ends = np.minimum(starts + (1 << doubled), len(used)) - 1
        some = used[ends] > np.where(starts > 0, used[starts - 1], 0)
        known: dict[int, Network] = {}
        for router, start, hop in zip(
            *(a[some].tolist() for a in (routers, starts, hops)), strict=True
        ):
            if start not in known:
                alone = None if doubled else subnets[places[start]]
                known[start] = alone or plan.network(start, doubled)
            yield router, known[start], hop


def _blocks(
    first: Array, places: Mapping[int, int], plan: Block, others: Iterable[Network | None]
) -> Array:
    """Next hops by router and block of the plan.

    A block that nobody uses goes with the one before it: it is routed to that segment's router,
    which has no route to it.  So what alignment leaves free does not keep others apart.
    """
    blocks = np.full((len(first), max(places) + 1), CONNECTED, np.int32)
    foreign = [net for net in others if net is not None and net.overlaps(plan.range)]
    column = None
    for number in range(min(places), max(places) + 1):
        if number in places:
            column = first[:, places[number]]
        elif any(plan.network(number).overlaps(net) for net in foreign):
            column = None
        if column is not None:
            blocks[:, number] = column
    return blocks


def _places(subnets: Sequence[Network | None], plan: Block) -> dict[int, int]:
    """Blocks of the plan that are one segment's alone, and which segment's."""
    users: dict[int, list[int]] = {}
    for place, subnet in enumerate(subnets):
        number = plan.number(subnet) if subnet else None
        if number is not None and number < _SPARSE * len(subnets):
            users.setdefault(number, []).append(place)
    return {number: places[0] for number, places in users.items() if len(places) == 1}


def _subnet(
    segment: Segment,
    version: int,
    addresses: Mapping[tuple[str, str], Sequence[Interface]],
) -> Network | None:
    for port in segment:
        for address in addresses.get((port.node, port.interface), ()):
            if address.version == version:
                return address.network
    return None


def _address(
    port: Port, version: int, addresses: Mapping[tuple[str, str], Sequence[Interface]]
) -> str:
    for address in addresses.get((port.node, port.interface), ()):
        if address.version == version:
            return str(address.ip)
    return ""


def _host_routes(
    own: Sequence[tuple[Segment, Port]],
    addresses: Mapping[tuple[str, str], Sequence[Interface]],
) -> NodeRoutes:
    """Default routes of a host by order of its interfaces, and its source tables."""
    routes = NodeRoutes()
    for number, (segment, port) in enumerate(own):
        gateway = next((other for other in segment if other.router), None)
        for address in addresses.get((port.node, port.interface), ()):
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
