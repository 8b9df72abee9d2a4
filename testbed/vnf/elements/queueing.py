"""Queues, and what pulls from them on the way to a device: they become traffic control there."""

from __future__ import annotations

from testbed.vnf.elements.arguments import Arguments, bandwidth
from testbed.vnf.elements.base import UNLIMITED, Element, Flow, Handlers, Ports, element

DEFAULT_CAPACITY = 1000
PACKET_BYTES = 1514


@element("Queue", "SimpleQueue", "ThreadSafeQueue", "NotifierQueue")
class Queue(Element):
    """[CAPACITY]: as many packets of 1514 bytes, counted in bytes."""

    flow = (Flow.PUSH, Flow.PULL)
    handlers = Handlers(("length", "capacity", "drops"), ())

    def read(self, arguments: Arguments) -> None:
        capacity = arguments.keyword("CAPACITY") or arguments.optional()
        self.capacity = (
            arguments.integer(capacity, "CAPACITY", 1, 1_000_000) if capacity else DEFAULT_CAPACITY
        )

    @property
    def limit_bytes(self) -> int:
        """The most that waits."""
        return self.capacity * PACKET_BYTES


class Pulling(Element):
    """Base of what stands between queues and a device."""

    flow = (Flow.PULL, Flow.PULL)


@element("BandwidthShaper", "Shaper")
class Shaper(Pulling):
    """RATE ("10Mbps"; a plain number is in bytes per second)."""

    handlers = Handlers(("rate",), ("rate",))

    def read(self, arguments: Arguments) -> None:
        rate = arguments.next("RATE")
        if self.element.kind == "Shaper" and rate.text.isdigit():
            raise self.wrong(
                "packets per second cannot be shaped here", "give a bandwidth such as 10Mbps", rate
            )
        self.bits = arguments.bandwidth(rate)

    def change(self, text: str) -> None:
        """Take another rate; raises `ValueError` with what is wrong."""
        self.bits = bandwidth(text)

    @property
    def rate_text(self) -> str:
        """The rate as the handler shows it."""
        return f"{self.bits:.0f}bps"


class Scheduler(Pulling):
    """Base of what pulls from several inputs."""

    inputs = Ports(1, UNLIMITED)

    def read(self, arguments: Arguments) -> None:
        pass


@element("PrioSched", "SimplePrioSched")
class PrioSched(Scheduler):
    """No arguments: the lowest input that has a packet."""


@element("RoundRobinSched", "DRRSched")
class RoundRobinSched(Scheduler):
    """No arguments: inputs in turn."""


@element("Unqueue")
class Unqueue(Element):
    """No arguments: pulls at once, so that the queue before it never holds anything."""

    flow = (Flow.PULL, Flow.PUSH)
    transparent = True

    def read(self, arguments: Arguments) -> None:
        arguments.ignore("BURST", "ACTIVE", "LIMIT")
