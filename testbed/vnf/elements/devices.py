"""Where packets enter and leave a function."""

from __future__ import annotations

import re

from testbed.vnf.elements.arguments import Arguments
from testbed.vnf.elements.base import NONE, Context, Element, Flow, Ports, element

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


class Device(Element):
    """Base of what names a device."""

    def read(self, arguments: Arguments) -> None:
        name = arguments.next("DEVNAME")
        self.device = name.text.strip("\"'")
        if not _NAME.fullmatch(self.device):
            raise self.wrong(
                f"{name.text[:30]!r} is no device", "give a name of up to 15 characters", name
            )
        arguments.ignore("SNIFFER", "PROMISC", "BURST", "METHOD", "SNAPLEN", "QUIET", "MAXTHREADS",
                         "HEADROOM", "FORCE_IP", "TIMESTAMP", "NO_PAD", "UP_CALL", "DOWN_CALL",
                         "ALLOW_NONEXISTENT")  # fmt: skip


@element("FromDevice", "PollDevice")
class FromDevice(Device):
    """DEVNAME."""

    inputs = NONE
    flow = (Flow.PUSH, Flow.PUSH)


@element()
class ToDevice(Device):
    """DEVNAME.  Takes packets that are pushed, too: they leave at once."""

    outputs = NONE

    def rules(self, context: Context, port: int) -> list[str]:
        return [context.exit(self.device, self.element)]


@element("Discard", "Idle")
class Discard(Element):
    """No arguments."""

    outputs = NONE

    def read(self, arguments: Arguments) -> None:
        arguments.ignore("BURST", "ACTIVE")


@element()
class ToHost(Element):
    """No arguments: the function itself takes the packet, if it is for one of its addresses."""

    outputs = NONE

    def read(self, arguments: Arguments) -> None:
        arguments.rest()

    def rules(self, context: Context, port: int) -> list[str]:
        context.parts.local = True
        return ["fib daddr type != local drop", "accept"]


@element()
class ICMPPingResponder(Element):
    """No arguments: echo requests to the function's addresses are answered; others go on by
    output 1 where it is connected.
    """

    outputs = Ports(0, 2)
    flow = (Flow.PUSH, Flow.PUSH)

    @property
    def looks_at(self) -> frozenset[str]:
        return frozenset({"destination"})

    def rules(self, context: Context, port: int) -> list[str]:
        context.parts.local = True
        request = "meta l4proto { icmp, ipv6-icmp } @th,0,8 { 8, 128 } fib daddr type local accept"
        return [request, context.lead(self.name, 1)]
