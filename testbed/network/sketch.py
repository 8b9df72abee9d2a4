"""What a topology will become, before any of it exists: nodes, the ends of links, addresses.

A `Sketch` is drawn from a `Topo`, following what Mininet does when it builds one (names of
interfaces, ports, default addresses), or from a network that was put together call by call and
has no addresses yet.  It touches no kernel.  Whether what is drawn can be meant, `validate` says.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mininet.link import Link as MininetLink
from mininet.topo import Topo

from testbed.kernel.rtnetlink import Interface
from testbed.network.adapt import adapt
from testbed.network.link import Link, TCLink
from testbed.network.node import Host, Router
from testbed.network.node import Node as OurNode
from testbed.network.ovs import OVSSwitch
from testbed.network.sets import Sets
from testbed.network.switch import Bridge, Switch
from testbed.network.where import Place, Written

if TYPE_CHECKING:
    from testbed.network.net import Network

_OWN_ROOMS = ("mininet.", "testbed.")


class Address(NamedTuple):
    """An address with its prefix, as numbers (a thousandth of what ipaddress's classes cost)."""

    version: int
    number: int
    length: int

    @classmethod
    def of(cls, interface: Interface) -> Address:
        """The same as numbers."""
        return cls(interface.version, int(interface), interface.network.prefixlen)

    @property
    def network(self) -> tuple[int, int, int]:
        """Version, address and prefix length of its network."""
        bits = (32 if self.version == 4 else 128) - self.length
        return self.version, self.number >> bits << bits, self.length

    @property
    def is_broadcast(self) -> bool:
        """Is it the last address of an IPv4 network?"""
        return self.version == 4 and not ~self.number & (1 << 32 - self.length) - 1

    def __str__(self) -> str:
        ip = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        return f"{ip(self.number)}/{self.length}"


class Given(NamedTuple):
    """An address as it was written by hand, or (as `Address`) counted by Mininet."""

    text: Any
    version: int
    prefix: str = ""  # its length where `text` has none
    place: Place | None = None

    @property
    def by_hand(self) -> bool:
        """Did the user write it?"""
        return not isinstance(self.text, Address)


@dataclass(eq=False)
class End:
    """One end of a link."""

    node: Node
    port: Any
    name: Any
    mac: Any
    addresses: list[Given]
    place: Place | None
    link: Drawn = field(init=False)

    def __str__(self) -> str:
        named = str(self.name).startswith(f"{self.node.name}-")
        return str(self.name) if named else f"{self.node.name}:{self.name}"


@dataclass(eq=False)
class Drawn:
    """A link: its two ends, and its parameters where `Link` will interpret them."""

    ends: tuple[End, End]
    params: dict[str, Any] | None
    place: Place | None

    def __post_init__(self) -> None:
        for end in self.ends:
            end.link = self


@dataclass(eq=False)
class Node:
    """A node: its class on top of this engine (None where a function makes it), its parameters."""

    name: str
    cls: type | None
    params: Mapping[str, Any]
    switch: bool
    place: Place | None
    ends: list[End] = field(default_factory=list)

    @functools.cached_property
    def router(self) -> bool:
        """Does it take part in routing by plan?"""
        return self._is(Router)

    @functools.cached_property
    def bridge(self) -> bool:
        """Is it a Linux bridge?"""
        return self._is(Bridge)

    @functools.cached_property
    def is_interface(self) -> bool:
        """Does the kernel have an interface of this node's name?"""
        return self._is(Bridge) or self._is(OVSSwitch)

    @functools.cached_property
    def floods(self) -> bool:
        """Is it a bridge that certainly runs no spanning tree?"""
        return self.bridge and not self.params.get("stp") and not self._of_the_user("__init__")

    @functools.cached_property
    def learns(self) -> bool:
        """Does it, for all that is known, forward like a bridge without spanning tree?"""
        return self.floods or (self._is(OVSSwitch) and not self.params.get("stp"))

    @functools.cached_property
    def programmable(self) -> bool:
        """May it forward otherwise than a plain bridge (OpenFlow, a class of the user's)?"""
        return self.switch and (not self.bridge or self._of_the_user("start"))

    @functools.cached_property
    def configures_itself(self) -> bool:
        """May it have addresses and routes that are not among its parameters?"""
        return self.cls is None or self._of_the_user("config")

    @functools.cached_property
    def carriers(self) -> tuple[str, ...]:
        """Names of nodes that it is on, or may come to be on."""
        return self.cls.carriers(self.params) if self._is(OurNode) else ()  # type: ignore[union-attr]

    @property
    def shares_namespace(self) -> bool:
        """Are its interfaces among those of the network's own namespace?"""
        return not self.params.get("inNamespace", not self.switch)

    def _is(self, cls: type) -> bool:
        return self.cls is not None and issubclass(self.cls, cls)

    def _of_the_user(self, method: str) -> bool:
        module = str(getattr(getattr(self.cls, method, None), "__module__", ""))
        return not module.startswith(_OWN_ROOMS) or module.startswith("mininet.examples.")

    def default_end(self) -> End | None:
        """Mininet's default interface: the one on the lowest port."""
        known = [end for end in self.ends if isinstance(end.port, int)]
        return min(known, key=lambda end: end.port, default=None)


@dataclass(kw_only=True)
class Settings:
    """What a network adds to a topology: its default classes and where addresses come from."""

    host: Any = Host
    switch: Any = Bridge
    link: Any = Link
    ip_base: str = "10.0.0.0/8"


class Sketch:
    """Nodes by name, and links."""

    def __init__(self, nodes: Iterable[Node], written: Written | None = None) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.links: list[Drawn] = []
        self.written = written
        self.unaddressed: list[Node] = []  # for whom Mininet's counting finds no address left

    @functools.cached_property
    def routed(self) -> bool:
        """Do addresses and routes come by plan?"""
        return any(node.router for node in self.nodes.values())

    @functools.cached_property
    def segments(self) -> list[list[End]]:
        """Ends of links that reach each other without a router; no ports of switches."""
        sets: Sets[Node | End] = Sets()
        for link in self.links:
            one, two = (end.node if end.node.switch else end for end in link.ends)
            sets.join(one, two)
        parts: dict[Node | End, list[End]] = {}
        for link in self.links:
            for end in link.ends:
                if not end.node.switch:
                    parts.setdefault(sets.of(end), []).append(end)
        return list(parts.values())

    def add(
        self, nodes: tuple[Node, Node], link: dict[str, Any], cls: Any, place: Place | None
    ) -> None:
        """Draw a link of class `cls` from what `addLink` was given (port1, intfName2, ip, ...)."""
        first, second = (_end(node, link, number, place) for number, node in enumerate(nodes, 1))
        for end in (first, second):
            end.node.ends.append(end)
        self.links.append(Drawn((first, second), link if _interprets(cls) else None, place))


def _interprets(cls: Any) -> bool:
    """Will `Link` see the parameters as they were written?"""
    own = isinstance(cls, type) and issubclass(cls, MininetLink)
    return own and adapt(cls).__init__ in (Link.__init__, TCLink.__init__)


def _end(node: Node, link: Mapping[str, Any], number: int, place: Place | None) -> End:
    own = link.get(f"params{number}") or {}
    if not isinstance(own, Mapping):  # which `take_specs` refuses
        own = {}
    port = own.get("port", link.get(f"port{number}"))
    if port is None:
        port = _next_port(node)
    name = link.get(f"intfName{number}") or f"{node.name}-eth{port!r}"
    given = {**own, **{key: link[key] for key in ("ip", "ip6", "mac") if key in link}}
    addresses = [
        Given(given[key], version, place=place)
        for key, version in (("ip", 4), ("ip6", 6))
        if given.get(key)
    ]
    mac = given.get("mac") or link.get(f"addr{number}")
    return End(node, port, name, mac, addresses, place)


def _next_port(node: Node) -> int:
    taken = [end.port for end in node.ends if isinstance(end.port, int)]
    return max(taken) + 1 if taken else int(node.switch)


# -- from a Topo ---------------------------------------------------------------------------------


def of_topo(topo: Topo, settings: Settings) -> Sketch:
    """What `topo` will become in a network with these settings."""
    written = Written.of(topo)
    places = written.nodes if written else {}
    defaults = {False: settings.host, True: settings.switch}
    sketch = Sketch(
        (
            _node(name, topo.nodeInfo(name), defaults[topo.isSwitch(name)], topo, places.get(name))
            for name in (*topo.hosts(), *topo.switches())
        ),
        written,
    )
    lines = written.links if written else {}
    for node1, node2, key, info in topo.links(withKeys=True, withInfo=True):
        ends = (sketch.nodes[info.get("node1", node1)], sketch.nodes[info.get("node2", node2)])
        sketch.add(ends, info, info.get("cls") or settings.link, lines.get((node1, node2, key)))
    sketch.links.sort(key=lambda drawn: drawn.place or ("", 0))
    _configure(sketch, _counted(sketch, settings))
    return sketch


def _node(name: str, info: Mapping[str, Any], default: Any, topo: Topo, place: Any) -> Node:
    return draw_node(name, info.get("cls") or default, info, topo.isSwitch(name), place)


def draw_node(
    name: str, cls: Any, params: Mapping[str, Any], switch: bool, place: Place | None
) -> Node:
    """A node of class (or `functools.partial`) `cls`."""
    while isinstance(cls, functools.partial):
        params = {**cls.keywords, **params}
        cls = cls.func
    known = adapt(cls) if isinstance(cls, type) else None
    return Node(name, known, params, switch or _is_switch(known), place)


def _is_switch(cls: type | None) -> bool:
    return cls is not None and issubclass(cls, Switch)


def _counted(sketch: Sketch, settings: Settings) -> Iterator[tuple[Node, Address]]:
    """The addresses Mininet hands out to hosts, in order, in a network without a plan."""
    if sketch.routed:
        return
    base = ipaddress.IPv4Interface(settings.ip_base)
    network, length = int(base.network.network_address), base.network.prefixlen
    hosts = (node for node in sketch.nodes.values() if not node.switch)
    for number, node in enumerate(hosts, int(base.ip) - network or 1):
        if number < base.network.num_addresses:
            yield node, Address(4, network + number, length)
        elif "ip" not in node.params:
            sketch.unaddressed.append(node)


def _configure(sketch: Sketch, counted: Iterable[tuple[Node, Any]]) -> None:
    """Put the nodes' own addresses on their default interfaces, as Mininet's `config` does."""
    default = {node.name: given for node, given in counted}
    for node in sketch.nodes.values():
        end = node.default_end()
        if end is None:
            continue
        end.mac = node.params.get("mac") or end.mac
        given = node.params["ip"] if "ip" in node.params else default.get(node.name)
        if given and not node.switch:
            others = [each for each in end.addresses if each.version == 6]
            end.addresses = [Given(given, 4, "8", node.place), *others]
        if node.params.get("ip6"):
            end.addresses.append(Given(node.params["ip6"], 6, place=node.place))


# -- from a network made call by call -------------------------------------------------------------


def of_network(net: Network) -> Sketch:
    """What `net`, whose links are there and whose nodes are not configured yet, will become."""
    sketch = Sketch(
        draw_node(node.name, type(node), getattr(node, "given", node.params), node in net.switches,
                  getattr(node, "place", None))
        for node in (*net.hosts, *net.switches)
    )  # fmt: skip
    for link in net.links:
        if link.intf1 is not None and {link.intf1.node.name, link.intf2.node.name} <= set(net):
            _draw_made(sketch, link)
    counted = ((sketch.nodes[node.name], _number(node.params.get("ip"))) for node in net.hosts)
    _configure(sketch, counted)
    return sketch


def _number(text: str | None) -> Address | None:
    return Address.of(ipaddress.ip_interface(text)) if text and "/" in text else None


def _draw_made(sketch: Sketch, link: Any) -> None:
    ends = []
    for intf in (link.intf1, link.intf2):
        node, place = sketch.nodes[intf.node.name], getattr(link, "place", None)
        given = [(intf.ip, intf.prefixLen, 4), (intf.ip6, intf.prefixLen6, 6)]
        addresses = [
            Given(f"{ip}/{length}", version, place=place) for ip, length, version in given if ip
        ]
        end = End(node, intf.node.ports[intf], intf.name, None, addresses, place)
        node.ends.append(end)
        ends.append(end)
    sketch.links.append(Drawn((ends[0], ends[1]), None, getattr(link, "place", None)))
