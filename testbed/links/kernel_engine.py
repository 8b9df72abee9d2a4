"""The kernel as an engine: HTB for rate and queue, netem behind it for the rest.

A wire between ports a and b, rate and queue only (engine "htb"):

    a --ingress, redirect--> b [HTB + queue]                        and the other way round

with more than that (engine "netem"), through a veth pair x-y of the wire's own, so that queue
and impairments are separate devices and neither miscounts the other's packets:

    a --redirect--> x [HTB + queue] --> y --redirect--> b [netem]   and the other way round

HTB is a token bucket, not a wire: a frame that finds the link idle leaves at once and the time
its serialisation takes is charged to the next one.

Changes are changes of classes and queueing disciplines in place, never a new one for an old.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random
from typing import NamedTuple

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.rtnetlink import Message
from testbed.links import counters, tc
from testbed.links.engine import DirectionReport, Engine, Specs, Wire, bring_up, make_namespace
from testbed.links.fabric.loss import stream
from testbed.links.outages import Outages
from testbed.links.spec import FULL_FRAME, LinkSpec

_UNLIMITED_BPS = 1e12
_BURST_S = 0.001  # covers late timers; a frame may overdraw it, so a slow link needs no more
_FIRST_INDEX = 1 << 30  # interfaces of our own are numbered from here, apart from the network's
_NETEM_HANDLE = tc.ROOT_HANDLE
_LOOPBACK = 1
_PROBE_SEED = 0x5EED


def missing(*, netem: bool = False, codel: bool = False, seeds: bool = False) -> str:
    """Why this kernel cannot do it ("" if it can); needs the rights of a sandbox.

    `seeds`: losses, jitter and reordering of netem that a seed fixes.
    """
    wanted = {"netem": netem or seeds, "codel": codel, "seeds": seeds}
    needed = ["htb", "redirect", *(part for part, want in wanted.items() if want)]
    lacking = [_PARTS[part] for part in needed if not _has(part)]
    return f"this kernel has no {', no '.join(lacking)}" if lacking else ""


_PARTS = {
    "htb": "HTB (sch_htb)",
    "redirect": "redirection (sch_ingress, cls_u32, act_mirred)",
    "netem": "netem (sch_netem)",
    "codel": "CoDel (sch_codel)",
    "seeds": "netem that takes a seed (Linux 6.7)",
}


@cache
def _has(part: str) -> bool:
    """Try it on the loopback of a namespace made for that."""
    attempts = {
        "htb": [tc.htb(_LOOPBACK), tc.htb_class(_LOOPBACK, rate_bps=1e9, burst_s=_BURST_S)],
        "redirect": [tc.ingress(_LOOPBACK), tc.redirect(_LOOPBACK, _LOOPBACK)],
        "netem": [_netem(_LOOPBACK, LinkSpec(loss=1, loss_burst=2), _PROBE_SEED)],
        "codel": [
            tc.qdisc(
                _LOOPBACK, "codel", tc.codel_options(10), handle=tc.ROOT_HANDLE, parent=tc.ROOT
            )
        ],
    }
    attempts["seeds"] = attempts["netem"]
    namespace = NetworkNamespace.create()
    try:
        with namespace:
            _do(attempts[part])
            return part != "seeds" or tc.netem_seed(_LOOPBACK) == _PROBE_SEED
    except KernelError as error:
        if error.errno in (1, 13):  # EPERM, EACCES: that says nothing about the kernel
            raise
        return False
    finally:
        namespace.close()


def _do(messages: list[Message]) -> None:
    netlink = RtNetlink()
    try:
        netlink.batch(messages)
    finally:
        netlink.close()


# -- what a specification is in the kernel's terms -----------------------------------------------


def leaf_kind(spec: LinkSpec) -> str:
    """The queueing discipline that holds what waits; it cannot change on a live link."""
    if spec.codel:
        return "codel"
    return "bfifo" if spec.queue_packets is None else "pfifo"


def _leaf_options(spec: LinkSpec) -> bytes:
    limit = spec.queue_packets if spec.queue_packets is not None else spec.queue_bytes
    if limit is None:  # no rate: nothing waits
        limit = 0x7FFFFFFF
    elif spec.codel and spec.queue_packets is None:
        limit = max(limit // FULL_FRAME, 1)
    return tc.codel_options(limit) if spec.codel else tc.fifo_options(limit)


def _shaper(index: int, spec: LinkSpec, *, change: bool = False) -> list[Message]:
    rate = spec.rate_bps or _UNLIMITED_BPS
    messages = [] if change else [tc.htb(index)]
    messages.append(tc.htb_class(index, rate_bps=rate, burst_s=_BURST_S, change=change))
    messages.append(
        tc.qdisc(
            index,
            leaf_kind(spec),
            _leaf_options(spec),
            handle=tc.LEAF_HANDLE,
            parent=tc.CLASS,
            change=change,
        )
    )
    return messages


def _netem(index: int, spec: LinkSpec, seed: int, *, change: bool = False) -> Message:
    # Gilbert-Elliott begins in its good state: a loss of all would spare the first packet
    alone = spec.loss_burst is None or spec.loss_ratio in (0, 1)
    options = tc.netem_options(
        delay_s=spec.delay_s,
        jitter_s=spec.jitter_s,
        loss=spec.loss_ratio if alone else 0.0,
        burst=None if alone else spec.gilbert_elliott,
        reorder=spec.reorder_ratio,
        seed=seed,
    )
    return tc.qdisc(index, "netem", options, handle=_NETEM_HANDLE, parent=tc.ROOT, change=change)


class _Path(NamedTuple):
    """One direction: where frames come from, which device shapes them, which delivers them.

    `arrival` is the device that receives what the shaper sent: its redirect leads to `target`.
    Without netem, shaper and target are one.
    """

    source: int
    shaper: int
    arrival: int
    target: int

    @property
    def has_netem(self) -> bool:
        return self.shaper != self.target

    def build(self, spec: LinkSpec, seed: int) -> list[Message]:
        """Messages that make this direction."""
        messages = _shaper(self.shaper, spec)
        if self.has_netem:
            messages.append(_netem(self.target, spec, seed))
            messages += [tc.ingress(self.arrival), tc.redirect(self.arrival, self.target)]
        return [*messages, tc.ingress(self.source), tc.redirect(self.source, self.shaper)]

    def change(self, spec: LinkSpec, seed: int) -> list[Message]:
        """Messages that change it in place."""
        messages = _shaper(self.shaper, spec, change=True)
        if self.has_netem:
            messages.append(_netem(self.target, spec, seed, change=True))
        return messages


class _Carried(NamedTuple):
    """A wire, its two directions, and where the seeds of each come from."""

    wire: Wire
    paths: tuple[_Path, _Path]
    seeds: tuple[Random, Random]

    def each(self, specs: Specs) -> Iterator[tuple[_Path, LinkSpec, int]]:
        """Both directions under `specs`, each with its next seed.

        netem begins its sequence anew whenever it is changed, so it must not be the same one.
        """
        for path, spec, seeds in zip(self.paths, specs, self.seeds, strict=True):
            yield path, spec, seeds.getrandbits(64)


class KernelEngine(Engine):
    """`name` is "htb" (rate and queue only) or "netem" (everything).

    `seed` is for wires without one of their own, where the kernel's netem takes one.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name = name
        self.namespace = make_namespace()
        self.outages = Outages(self.namespace)
        self._seed = seed
        self._wires: dict[str, _Carried] = {}
        self._before: dict[int, counters.Counters] = {}
        self._made = 0

    def attach(self, wire: Wire) -> None:
        """Begin to carry `wire`."""
        a, b = wire.ports
        if self.name == "htb":
            messages, paths = [], (_Path(a, b, b, b), _Path(b, a, a, a))
        else:
            x, y = (_FIRST_INDEX + 2 * self._made + end for end in (0, 1))
            messages, paths = [self._inner(x, y)], (_Path(a, x, y, b), _Path(b, y, x, a))
            self._made += 1
        there, back = (stream(wire.seed(side, self._seed)) for side in (0, 1))
        carried = _Carried(wire, paths, (there, back))
        for path, spec, seed in carried.each(wire.specs):
            messages += path.build(spec, seed)
        with self.namespace:
            _do(messages)
            self._before.update({port: counters.interface(port) for port in wire.ports})
            bring_up([*wire.ports, *(path.shaper for path in paths)])
        self._wires[wire.name] = carried

    def _inner(self, x: int, y: int) -> Message:
        fd = self.namespace.fd
        names = f"x{self._made}", f"y{self._made}"
        return rtnetlink.new_veth(
            rtnetlink.VethEnd(names[0], x, fd), rtnetlink.VethEnd(names[1], y, fd)
        )

    def update(self, wire: Wire, specs: Specs) -> Wire:
        """Change a live wire without losing or reordering anything.

        Over HTB the frame that is being serialised keeps its old rate.
        """
        carried = self._wires[wire.name]
        messages = []
        for path, spec, seed in carried.each(specs):
            messages += path.change(spec, seed)
        with self.namespace:
            _do(messages)
        updated = wire.with_specs(specs)
        self._wires[wire.name] = carried._replace(wire=updated)
        return updated

    def devices(self, wire: Wire) -> list[int]:
        """The ports, and the shapers inside, which hold what waits."""
        paths = self._wires[wire.name].paths
        return list(dict.fromkeys([*wire.ports, *(path.shaper for path in paths)]))

    def detach(self, wire: Wire) -> None:
        """Stop carrying `wire`."""
        paths = self._wires.pop(wire.name).paths
        messages = []
        for port in wire.ports:
            messages.append(tc.delete_qdisc(port, parent=tc.INGRESS))
            messages.append(tc.delete_qdisc(port, parent=tc.ROOT))
            del self._before[port]
        if paths[0].has_netem:
            messages.append(rtnetlink.delete_link(paths[0].shaper))
        with self.namespace:
            _do(messages)

    def queues(self) -> dict[int, tuple[str, int]]:
        """The shapers' interfaces."""
        return {
            path.shaper: (name, side)
            for name, carried in self._wires.items()
            for side, path in enumerate(carried.paths)
        }

    def reports(self) -> list[DirectionReport]:
        """What each direction of each wire did so far; the kernel does not know lag."""
        with self.namespace:
            kernel = counters.interfaces()
            qdiscs = tc.statistics()
        return [
            self.outages.account(
                self._report(wire, side, path, kernel, qdiscs), path.source, path.target
            )
            for wire, paths, _seeds in self._wires.values()
            for side, path in enumerate(paths)
            if path.source in kernel and path.target in kernel
        ]

    def _report(
        self,
        wire: Wire,
        side: int,
        path: _Path,
        kernel: dict[int, counters.Counters],
        qdiscs: dict[tuple[int, int], tc.QdiscStats],
    ) -> DirectionReport:
        nothing = tc.QdiscStats()
        shaper = qdiscs.get((path.shaper, tc.ROOT_HANDLE), nothing)
        leaf = qdiscs.get((path.shaper, tc.LEAF_HANDLE), nothing)
        last = qdiscs.get((path.target, _NETEM_HANDLE), nothing) if path.has_netem else shaper
        came, before = kernel[path.source], self._before[path.source]
        unreceived = came.rx_dropped - before.rx_dropped
        unsent = kernel[path.target].tx_dropped - self._before[path.target].tx_dropped
        offered = came.rx_packets - before.rx_packets + unreceived
        lost = last.drops if path.has_netem else 0
        inside = shaper.waiting_packets + (last.waiting_packets if path.has_netem else 0)
        accounted = last.packets + lost + leaf.drops + inside + unreceived
        return DirectionReport(
            wire=wire.name,
            direction=wire.directions[side],
            engine=self.name,
            spec=wire.specs[side],
            offered_packets=offered,
            offered_bytes=came.rx_bytes - before.rx_bytes,
            delivered_packets=last.packets - unsent,
            delivered_bytes=last.bytes,
            lost_packets=lost,
            queue_drops=leaf.drops,
            outside_drops=unreceived + unsent,
            down_drops=max(0, offered - accounted),
            inside_packets=inside,
        )

    def close(self) -> None:
        """Let go of the namespace."""
        self._wires.clear()
        self.namespace.close()
