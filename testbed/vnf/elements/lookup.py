"""Routing tables: the longest prefix that holds a destination chooses output and next hop."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from testbed.vnf.click.graph import Argument
from testbed.vnf.elements.arguments import Arguments
from testbed.vnf.elements.base import UNLIMITED, Context, Element, Flow, Ports, element

Network = ipaddress.IPv4Network
Hop = tuple[str, int]  # next hop ("" for none) and output


@element("StaticIPLookup", "LinearIPLookup", "RadixIPLookup", "DirectIPLookup", "RangeIPLookup",
         "SortedIPLookup", "LookupIPRoute")  # fmt: skip
class IPLookup(Element):
    """ADDRESS/PREFIX [GATEWAY] OUTPUT, ...: what matches none is dropped."""

    outputs = Ports(1, UNLIMITED)
    flow = (Flow.PUSH, Flow.PUSH)

    def read(self, arguments: Arguments) -> None:
        rows = arguments.rest()
        if not rows:
            arguments.next("ADDRESS/PREFIX [GATEWAY] OUTPUT, ...")
        self.routes: dict[Network, Hop] = {}
        for row in rows:
            network, hop = self._route(row)
            if self.routes.setdefault(network, hop) != hop:
                raise self.wrong(f"{network} has two routes", "take one of them out", row)

    @property
    def looks_at(self) -> frozenset[str]:
        return frozenset({"destination"})

    def exact_outputs(self) -> int | None:
        return max(output for _gateway, output in self.routes.values()) + 1

    def _route(self, row: Argument) -> tuple[Network, Hop]:
        words = row.text.split()
        try:
            if not 2 <= len(words) <= 3 or not words[-1].isdigit() or int(words[-1]) >= UNLIMITED:
                raise ValueError
            gateway = words[1] if len(words) == 3 and words[1] != "-" else ""
            if gateway:
                ipaddress.IPv4Address(gateway)
            return ipaddress.IPv4Network(words[0], strict=False), (gateway, int(words[-1]))
        except ValueError:
            raise self.wrong(
                f"{row.text[:40]!r} is no route",
                "write ADDRESS/PREFIX [GATEWAY] OUTPUT, such as 10.0.0.0/8 10.1.0.1 0",
                row,
            ) from None

    def rules(self, context: Context, port: int) -> list[str]:
        leads = {hop: self._lead(context, hop) for hop in dict.fromkeys(self.routes.values())}
        cases = ", ".join(
            f"{low}-{high} : {leads[hop]}" if low != high else f"{low} : {leads[hop]}"
            for low, high, hop in intervals(self.routes.items())
        )
        return [f"ip daddr vmap {{ {cases} }}", "drop"]

    def _lead(self, context: Context, hop: Hop) -> str:
        gateway, output = hop
        lead = context.lead(self.name, output)
        if not gateway or lead == "drop":
            return lead
        chain = f"{self.chain}_via_{gateway}_{output}"
        context.parts.chains[chain] = [context.gateway(gateway, self.name, output), lead]
        return f"goto {chain}"


@element()
class SetIPAddress(Element):
    """ADDRESS: the next hop."""

    def read(self, arguments: Arguments) -> None:
        self.gateway = str(arguments.address(arguments.next("ADDRESS")))

    def rules(self, context: Context, port: int) -> list[str]:
        return [context.gateway(self.gateway, self.name, 0), context.lead(self.name, 0)]


def intervals(
    routes: Iterable[tuple[Network, Hop]],
) -> Iterator[tuple[ipaddress.IPv4Address, ipaddress.IPv4Address, Hop]]:
    """First and last address, and hop, of disjoint ranges that mean the same as the prefixes."""
    ordered = sorted(routes, key=lambda route: (int(route[0].network_address), route[0].prefixlen))
    inside: list[tuple[int, Hop]] = []  # ends of the prefixes around the cursor, outermost first
    cursor = 0
    found: list[tuple[int, int, Hop]] = []

    def close(before: int) -> None:
        nonlocal cursor
        while inside and inside[-1][0] < before:
            end, hop = inside.pop()
            if cursor <= end:
                found.append((cursor, end, hop))
            cursor = max(cursor, end + 1)

    for network, hop in ordered:
        start = int(network.network_address)
        close(start)
        if inside and cursor < start:
            found.append((cursor, start - 1, inside[-1][1]))
        cursor = start
        inside.append((int(network.broadcast_address), hop))
    close(1 << 32)
    for low, high, hop in found:
        yield ipaddress.IPv4Address(low), ipaddress.IPv4Address(high), hop
