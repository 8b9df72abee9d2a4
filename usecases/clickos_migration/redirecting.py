"""The operator's tool: connections that pass M1 led through middleboxes of data centre 2.

M1 watches handshakes from the start.  Each chain of middleboxes gets an address of its own at
each of its boxes, so that an address of M2 means one way on from there.  Who redirects a
connection further is the box it was redirected to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from testbed.kernel import rtnetlink
from testbed.mptcp.counters import Address
from testbed.mptcp.redirection.driver import Redirector, Report
from testbed.mptcp.redirection.messages import Outcome
from testbed.mptcp.redirection.nexthop import NextHop
from testbed.mptcp.redirection.watcher import Flow, Watcher
from testbed.run import Recorder

_FIRST_HOST = 100  # of a box's subnet: those below are the network's own


class Hop(NextHop):
    """A next hop that knows which server is behind the address of another one.

    A connection that goes on from M2 to M3 seems to M2 to be one with M3.  Where it is led next
    is nevertheless about its server: `servers`, which all hops share, maps addresses of hops to
    servers.
    """

    def __init__(self, servers: dict[Address, Address], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._meant = servers

    def listen(self, server: Address) -> Address:
        """As of `NextHop`, and so are the other two."""
        meant = self._meant.get(server, server)
        address = super().listen(meant)
        self._meant[address] = meant
        return address

    def open(self, server: Address) -> None:
        """See `listen`."""
        super().open(self._meant.get(server, server))

    def release(self, server: Address) -> None:
        """See `listen`."""
        super().release(self._meant.get(server, server))


class Steering:
    """Watches M1 while its `async with` block runs; everything is taken out again behind it."""

    def __init__(self, net: Any, tear_down: str, timeout_s: float = 20.0) -> None:
        self._net = net
        self._tear_down, self._timeout_s = tear_down, timeout_s
        self._stack = AsyncExitStack()
        self._servers: dict[Address, Address] = {}
        self._chains = 0

    async def __aenter__(self) -> Steering:
        self._watcher = self._stack.enter_context(Watcher(self._net["m1"].netns))
        self._stack.enter_context(self._watcher.attended())
        self.first = await self._stack.enter_async_context(Redirector(self._watcher))
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._stack.aclose()

    def chain(self, boxes: Sequence[str]) -> NextHop:
        """The first of next hops that lead through `boxes`, in this order, to the server."""
        onward: Hop | None = None
        for name in reversed(boxes):
            addresses, namespace = self._add_addresses(self._net[name]), self._net[name].netns
            hop = Hop(self._servers, namespace, addresses, outward=addresses, onward=onward)
            self._stack.enter_context(hop)
            onward = hop
        self._chains += 1
        assert onward is not None
        return onward

    def _add_addresses(self, box: Any) -> list[str]:
        """One more address of each family."""
        intf = box.intf()
        found = []
        for address in (f"{intf.ip}/{intf.prefixLen}", f"{intf.ip6}/{intf.prefixLen6}"):
            network = ipaddress.ip_interface(address).network
            further = network.network_address + _FIRST_HOST + self._chains
            host = ipaddress.ip_interface(f"{further}/{network.prefixlen}")
            box.configure(rtnetlink.add_address(intf.index, host))
            found.append(str(further))
        return found

    async def redirector(self, hop: NextHop) -> Redirector:
        """For connections that have been redirected to `hop`, and are to be once more."""
        return await self._stack.enter_async_context(Redirector(hop.watcher))

    async def redirect(
        self, flows: Sequence[Flow], via: NextHop, redirector: Redirector | None = None
    ) -> list[Report]:
        """Redirect all of them at once, by M1 unless another box's redirector is given."""
        return await (redirector or self.first).redirect_many(
            flows, via, tear_down=self._tear_down, timeout_s=self._timeout_s
        )


def tell(record: Recorder, report: Report, source: str) -> bool:
    """Record what came of a redirection; did it succeed?"""
    record.event("redirection", source=source, outcome=report.outcome.name, reason=report.reason)
    times = {"echo": report.echo_s, "join": report.join_s, "switch": report.total_s}
    for name, seconds in times.items():
        if seconds is not None:
            record.result(name, seconds, "s", source)
    record.result("attempts", report.attempts, "", source)
    return report.outcome is Outcome.REDIRECTED
