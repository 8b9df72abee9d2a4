"""Two namespaces, one wire, and probe frames of our own across it: how links are measured.

Probes are raw Ethernet frames that carry their number and the time at which they were sent; the
receiving kernel stamps each arrival on the same clock, so one-way delay is a difference of two
readings and no process has to be punctual to measure it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from testbed.closing import Closing
from testbed.kernel import RtNetlink, rtnetlink
from testbed.kernel.packet_ring import FrameSender, PacketRing
from testbed.links import offloads
from testbed.links.engine import Engine, Specs, Wire, bring_up, make_namespace
from testbed.links.engines import Engines
from testbed.links.spec import LinkSpec

HEADER = 14 + 16
"""Bytes of the smallest probe."""

_MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
_ETHERTYPE = 0x88B5  # IEEE 802: local experimental
_STAMP = struct.Struct("!Qd")
_INDEXES = (10, 11)


class Sighting(NamedTuple):
    """A probe that arrived: its number (from 0), when it was sent and seen (s), its bytes."""

    number: int
    sent: float
    arrived: float
    size: int

    @property
    def delay(self) -> float:
        """One-way delay in seconds."""
        return self.arrived - self.sent


class Rig(Closing):
    """Namespaces a and b, joined by a wire of `engines`, or without specs by a plain veth pair.

    Use it as a context manager, in a sandbox.  `engines` is closed with it.
    """

    def __init__(self, engines: Engines | None = None, specs: Specs | None = None) -> None:
        self.engines = Engines() if engines is None else engines
        self.a, self.b = make_namespace(), make_namespace()
        self.engine: Engine | None = None
        self.wire: Wire | None = None
        if specs is None:
            self._join_directly()
        else:
            self._join(specs)
        for namespace, name, index in zip((self.a, self.b), "ab", _INDEXES, strict=True):
            offloads.disable(namespace, name)
            with namespace:
                bring_up([index])
        if self.wire is not None:
            self.engines.attach(self.wire)

    def _join_directly(self) -> None:
        ends = self._near_ends()
        self._make([rtnetlink.new_veth(*ends)])

    def _join(self, specs: Specs) -> None:
        self.engine = engine = self.engines.place("a--b", specs)
        messages = [
            rtnetlink.new_veth(
                near, rtnetlink.VethEnd(f"p{near.name}", near.index, engine.namespace.fd)
            )
            for near in self._near_ends()
        ]
        self._make(messages)
        self.wire = Wire(name="a--b", ports=_INDEXES, port_names=("pa", "pb"), specs=specs)

    def _near_ends(self) -> tuple[rtnetlink.VethEnd, rtnetlink.VethEnd]:
        a, b = (
            rtnetlink.VethEnd(name, index, namespace.fd, mac)
            for name, index, namespace, mac in zip(
                "ab", _INDEXES, (self.a, self.b), _MACS, strict=True
            )
        )
        return a, b

    @staticmethod
    def _make(messages: list[rtnetlink.Message]) -> None:
        netlink = RtNetlink()
        try:
            netlink.batch(messages)
        finally:
            netlink.close()

    def update(self, spec: LinkSpec) -> None:
        """Change the direction from a to b while it is live."""
        assert self.wire is not None
        self.wire = self.engines.update(self.wire, (spec, self.wire.specs[1]))

    def probe(
        self,
        count: int,
        *,
        interval_s: float,
        size: int = 64,
        catch_up: bool = True,
        drain_s: float = 0.2,
        at: dict[int, Callable[[], None]] | None = None,
    ) -> list[Sighting]:
        """Send `count` probes from a to b and return those seen, in order of arrival.

        One every `interval_s`; after a delay of this process `catch_up` sends what is behind at
        once, without it the rest is later.  Ends when nothing has come for `drain_s`.  `at`
        gives actions for just before the probe of a number is sent.
        """
        with self.a:
            sender = FrameSender("a")
        with self.b:
            ring = PacketRing()
        try:
            return _Run(sender, ring, size).run(count, interval_s, catch_up, drain_s, at or {})
        finally:
            sender.close()
            ring.close()

    def close(self) -> None:
        """End the engines; the namespaces go with their last descriptor."""
        self.engines.close()
        self.a.close()
        self.b.close()


class _Run:
    """One series of probes."""

    def __init__(self, sender: FrameSender, ring: PacketRing, size: int) -> None:
        self._sender, self._ring = sender, ring
        macs = b"".join(rtnetlink.mac_bytes(mac) for mac in reversed(_MACS))
        self._header = macs + struct.pack("!H", _ETHERTYPE)
        self._padding = bytes(max(0, size - HEADER))
        self.seen: list[Sighting] = []

    def run(
        self,
        count: int,
        interval_s: float,
        catch_up: bool,
        drain_s: float,
        at: dict[int, Callable[[], None]],
    ) -> list[Sighting]:
        clock = time.monotonic
        due = clock()
        for number in range(count):
            while (wait := due - clock()) > 0:
                self._watch()
                time.sleep(min(wait, 0.001))
            if number in at:
                at[number]()
            self._send(number)
            due = (due if catch_up else clock()) + interval_s
            if number % 32 == 0:
                self._watch()
        quiet_since = clock()
        while clock() - quiet_since < drain_s:
            if self._watch():
                quiet_since = clock()
            time.sleep(0.001)
        self._watch()  # this process may have slept through the last of them
        return self.seen

    def _send(self, number: int) -> None:
        stamp = _STAMP.pack(number, time.monotonic())
        self._sender.send(self._header + stamp + self._padding)

    def _watch(self) -> int:
        frames = [each for port in self._ring.read(4096).values() for each in port]
        for arrival, frame in frames:
            if frame[: len(self._header)] == self._header:
                number, sent = _STAMP.unpack_from(frame, len(self._header))
                self.seen.append(Sighting(number, sent, arrival, len(frame)))
        return len(frames)
