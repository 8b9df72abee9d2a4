"""The seam between links and what carries them out: `Wire`, `Engine`, `DirectionReport`.

A wire joins two ports.  A port is the far end of a veth pair whose near end is a node's own
interface; far ends live in the engine's namespace, so nodes see a plain Ethernet interface and
an engine sees every frame as it is on the wire.  The network room makes the veth pairs; which
engine gets a wire is decided by `Engines`.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.links.histogram import Histogram
from testbed.links.player import Player
from testbed.links.spec import LinkSpec

if TYPE_CHECKING:
    from testbed.links.outages import Outages

BACKLOG_SPELL_S = 0.05
"""Spells in which packets wait without a pause count as backlogged from this length on: over two
packets, a rate says nothing but how late one of them was."""

Specs = tuple[LinkSpec, LinkSpec]
"""The two directions of a link: what leaves port a, what leaves port b."""

Fields = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Fields of `LinkSpec` that change, for each direction; an empty mapping leaves it as it is."""

Changes = Iterable[tuple[float, Fields]]
"""When (s since the replay began, ascending) what changes; it may be endless."""

Apply = Callable[[Fields], object]
"""Changes the link now, as its `update` does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wire:
    """Two ports in an engine's namespace, and what happens to frames between them.

    `name` identifies the wire within a network.  `ports` are interface indexes in the engine's
    namespace and `port_names` their names there.  `specs[0]` is the direction from port a to
    port b.
    """

    name: str
    ports: tuple[int, int]
    port_names: tuple[str, str]
    specs: Specs

    def with_specs(self, specs: Specs) -> Wire:
        """The same wire under other specifications."""
        return dataclasses.replace(self, specs=specs)

    @property
    def directions(self) -> tuple[str, str]:
        """Names of the two directions, as reports and seeds use them."""
        a, b = self.port_names
        return f"{a}>{b}", f"{b}>{a}"

    def seed(self, side: int, network: int) -> str:
        """What fixes a direction's random events: the link's own seed, or the network's.

        A link's own means the same in any network; the network's is one for each wire.
        """
        own, end = self.specs[side].seed, "ab"[side]
        return f"{network}/{self.name}/{end}" if own is None else f"{own}/{end}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectionReport:
    """What one direction of a wire did since it was attached.

    offered = delivered + lost + queue_drops + outside_drops + down_drops + inside.

    `lost_packets` by the loss model, `queue_drops` by the queue's limit or its management,
    `outside_drops` by the kernel outside the model (0 in a run that can be believed),
    `down_drops` because the link or the receiving interface was down, or went down with them
    inside; `inside_packets` are in it now.
    `lag` counts how late each packet left against its ideal departure; None where the engine
    cannot know.  While packets waited (`backlogged_s` seconds in all, in spells of at least
    `BACKLOG_SPELL_S`) the link let `backlogged_bytes` through, which at the configured rate takes
    `backlogged_ideal_s`.
    """

    wire: str
    direction: str
    engine: str
    spec: LinkSpec
    offered_packets: int
    offered_bytes: int
    delivered_packets: int
    delivered_bytes: int
    lost_packets: int = 0
    queue_drops: int = 0
    outside_drops: int = 0
    down_drops: int = 0
    inside_packets: int = 0
    lag: Histogram | None = None
    backlogged_s: float = 0.0
    backlogged_bytes: int = 0
    backlogged_ideal_s: float = 0.0

    @property
    def backlogged_bps(self) -> float | None:
        """Rate while packets waited, in bit/s; None where none ever did."""
        return self.backlogged_bytes * 8 / self.backlogged_s if self.backlogged_s else None

    @property
    def rate_ratio(self) -> float | None:
        """Delivered against configured rate while packets waited, over all updates."""
        return self.backlogged_ideal_s / self.backlogged_s if self.backlogged_s else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """A process that carries wires, since it began.

    `realtime` says whether it runs with real-time priority, `cpu_s` how much processor time it
    used, `waited_s` how long it could have run while the processors were taken, `late` counts
    how late its sleeps ended, and `ring_drops` the frames that found its ring full.
    """

    engine: str
    pid: int
    realtime: bool
    cpu_s: float
    waited_s: float
    late: Histogram
    ring_drops: int


class Engine(ABC):
    """Something that carries out wires in a namespace of its own.

    Methods raise `EngineError` when the engine has died and `KernelError` when the kernel
    refuses what it should do.
    """

    name: str
    namespace: NetworkNamespace
    outages: Outages

    @abstractmethod
    def attach(self, wire: Wire) -> None:
        """Begin to carry `wire`; its ports exist in the engine's namespace and are brought up."""

    @abstractmethod
    def update(self, wire: Wire, specs: Specs) -> Wire:
        """Change a live wire; what is in flight is neither lost nor reordered.

        Returns the wire under its new specifications.
        """

    def down(self, wire: Wire) -> None:
        """Take the carrier from both ends; what is inside is lost."""
        self.outages.begin(wire.ports)
        self._set_devices(wire, up=False)

    def up(self, wire: Wire) -> None:
        """Give the carrier back; the wire is empty."""
        self._set_devices(wire, up=True)
        self.outages.end(wire.ports)

    def replay(self, wire: Wire, changes: Changes, apply: Apply) -> Player:
        """A player, to be started, of changes of a live wire: each by `apply` at its time."""
        return Player((at_s, functools.partial(apply, fields)) for at_s, fields in changes)

    def devices(self, wire: Wire) -> list[int]:
        """The interfaces that are down while the wire is."""
        return list(wire.ports)

    def _set_devices(self, wire: Wire, *, up: bool) -> None:
        with self.namespace:
            set_state(self.devices(wire), up=up)

    @abstractmethod
    def detach(self, wire: Wire) -> None:
        """Stop carrying `wire`; its ports remain."""

    @abstractmethod
    def reports(self) -> list[DirectionReport]:
        """What each direction of each wire did so far."""

    def worker(self) -> WorkerStatus | None:
        """The process behind it; None for an engine that is the kernel itself."""
        return None

    def queues(self) -> dict[int, tuple[str, int]]:
        """Interfaces of `namespace` whose queueing discipline is a direction's queue.

        By interface index the wire's name and the direction (0: what leaves port a).
        """
        return {}

    def waiting(self) -> dict[tuple[str, int], tuple[int, int, int]]:
        """Queues that the engine keeps itself, out of the kernel's sight.

        By the wire's name and the direction (0: what leaves port a): what waits in packets and
        in bytes, and how many packets were dropped so far.
        """
        return {}

    def check(self) -> None:  # noqa: B027 (an engine that is the kernel itself cannot die)
        """Raise `EngineError` if the engine has died."""

    @abstractmethod
    def close(self) -> None:
        """End the engine; its namespace goes when the ports in it do."""


def make_namespace() -> NetworkNamespace:
    """A namespace for an engine: no IPv6, so that no port ever speaks for itself."""
    namespace = NetworkNamespace.create()
    for scope in ("all", "default"):
        try:
            namespace.sysctl(f"net.ipv6.conf.{scope}.disable_ipv6", 1)
        except KernelError as error:
            if error.errno != 2:  # ENOENT: a kernel without IPv6 has nothing to turn off
                raise
    return namespace


def bring_up(ports: Sequence[int]) -> None:
    """Bring interfaces of the calling thread's namespace up."""
    set_state(ports, up=True)


def set_state(ports: Sequence[int], *, up: bool) -> None:
    """Bring interfaces of the calling thread's namespace up or down, without ARP."""
    netlink = RtNetlink()
    try:
        netlink.batch([rtnetlink.set_link(port, up=up, arp=False) for port in ports])
    finally:
        netlink.close()
