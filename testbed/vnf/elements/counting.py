"""Elements that count, limit or measure, and Tee."""

from __future__ import annotations

from testbed.vnf.elements.arguments import Arguments, bandwidth
from testbed.vnf.elements.base import (
    UNLIMITED,
    Context,
    Element,
    Flow,
    Handlers,
    Ports,
    Stateful,
    element,
)

_BURST_S = 0.01
_LEAST_BURST = 3000


@element("Counter", "AverageCounter")
class Counter(Element):
    """No arguments."""

    handlers = Handlers(("count", "byte_count"), ("reset",))

    def read(self, arguments: Arguments) -> None:
        arguments.ignore("COUNT_CALL", "BYTE_COUNT_CALL", "IGNORE")

    def rules(self, context: Context, port: int) -> list[str]:
        context.parts.objects[self.chain] = Stateful("counter")
        return [f'counter name "{self.chain}"', context.lead(self.name, 0)]


class Limited(Element):
    """Base of what parts packets by a rate, which may be changed while it runs."""

    outputs = Ports(1, 2)
    flow = (Flow.PUSH, Flow.PUSH)
    handlers = Handlers(("rate",), ("rate",))

    def limit(self) -> str:
        """What nft's limit object says."""
        raise NotImplementedError

    def change(self, text: str) -> None:
        """Take another rate; raises `ValueError` with what is wrong."""
        raise NotImplementedError

    @property
    def rate_text(self) -> str:
        """The rate as the handler shows it."""
        raise NotImplementedError

    def rules(self, context: Context, port: int) -> list[str]:
        context.parts.objects[self.chain] = Stateful("limit", f"{{ {self.limit()} ; }}")
        return [
            f'limit name "{self.chain}" {context.lead(self.name, 1)}',
            context.lead(self.name, 0),
        ]


@element("RateLimiter", "BandwidthRatedSplitter", "BandwidthMeter")
class BandwidthLimited(Limited):
    """RATE [, BURST bytes]: up to RATE ("10Mbps") by output 0; the rest by output 1, or dropped."""

    def read(self, arguments: Arguments) -> None:
        self.bits = arguments.bandwidth(arguments.next("RATE"))
        burst = arguments.keyword("BURST") or arguments.optional()
        self.burst = arguments.integer(burst, "BURST", 1, 1 << 30) if burst else None

    def limit(self) -> str:
        rate = max(1, round(self.bits / 8))
        burst = self.burst or max(_LEAST_BURST, round(rate * _BURST_S))
        return f"rate over {rate} bytes/second burst {burst} bytes"

    def change(self, text: str) -> None:
        self.bits = bandwidth(text)

    @property
    def rate_text(self) -> str:
        return f"{self.bits:.0f}bps"


@element("RatedSplitter", "Meter", "PacketRateLimiter")
class PacketsLimited(Limited):
    """RATE [, BURST packets]: up to RATE packets/s by output 0; the rest by 1, or dropped."""

    def read(self, arguments: Arguments) -> None:
        self.packets = arguments.integer(arguments.next("RATE"), "RATE", 1, 10**9)
        burst = arguments.keyword("BURST") or arguments.optional()
        self.burst = arguments.integer(burst, "BURST", 1, 1 << 20) if burst else None

    def limit(self) -> str:
        burst = self.burst or max(5, round(self.packets * _BURST_S))
        return f"rate over {self.packets}/second burst {burst} packets"

    def change(self, text: str) -> None:
        if not text.strip().isdigit() or not 1 <= int(text) <= 10**9:
            raise ValueError(f"{text[:40]!r} is no rate in packets per second")
        self.packets = int(text)

    @property
    def rate_text(self) -> str:
        return str(self.packets)


@element()
class Tee(Element):
    """[N].  Output 0 goes on; the others must lead to a device, or away, and get copies."""

    outputs = Ports(1, UNLIMITED)
    flow = (Flow.PUSH, Flow.PUSH)

    def read(self, arguments: Arguments) -> None:
        number = arguments.optional()
        self.number = arguments.integer(number, "N", 1, UNLIMITED) if number else None

    def exact_outputs(self) -> int | None:
        return self.number

    def rules(self, context: Context, port: int) -> list[str]:
        copies = [
            statement
            for output in range(1, self.number or UNLIMITED)
            for statement in context.mirror(self.name, output)
        ]
        return [*copies, context.lead(self.name, 0)]
