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
from mininet.link import TCIntf as MininetTCIntf
from mininet.link import TCLink as MininetTCLink

from testbed.errors import TopologyError
from testbed.kernel import rtnetlink
from testbed.kernel.rtnetlink import VethEnd
from testbed.links import LinkSpec, Wire, offloads
from testbed.network import rules
from testbed.network.intf import Intf
from testbed.network.live_link import LiveLink, renamed

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
        self.specs, params = take_specs(params)
        intf = params.setdefault("intf", Intf)
        for side in ("cls1", "cls2"):
            chosen = params.get(side) or intf
            params[side] = Intf if issubclass(MininetTCIntf, chosen) else chosen
        super().__init__(node1, node2, **params)
        if self.specs is not None:
            self._attach()

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
        return VethEnd(name, self.indexes[node, name], node.netns.fd, mac or "")

    def _make_veth(self, end1: VethEnd, end2: VethEnd) -> None:
        """Make a pair; an end on a bridge comes first, so that it is made up and enslaved."""
        (node1, node2), group = self._nodes, self._group
        bridge1, bridge2 = (getattr(node, "bridge_index", 0) for node in (node1, node2))
        if bridge2 and not bridge1:
            end1, end2, bridge1, bridge2 = end2, end1, bridge2, 0
        first = dataclasses.replace(end1, up=True, master=bridge1)
        self.born_up = {first.index}
        messages = [rtnetlink.new_veth(first, end2, group=group)]
        if bridge2:
            messages.append(rtnetlink.set_link(end2.index, master=bridge2))
        node1.netlink.batch(messages)
        if any(getattr(node, "wire_frames", False) for node in self._nodes):
            self._disable_offloads()

    def _make_wire(self, end1: VethEnd, end2: VethEnd) -> None:
        """Make the two veth pairs that lead to the engine, their far ends up and without ARP."""
        assert self.specs is not None
        node1, node2 = self._nodes
        number = next(_wires)
        name = f"{_full_name(node1, end1.name)}--{_full_name(node2, end2.name)}"
        engine = self.engines.place(name, self.specs)
        ports = []
        for node, end, side in ((node1, end1, "a"), (node2, end2, "b")):
            far = VethEnd(f"w{number}{side}", next(_indexes), engine.namespace.fd)
            near = dataclasses.replace(end, up=True, master=getattr(node, "bridge_index", 0))
            node1.netlink.request(rtnetlink.new_veth(near, far, group=self._group))
            ports.append(far)
        self.born_up = {end1.index, end2.index}
        self._disable_offloads()
        self.wire = Wire(
            name=name,
            ports=(ports[0].index, ports[1].index),
            port_names=(ports[0].name, ports[1].name),
            specs=self.specs,
        )

    def _disable_offloads(self) -> None:
        """Make every frame of this link wire-size and complete."""
        for node, name in self.indexes:
            offloads.disable(node.netns, name)

    @property
    def _group(self) -> int:
        network = self._nodes[0].network
        return network.group if network else 0

    def _attach(self) -> None:
        assert self.wire is not None
        self.engines.attach(self.wire)

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
    sides = []
    for key in ("params1", "params2"):
        side = params.get(key) or {}
        if not isinstance(side, dict):
            raise TopologyError(f"{key} is {side!r}", remedy=f'write {key}={{"delay": "10ms"}}')
        own, rest = _split(side)
        params[key] = rest
        sides.append({**common, **own})
    if not any(sides):
        return None, params
    return (_spec(sides[0]), _spec(sides[1])), params


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
