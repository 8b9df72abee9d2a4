"""Links: a veth pair, or with impairments two of them and an engine between.

    plain       host --veth-- host
    impaired    host --veth-- [engine's namespace] --veth-- host

Which engine carries an impaired link, and what it does to packets, is the business of
`testbed.links`; this module makes the interfaces and hands over.  Links that take part in one
network share a netlink group, so that one message removes them all.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mininet.link import Link as MininetLink
from mininet.link import TCIntf as MininetTCIntf
from mininet.link import TCLink as MininetTCLink

from testbed.errors import TopologyError
from testbed.kernel import rtnetlink
from testbed.kernel.rtnetlink import VethEnd
from testbed.links import Engines, LinkSpec, Specs, Wire, offloads
from testbed.links.engine import Fields
from testbed.links.player import Player
from testbed.links.trace import Trace
from testbed.links.trace import load as load_trace
from testbed.network import rules
from testbed.network.cable import Cable
from testbed.network.cuts import Cut
from testbed.network.intf import Intf

if TYPE_CHECKING:
    from testbed.network.net import Network
    from testbed.network.node import Node

_IMPAIRMENTS = frozenset(
    ("bw", "delay", "jitter", "loss", "loss_burst", "reorder", "queue", "aqm", "seed")
)
# TCLink options that choose between shapers which here mean the same
_SAME_MEANING = frozenset(("use_hfsc", "use_tbf", "speedup", "gro", "txo", "rxo"))

_indexes = itertools.count(1000)  # interface numbers unused by what the kernel numbers itself
_wires = itertools.count(1)


class Link(MininetLink):
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
        self._cable = Cable(self)
        self._down_for: set[object] = set()
        self._replays: dict[int, Player] = {}
        self._lock = threading.Lock()  # the two directions may be changed by different threads
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
        engine = self.engines.engine(self.engines.choose(self.specs))
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

    @property
    def engines(self) -> Engines:
        """The engines of the network this link is in."""
        return network_of(self._nodes[0]).engines

    # -- while it runs ----------------------------------------------------------------------

    def update(
        self,
        *,
        params1: dict[str, Any] | None = None,
        params2: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        """Change a live link, e.g. `link.update(bw=5, delay="30ms")`; nothing in flight is lost.

        `params1` (`params2`) changes only what leaves node 1 (node 2).  Raises `TopologyError`
        for a link made without impairments.
        """
        with self._lock:
            self._change(self.changed(params1=params1, params2=params2, **changes))
        self._notify("link update", _summary(changes, params1, params2))

    def changed(
        self,
        *,
        params1: dict[str, Any] | None = None,
        params2: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Specs:
        """The specifications that `update` would give the link; raises what it would raise."""
        if self.wire is None or self.specs is None:
            raise TopologyError(
                f"link {self} was made without impairments and cannot get any while it runs",
                remedy="make it with delay='0ms', say, and update it then",
            )
        return (
            self.specs[0].replace(**_renamed({**changes, **(params1 or {})})),
            self.specs[1].replace(**_renamed({**changes, **(params2 or {})})),
        )

    def _change(self, specs: Specs) -> None:
        assert self.wire is not None
        self.wire = self.engines.update(self.wire, specs)
        self.specs = specs

    def replay(
        self,
        trace: Trace | Path | str,
        *,
        direction: int | Any | None = None,
        loop: bool = False,
        scale: float = 1.0,
    ) -> Player:
        """Play a trace of rate, delay and loss (a file, or one that was read) from now on.

        It holds for both directions, or with `direction` for what leaves that node (or 1 or 2,
        the link's first or second node).  `loop` begins it again at its end; `scale` multiplies
        its rates.  A replay that it would meet is stopped before.  When a trace ends or is
        stopped, the link stays as it is.  The player's `lateness` says how late changes came.
        """
        trace = trace if isinstance(trace, Trace) else load_trace(trace)
        side = self._side(direction)
        for _at, fields in trace.changes(scale=scale):
            specs = self.changed(**_for_side(fields, side))
        assert self.wire is not None
        self.engines.require(self.wire, specs)
        self.stop_replay(direction)
        changes = (
            (at, _pair(fields, side)) for at, fields in trace.changes(loop=loop, scale=scale)
        )
        self._notify("link replay", f"trace {trace.name}", direction=side)
        self._replays[side] = self.engines.replay(self.wire, changes, self._apply)
        return self._replays[side]

    def stop_replay(self, direction: int | Any | None = None) -> None:
        """Stop the replay in that direction (left out: every one); the link stays as it is."""
        side = self._side(direction)
        for each in [k for k in self._replays if k == side or not k or not side]:
            player = self._replays.pop(each, None)
            if player is not None and player.running:
                player.stop()
                self._notify("link replay stop", "trace stopped", direction=each)

    def _apply(self, fields: Fields) -> None:
        with self._lock:
            self._change(self.changed(params1=dict(fields[0]), params2=dict(fields[1])))

    def _side(self, direction: Any) -> int:
        """1 or 2 for what leaves the link's first or second node, 0 for both."""
        names = {1: 1, 2: 2, None: 0, str(self._nodes[0]): 1, str(self._nodes[1]): 2}
        key = direction if direction in (1, 2, None) else str(direction)
        if key not in names:
            raise TopologyError(
                f"{direction} is no end of link {self}", remedy=f"give {self._nodes[0]} or 1, say"
            )
        return names[key]

    def down(self, reason: object = "down") -> None:
        """Unplug the cable: both ends lose their carrier, what is in flight is lost.

        Addresses and routes are kept, and work again after `up`.  A link that is down for
        several reasons is up again when all are gone.
        """
        if not self._down_for:
            self._cable.unplug()
        self._down_for.add(reason)
        if reason == "down":
            self._notify("link down", "down")

    def up(self, reason: object = "down") -> None:
        """Plug the cable in again."""
        if self._down_for and not self._down_for - {reason}:
            self._cable.plug()
        self._down_for.discard(reason)
        if reason == "down":
            self._notify("link up", "up")

    @property
    def is_up(self) -> bool:
        """Is the cable plugged in?"""
        return not self._down_for

    def cut(self) -> None:
        """Let all frames vanish, both ways, while the carrier stays: nobody is told."""
        network_of(self._nodes[0]).cuts.add(self, [Cut(self.intf1), Cut(self.intf2)])
        self._notify("link cut", "cut")

    def mend(self) -> None:
        """End what `cut` began."""
        network_of(self._nodes[0]).cuts.remove(self)
        self._notify("link mend", "mended")

    def renew(self, node: Node) -> None:
        """Put the link into its state again for a node that has come back."""
        if self._down_for:
            self._cable.renew(node)

    def _notify(self, kind: str, what: str, **data: Any) -> None:
        network = self._nodes[0].network
        if network is not None:
            network.notify(kind, mark=f"{self.label} {what}", link=str(self), **data)

    @property
    def label(self) -> str:
        """A short name: of the interface that was given one by hand, else of the two nodes."""
        names = [(intf.node.name, intf.name) for intf in (self.intf1, self.intf2)]
        given = [intf for node, intf in names if not intf.startswith(f"{node}-eth")]
        return given[0] if given else "-".join(node for node, _intf in names)

    def delete(self) -> None:
        """Remove the link."""
        if (network := self._nodes[0].network) is not None:
            for intf in (self.intf1, self.intf2):
                network.cuts.forget(intf)
        self.stop_replay()
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


def network_of(node: Node) -> Network:
    """The network that a node belongs to."""
    if node.network is None:
        raise TopologyError(
            f"{node.name} belongs to no network, and what its links do needs one",
            remedy="make nodes with net.addHost() and links with net.addLink()",
        )
    return node.network


def _full_name(node: Node, interface: str) -> str:
    return interface if interface.startswith(f"{node.name}-") else f"{node.name}:{interface}"


def _renamed(params: dict[str, Any]) -> dict[str, Any]:
    if "max_queue_size" in params:
        params = dict(params)
        params["queue"] = params.pop("max_queue_size")
    return params


def _pair(fields: dict[str, Any], side: int) -> Fields:
    return {} if side == 2 else fields, {} if side == 1 else fields


def _for_side(fields: dict[str, Any], side: int) -> dict[str, Any]:
    return {f"params{side}": fields} if side else fields


def _summary(*changes: dict[str, Any] | None) -> str:
    """What an update changes, for a figure: "bw 5, delay 30ms"."""
    return ", ".join(f"{key} {value}" for each in changes for key, value in (each or {}).items())


def _split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`params` parted into what describes the link and the rest."""
    spec = params.get("spec")
    own = spec.as_dict() if spec is not None else {}
    rest = {}
    for key, value in _renamed(params).items():
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
