"""Addresses and routes by plan, without a kernel."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import TopologyError
from testbed.network import addressing
from testbed.network.addressing import (
    AddressPlan,
    Port,
    Segment,
    plan_addresses,
    plan_routes,
    segments,
)


def port(node: str, interface: str = "eth0") -> Port:
    return Port(node, interface, router=node.startswith("r"), switch=node.startswith("s"))


def chain(routers: int) -> list[Segment]:
    """h1 - r1 - r2 - ... - rn - h2."""
    names = ["h1", *[f"r{i}" for i in range(1, routers + 1)], "h2"]
    return segments((port(a, f"to-{b}"), port(b, f"to-{a}")) for a, b in itertools.pairwise(names))


def test_switches_join_segments() -> None:
    found = segments(
        [
            (port("h1"), port("s1", "1")),
            (port("h2"), port("s1", "2")),
            (port("s1", "3"), port("s2", "1")),
            (port("s2", "2"), port("r1")),
            (port("h3"), port("h4")),
        ]
    )
    names = [sorted(member.node for member in part) for part in found]
    assert sorted(names) == [["h1", "h2", "r1"], ["h3", "h4"]]
    assert next(part for part in found if len(part) == 3)[0].node == "r1"


def test_every_interface_gets_one_address_of_each_family_and_no_two_the_same() -> None:
    addresses = plan_addresses(chain(5), {}, AddressPlan())
    everything = [address for given in addresses.values() for address in given]
    assert len(set(everything)) == len(everything) == 2 * len(addresses) == 24
    assert str(addresses["r1", "to-h1"][0]) == "10.0.1.1/24"
    assert str(addresses["h1", "to-r1"][1]) == "fd00:0:1::2/64"


def test_an_address_by_hand_names_its_segments_subnet() -> None:
    fixed = {("h1", "to-r1"): [ipaddress.ip_interface("172.16.0.9/29")]}
    addresses = plan_addresses(chain(1), fixed, AddressPlan())
    assert addresses["r1", "to-h1"][0] == ipaddress.ip_interface("172.16.0.10/29")
    assert addresses["r1", "to-h1"][1].version == 6


def test_planned_subnets_keep_clear_of_those_by_hand() -> None:
    fixed = {("h1", "to-r1"): [ipaddress.ip_interface("10.0.1.9/24")]}
    addresses = plan_addresses(chain(1), fixed, AddressPlan())
    assert addresses["h2", "to-r1"][0].network == ipaddress.ip_network("10.0.2.0/24")


def test_two_subnets_on_one_segment_are_refused() -> None:
    fixed = {
        ("h1", "to-r1"): [ipaddress.ip_interface("10.0.1.9/24")],
        ("r1", "to-h1"): [ipaddress.ip_interface("10.0.2.9/24")],
    }
    with pytest.raises(TopologyError, match=r"10\.0\.1\.0/24, 10\.0\.2\.0/24"):
        plan_addresses(chain(1), fixed, AddressPlan())


def test_a_segment_too_large_for_its_subnet_is_refused() -> None:
    part = tuple(port(f"h{i}") for i in range(1, 6))
    fixed = {("h1", "eth0"): [ipaddress.ip_interface("10.0.0.1/30")]}
    with pytest.raises(TopologyError, match="too small"):
        plan_addresses([part], fixed, AddressPlan())


@given(st.integers(1, 8))
def test_routers_in_a_chain_forward_towards_both_ends(count: int) -> None:
    parts = chain(count)
    addresses = plan_addresses(parts, {}, AddressPlan())
    routes = plan_routes(parts, addresses)
    last = addresses["h2", f"to-r{count}"][0].network
    for i in range(1, count):
        (towards,) = [r for r in routes[f"r{i}"].main if r.destination == last]
        assert towards.via == str(addresses[f"r{i + 1}", f"to-r{i}"][0].ip)
        assert towards.interface == f"to-r{i + 1}"


def test_a_multihomed_host_leaves_by_the_interface_of_its_address() -> None:
    parts = segments(
        [
            (port("h1", "wifi"), port("r1", "a")),
            (port("h1", "lte"), port("r2", "a")),
            (port("r1", "b"), port("r2", "b")),
        ]
    )
    addresses = plan_addresses(parts, {}, AddressPlan())
    routes = plan_routes(parts, addresses)["h1"]
    assert [(r.interface, r.metric) for r in routes.main if r.destination.version == 4] == [
        ("wifi", 100),
        ("lte", 200),
    ]
    assert len(routes.by_source) == 4
    for table in routes.by_source:
        owner = next(
            name
            for (node, name), given in addresses.items()
            if node == "h1" and table.source.network_address in [a.ip for a in given]
        )
        assert {route.interface for route in table.routes} == {owner}
        assert table.routes[-1].destination.prefixlen == 0


def test_a_host_with_one_interface_needs_no_source_table() -> None:
    parts = chain(1)
    routes = plan_routes(parts, plan_addresses(parts, {}, AddressPlan()))
    assert routes["h1"].by_source == []
    assert [str(route.destination) for route in routes["h1"].main] == ["0.0.0.0/0", "::/0"]


# -- routers in any graph ------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> list[Segment]:
    """Up to nine routers, any links between them, a host on some, one LAN of several."""
    count = draw(st.integers(1, 9))
    pairs = list(itertools.combinations(range(count), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links = [(port(f"r{a}", f"to-{b}"), port(f"r{b}", f"to-{a}")) for a, b in chosen]
    for router in draw(st.sets(st.integers(0, count - 1), max_size=4)):
        links.append((port(f"r{router}", "lan"), port("s1", f"to-{router}")))
    for router in draw(st.lists(st.integers(0, count - 1), max_size=6)):
        host = f"h{len(links)}"
        links.append((port(host), port(f"r{router}", f"to-{host}")))
    return segments(links)


def distances(parts: list[Segment], target: Segment) -> dict[str, int]:
    """Hops from each router to a segment, by plain search."""
    away = {member.node: 0 for member in target if member.router}
    for hops in range(1, 12):
        reached = set(away)
        for part in parts:
            routers = [member.node for member in part if member.router]
            if reached.intersection(routers):
                away.update((node, hops) for node in routers if node not in away)
    return away


def lookup(routes: list[Any], address: Any) -> Any:
    """The route that the kernel would take: the longest prefix."""
    fits = [route for route in routes if address.ip in route.destination]
    return max(fits, key=lambda route: route.destination.prefixlen, default=None)


def owners(addresses: Any) -> dict[str, str]:
    return {str(one.ip): node for (node, _name), given in addresses.items() for one in given}


@given(graphs(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_next_hop_is_on_a_shortest_path(parts: list[Segment], small: bool) -> None:
    with aggregated_from(2 if small else 256):
        addresses = plan_addresses(parts, {}, AddressPlan())
        routes = plan_routes(parts, addresses)
    owner = owners(addresses)
    for target in parts:
        away = distances(parts, target)
        for node, table in routes.items():
            if not node.startswith("r"):
                continue
            for address in addresses[target[0].node, target[0].interface]:
                route = lookup(table.main, address)
                if away.get(node, 0) == 0:
                    assert route is None  # its own, or out of reach
                else:
                    assert away[owner[route.via]] == away[node] - 1


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_aggregation_changes_no_next_hop(parts: list[Segment]) -> None:
    with aggregated_from(2):
        addresses = plan_addresses(parts, {}, AddressPlan())
        short = plan_routes(parts, addresses)
    full = plan_routes(parts, addresses)
    assert sum(len(r.main) for r in short.values()) <= sum(len(r.main) for r in full.values())
    for node, table in full.items():
        for own in addresses.values():
            for address in own:
                one, other = (lookup(t.main, address) for t in (table, short[node]))
                assert (one and one[1:]) == (other and other[1:])


@given(graphs(), st.integers(0, 1 << 16))
@settings(max_examples=60, deadline=None)
def test_packets_to_addresses_nobody_has_do_not_circle(parts: list[Segment], block: int) -> None:
    with aggregated_from(2):
        addresses = plan_addresses(parts, {}, AddressPlan())
        routes = plan_routes(parts, addresses)
    owner = owners(addresses)
    nobody = ipaddress.ip_interface(f"10.{block % 2}.{block % 64}.250/24")
    for start in routes:
        passed, node = {start}, start
        while route := lookup(routes[node].main, nobody):
            node = owner[route.via]
            assert node not in passed
            passed.add(node)


@contextmanager
def aggregated_from(segments: int) -> Iterator[None]:
    """Let networks be large from so many segments on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addressing, "AGGREGATED_FROM", segments)
        yield


def test_subnets_by_hand_are_neither_planned_nor_swallowed() -> None:
    parts = chain(6)
    fixed = {
        ("r3", "to-r4"): [
            ipaddress.ip_interface("10.0.2.0/23"),
            ipaddress.ip_interface("fd00:0:2:9::1/64"),
        ],
    }
    with aggregated_from(2):
        addresses = plan_addresses(parts, fixed, AddressPlan())
        routes = plan_routes(parts, addresses)
    subnets = [addresses[part[0].node, part[0].interface] for part in parts]
    for a, b in itertools.combinations([address.network for own in subnets for address in own], 2):
        assert a.version != b.version or not a.overlaps(b)
    assert {r.via for r in routes["r1"].main} == {str(a.ip) for a in addresses["r2", "to-r1"]}


def test_a_plan_with_too_few_subnets_is_refused() -> None:
    with pytest.raises(TopologyError, match="only 3 subnets"):
        plan_addresses(chain(4), {}, AddressPlan(v4="10.0.0.0/22"))
