"""Links: a veth pair, or with impairments two of them and an engine between.

    plain       host --veth-- host
    impaired    host --veth-- [engine's namespace] --veth-- host

Which engine carries an impaired link, and what it does to packets, is the business of
`testbed.links`; this module makes the interfaces and hands over;
what becomes of a link while it runs is in `live_link`.  Links that take part in one
network share a netlink group, so that one message removes them all.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING, Any

from mininet.link import Link as MininetLink
from mininet.link import TCLink as MininetTCLink

from testbed.errors import TopologyError
from testbed.kernel import NetworkNamespace, rtnetlink
from testbed.kernel.rtnetlink import VethEnd
from testbed.links import LinkSpec, Wire, offloads
from testbed.network import reshape, rules
from testbed.network.intf import Intf
from testbed.network.live_link import LiveLink, renamed, summary
from testbed.network.pipeline import PIPELINE

if TYPE_CHECKING:
    from testbed.network.node import Node

_IMPAIRMENTS = frozenset(
    ("bw", "delay", "jitter", "loss", "loss_burst", "reorder", "queue", "aqm", "seed")
)
# TCLink options that choose between shapers which here mean the same
_SAME_MEANING = frozenset(("use_hfsc", "use_tbf", "speedup", "gro", "txo", "rxo"))

_indexes = itertools.count(1000)  # interface numbers unused by what the kernel numbers itself
_wires = itertools.count(1)


class Link(LiveLink, MininetLink):
    """A link between two nodes.

    Beside Mininet's parameters it takes those of `LinkSpec` (bw in Mb/s, delay "10ms", loss in
    percent, ...; `max_queue_size` in packets is Mininet's name for `queue`) or `spec=LinkSpec`.
    Given with the link they hold in both directions; in `params1` (`params2`) they hold for
    what leaves node 1 (node 2).
    """

    def __init__(self, node1: Node, node2: Node, **params: Any) -> None:
        self._nodes = (node1, node2)
        self.indexes: dict[tuple[Node, str], int] = {}
        self.born_up: set[int] = set()  # indexes of ends that the kernel made up at once
        self.specs: tuple[LinkSpec, LinkSpec] | None
        self.wire: Wire | None = None
        self._early: list[tuple[Intf, dict[str, Any]]] = []
        for number, node in enumerate(self._nodes, 1):
            if node.intf_class is not None:
                params.setdefault(f"cls{number}", node.intf_class)
        self.specs, params = take_specs(params)
        super().__init__(node1, node2, **params)
        if self.specs is not None:
            self.engines.attach(self._made())
        for intf, given in self._early:
            self._change(reshape.replaced(self, intf, given))

    def makeIntfPair(
        self,
        intfname1: str,
        intfname2: str,
        addr1: str | None = None,
        addr2: str | None = None,
        *_nodes: Any,
        **_options: Any,
    ) -> None:
        """Called by Mininet's constructor: make the interfaces, named and in their namespaces."""
        node1, node2 = self._nodes
        for node, name in ((node1, intfname1), (node2, intfname2)):
            rules.interface_name(name)
            if name in node.nameToIntf or (node, name) in self.indexes:
                raise TopologyError(
                    f"{node.name} has an interface {name!r} already",
                    remedy="give the new one another name or port",
                )
            self.indexes[node, name] = next(_indexes)
        end1 = self._end(node1, intfname1, addr1)
        end2 = self._end(node2, intfname2, addr2)
        if self.specs is None:
            self._make_veth(end1, end2)
        else:
            self._make_wire(end1, end2)

    def _end(self, node: Node, name: str, mac: str | None) -> VethEnd:
        return VethEnd(name, self.indexes[node, name], node.home.namespace.fd, mac or "")

    def _make_veth(self, end1: VethEnd, end2: VethEnd) -> None:
        """Make a pair; an end on a bridge comes first, so that it is made up and enslaved."""
        (node1, node2), group = self._nodes, self.group
        bridge1, bridge2 = (getattr(node, "bridge_index", 0) for node in (node1, node2))
        if bridge2 and not bridge1:
            node1, end1, end2, bridge1, bridge2 = node2, end2, end1, bridge2, 0
        first = dataclasses.replace(end1, up=True, master=bridge1)
        self.born_up = {first.index}
        messages = [rtnetlink.new_veth(first, end2, group=group)]
        if bridge2:
            messages.append(rtnetlink.set_link(end2.index, master=bridge2))
        PIPELINE.make(node1.home.netlink, messages)
        if any(getattr(node, "wire_frames", False) for node in self._nodes):
            self.disable_offloads()

    def _make_wire(self, end1: VethEnd, end2: VethEnd) -> None:
        """Make the two veth pairs that lead to the engine, their far ends up and without ARP."""
        assert self.specs is not None
        node1, node2 = self._nodes
        namespace, names = self.engine_namespace(), self.port_names()
        ports = []
        for node, end, name in ((node1, end1, names[0]), (node2, end2, names[1])):
            far = VethEnd(name, next(_indexes), namespace.fd)
            near = dataclasses.replace(end, up=True, master=getattr(node, "bridge_index", 0))
            node1.netlink.request(rtnetlink.new_veth(near, far, group=self.group))
            ports.append(far.index)
        self.born_up = {end1.index, end2.index}
        self._take_ports((ports[0], ports[1]), names)

    def engine_namespace(self) -> NetworkNamespace:
        """Namespace of the engine that carries this link, which is chosen now."""
        assert self.specs is not None
        return self.engines.place(self._wire_name, self.specs).namespace

    @property
    def _wire_name(self) -> str:
        return "--".join(_full_name(node, interface) for node, interface in self.ends)

    @staticmethod
    def port_names() -> tuple[str, str]:
        """New names for the engine's ports, towards node 1 and node 2."""
        number = next(_wires)
        return f"w{number}a", f"w{number}b"

    @staticmethod
    def new_index() -> int:
        """An interface number that nothing has."""
        return next(_indexes)

    def _take_ports(self, ports: tuple[int, int], port_names: tuple[str, str]) -> None:
        assert self.specs is not None
        self.disable_offloads()
        self.wire = Wire(name=self._wire_name, ports=ports, port_names=port_names, specs=self.specs)

    def _made(self) -> Wire:
        assert self.wire is not None
        return self.wire

    def adopt_ports(self, ports: tuple[int, int], port_names: tuple[str, str]) -> None:
        """Be carried by the engine from now on, between ports that are in its namespace."""
        self._take_ports(ports, port_names)
        self.engines.attach(self._made())

    @property
    def ends(self) -> list[tuple[Node, str]]:
        """Node and interface name of end 1 and of end 2, as they are now."""
        if not hasattr(self, "intf2"):  # it is being made
            return list(self.indexes)
        return [(intf.node, intf.name) for intf in (self.intf1, self.intf2)]

    def disable_offloads(self) -> None:
        """Make every frame of this link wire-size and complete."""
        for node, name in self.ends:
            offloads.disable(node.netns, name)

    @property
    def group(self) -> int:
        """Netlink group of the network's interfaces."""
        return next((node.network.group for node in self._nodes if node.network), 0)

    @property
    def engine_name(self) -> str:
        """Name of the engine that carries this link, empty for a plain one."""
        wire = self.wire
        chosen = self.engines.choices() if wire else []
        return next((choice.engine for choice in chosen if wire and choice.wire == wire.name), "")

    def shape(self, intf: Intf, params: dict[str, Any]) -> None:
        """Do what is given, and nothing else, to packets that leave `intf` from now on.

        While the link is being made, what its interfaces ask for is kept until it is there.
        """
        given, _rest = _split(params)
        if not given:
            return
        if not hasattr(self, "intf2"):
            self._early.append((intf, given))
            return
        self._change(reshape.replaced(self, intf, given))
        self._notify("link update", summary(given), direction=str(intf))

    # -- the end ----------------------------------------------------------------------------

    def delete(self) -> None:
        """Remove the link."""
        self.leave()
        if self.wire is not None:
            self.engines.detach(self.wire)
            self.wire = None
        super().delete()

    def stop(self) -> None:
        """Nothing to do: the network removes all its links with one message."""


class TCLink(Link, MininetTCLink):
    """Base for user classes derived from Mininet's `TCLink`."""


def take_specs(
    params: dict[str, Any],
) -> tuple[tuple[LinkSpec, LinkSpec] | None, dict[str, Any]]:
    """What `params` (and params1, params2 in it) say the link does, and what is left of them.

    Raises `ParameterError` and `TopologyError` for what cannot be meant.
    """
    common, params = _split(params)
    intf = params.setdefault("intf", Intf)
    sides = []
    for key, cls in (("params1", "cls1"), ("params2", "cls2")):
        params[cls], of_class = _constructor(params.get(cls) or intf)
        side = params.get(key) or {}
        if not isinstance(side, dict):
            raise TopologyError(f"{key} is {side!r}", remedy=f'write {key}={{"delay": "10ms"}}')
        own, rest = _split(side)
        params[key] = rest
        sides.append({**of_class, **common, **own})
    if not any(sides):
        return None, params
    return (_spec(sides[0]), _spec(sides[1])), params


def _constructor(chosen: Any) -> tuple[Any, dict[str, Any]]:
    """A class of interfaces on this engine, and what a `partial` of one says about the link."""
    from testbed.network.adapt import adapt  # which maps Mininet's links to this module's

    chosen = adapt(chosen)
    if not isinstance(chosen, functools.partial):
        return chosen, {}
    own, rest = _split(chosen.keywords)
    return functools.partial(chosen.func, *chosen.args, **rest), own


def _full_name(node: Node, interface: str) -> str:
    return interface if interface.startswith(f"{node.name}-") else f"{node.name}:{interface}"


def _split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`params` parted into what describes the link and the rest."""
    spec = params.get("spec")
    own = spec.as_dict() if spec is not None else {}
    rest = {}
    for key, value in renamed(params).items():
        if key in _IMPAIRMENTS and value is not None:
            own[key] = value
        elif key not in _IMPAIRMENTS and key not in _SAME_MEANING and key != "spec":
            rest[key] = value
    if rest.pop("latency_ms", None) is not None:
        own.setdefault("queue", f"{params['latency_ms']}ms")
    if rest.pop("enable_red", False) or rest.pop("enable_ecn", False):
        raise TopologyError(
            "enable_red and enable_ecn are not offered", remedy='use aqm="codel" or a plain queue'
        )
    return own, rest


def _spec(own: dict[str, Any]) -> LinkSpec:
    try:
        return _same_spec(**own)
    except TypeError:  # a value that cannot be a key of the cache: let its check say what it is
        return LinkSpec(**own)


@functools.lru_cache(maxsize=256, typed=True)
def _same_spec(**own: Any) -> LinkSpec:
    return LinkSpec(**own)
