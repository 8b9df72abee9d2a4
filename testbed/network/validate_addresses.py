"""What can be wrong with the addresses and default routes of a topology; see `validate`."""

from __future__ import annotations

import ipaddress
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from testbed.network import rules
from testbed.network.findings import Problem, found_by
from testbed.network.sketch import Address, End, Given, Node, Sketch

Network = tuple[int, int, int]
"""Version, first address, prefix length."""


@dataclass(frozen=True)
class Addressed:
    """An address on an end of a link."""

    end: End
    address: Address
    given: Given

    @property
    def node(self) -> Node:
        """Whose it is."""
        return self.end.node

    @property
    def network(self) -> Network:
        """The network its prefix makes."""
        return self.address.network


Part = list[tuple[End, list[Addressed]]]


def address_problems(sketch: Sketch) -> Iterator[Problem]:
    """Everything that is wrong with MAC addresses, IP addresses and default routes."""
    yield from _hardware(sketch)
    for node in sketch.unaddressed:
        yield Problem(f"ipBase has no address left for {node.name}", "give a larger one", None)
    parts: list[Part] = []
    for segment in sketch.segments:
        part: Part = []
        for end in segment:
            good: list[Addressed] = []
            for given in end.addresses:
                yield from _taken(end, given, good)
            part.append((end, good))
        parts.append(part)
        yield from _twice(part)
        yield from _contradictions(part, sketch.routed)
    yield from _overlaps_at_a_node(parts)
    if sketch.routed:
        yield from _overlaps_between(parts)
    yield from _default_routes(sketch, parts)


def _taken(end: End, given: Given, good: list[Addressed]) -> Iterator[Problem]:
    """Add an address to `good` if it can be one; a problem otherwise."""
    if isinstance(given.text, Address) and not given.text.is_broadcast:
        good.append(Addressed(end, given.text, given))
        return
    with found_by(given.place) as found:
        address = rules.address(str(given.text), given.version, owner=str(end), prefix=given.prefix)
        rules.host_address(address, owner=str(end))
        good.append(Addressed(end, Address.of(address), given))
    yield from found


def _hardware(sketch: Sketch) -> Iterator[Problem]:
    for segment in sketch.segments:
        seen: dict[str, End] = {}
        for end in segment:
            if not end.mac:
                continue
            with found_by(end.place) as found:
                rules.mac_address(end.mac, owner=str(end))
            yield from found
            other = seen.setdefault(str(end.mac).lower(), end)
            if other is not end and not _apart(end, other):
                yield Problem(
                    f"{other} and {end} have one MAC address, {end.mac}, in one segment",
                    "give each its own, or none", end.node.place or end.place,
                )  # fmt: skip


def _apart(one: End, other: End) -> bool:
    """Are they in different VLANs?"""
    return one.node.params.get("vlan") != other.node.params.get("vlan")


# -- within a segment ----------------------------------------------------------------------------


def _twice(part: Part) -> Iterator[Problem]:
    seen: dict[tuple[int, int], Addressed] = {}
    for each in _all(part):
        other = seen.setdefault(each.address[:2], each)
        if other is each or _apart(each.end, other.end):
            continue
        first, second = sorted((other, each), key=lambda a: a.given.place or ("", 0))
        where = f" ({first.given.place})" if first.given.place else ""
        yield Problem(
            f"{second.end} has the address {_ip(each)} that {first.end}{where} has, "
            "in one segment",
            "give each its own", second.given.place,
        )  # fmt: skip


def _contradictions(part: Part, routed: bool) -> Iterator[Problem]:
    """Two prefixes on one segment: what one takes for a neighbour must not be a stranger to it."""
    planned = routed and any(end.node.router for end, _addresses in part)
    by_network: dict[Network, list[Addressed]] = defaultdict(list)
    for each in _all(part):
        by_network[each.network].append(each)
    for one, two in itertools.combinations(by_network, 2):
        if one[0] != two[0]:
            continue
        examples = by_network[one][0], by_network[two][0]
        if planned or _one_sided(by_network[one], by_network[two], part):
            yield Problem(
                f"{examples[1].end} has {examples[1].address} in a segment where {examples[0].end} "
                f"has {examples[0].address}",
                "give the interfaces of a segment addresses of one subnet",
                max(filter(None, (each.given.place for each in examples)), default=None),
            )  # fmt: skip


def _one_sided(one: list[Addressed], two: list[Addressed], part: Part) -> bool:
    """Does one of `one` find one of `two` on its link, but not the other way round, no gateway?"""
    if not _overlap(one[0].network, two[0].network) or _unknowable(part):
        return False
    wide, narrow = sorted((one, two), key=lambda group: group[0].address.length)
    strangers = any(not _within(each.address, narrow[0].network) for each in wide)
    return strangers and any(not each.node.params.get("defaultRoute") for each in narrow)


def _unknowable(part: Part) -> bool:
    """May there be addresses, or ways to hand packets on, that are not written down?"""
    return any(end.node.configures_itself for end, _ in part) or any(
        other.node.programmable for end, _ in part for other in end.link.ends
    )


def _all(part: Part) -> Iterator[Addressed]:
    return (each for _end, addresses in part for each in addresses)


# -- between segments ----------------------------------------------------------------------------


def _overlaps_at_a_node(parts: Iterable[Part]) -> Iterator[Problem]:
    at: dict[str, list[tuple[int, Addressed]]] = defaultdict(list)
    for number, part in enumerate(parts):
        for each in _all(part):
            if each.given.by_hand and not each.node.configures_itself:
                at[each.node.name].append((number, each))
    for name, found in at.items():
        for (one, first), (two, second) in itertools.combinations(found, 2):
            if one != two and _overlap(first.network, second.network):
                yield Problem(
                    f"{name} has {first.address} on {first.end} and {second.address} on "
                    f"{second.end}: overlapping subnets on different segments",
                    "give the segments subnets that do not overlap",
                    max(filter(None, (first.given.place, second.given.place)), default=None),
                )  # fmt: skip


def _overlaps_between(parts: Iterable[Part]) -> Iterator[Problem]:
    """Subnets given by hand to different segments with routers: routes would contradict."""
    given = [
        (each.network, number, each)
        for number, part in enumerate(parts)
        if any(end.node.router for end, _ in part)
        for each in {a.network: a for a in _all(part)}.values()
    ]
    given.sort(key=lambda found: found[0])
    widest: tuple[Network, int, Addressed] | None = None
    for found in given:
        if widest and found[1] != widest[1] and _overlap(found[0], widest[0]):
            pair = sorted((widest[2], found[2]), key=lambda a: a.given.place or ("", 0))
            if pair[0].node is not pair[1].node:  # said of the node already
                yield Problem(
                    f"{pair[1].end} has {pair[1].address} and {pair[0].end} has "
                    f"{pair[0].address}: overlapping subnets on different segments",
                    "give the segments subnets that do not overlap", pair[1].given.place,
                )  # fmt: skip
        if widest is None or not _overlap(found[0], widest[0]):
            widest = found


def _overlap(one: Network, two: Network) -> bool:
    wide, narrow = sorted((one, two), key=lambda network: network[2])
    return one[0] == two[0] and _within(Address(*narrow), wide)


def _within(address: Address, network: Network) -> bool:
    version, number, _length = address
    return version == network[0] and Address(version, number, network[2]).network == network


def _ip(each: Addressed) -> str:
    return str(each.address).partition("/")[0]


# -- default routes ------------------------------------------------------------------------------


def _default_routes(sketch: Sketch, parts: Iterable[Part]) -> Iterator[Problem]:
    wanted = [n for n in sketch.nodes.values() if n.params.get("defaultRoute")]
    if not wanted:
        return
    of_node: dict[str, list[tuple[Part, Addressed | None]]] = defaultdict(list)
    for part in parts:
        for end, addresses in part:
            of_node[end.node.name] += [(part, each) for each in addresses] or [(part, None)]
    for node in wanted:
        with found_by(node.place) as found:
            route = rules.default_route(node.params["defaultRoute"], owner=node.name)
            yield from _gateway(node, route, sketch.routed, of_node[node.name])
        yield from found


def _gateway(
    node: Node,
    route: dict[str, str],
    routed: bool,
    own: list[tuple[Part, Addressed | None]],
) -> Iterator[Problem]:
    """Is the gateway on a segment of the node, and does somebody there have its address?"""
    dev, via = route.get("dev"), route.get("via", "")
    if dev and not node.configures_itself and dev not in [str(end.name) for end in node.ends]:
        yield Problem(
            f"{node.name}: default route through {dev!r}, which it does not have",
            f"choose of {', '.join(str(end.name) for end in node.ends)}",
            node.place,
        )
    if not via or node.configures_itself or (routed and any(each is None for _, each in own)):
        return
    gateway = ipaddress.ip_interface(via)
    near = [part for part, each in own if each and _within(Address.of(gateway), each.network)]
    if not near:
        yield Problem(
            f"{node.name}: default route via {via}, which is on no segment of it",
            "give it an address of that subnet, or another gateway",
            node.place,
        )
        return
    for part in near:
        if _unknowable(part) or (routed and any(not addresses for _end, addresses in part)):
            return
        if any(a.address.number == int(gateway) and a.node is not node for a in _all(part)):
            return
    yield Problem(
        f"{node.name}: default route via {via}, which nobody on its segment has",
        "name the address of a router or NAT there",
        node.place,
    )
