"""Does a network do what its topology says?  Who reaches whom, asked with real echoes."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from testbed.network.echo import round_trip
from testbed.network.expect import pairs_of
from testbed.network.net import Network

_AT_ONCE = 64
_TRIES = 3


class Reach(NamedTuple):
    """Whether one node's echo to one address of another was answered."""

    source: str
    target: str
    address: str
    ok: bool


def reachability(net: Network) -> list[Reach]:
    """Ask from nodes to nodes, in each address family both have.

    All pairs of hosts and routers where there are at most 24 of them, a ring otherwise.
    """
    return asyncio.run(_all(net))


async def _all(net: Network) -> list[Reach]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(source: Any, target: Any, address: str) -> Reach:
        async with gate:
            rtt, _why = await round_trip(source, address, tries=_TRIES)
        return Reach(source.name, target.name, address, rtt is not None)

    return await asyncio.gather(
        *(
            ask(source, target, address)
            for source, target in pairs_of(net)
            for family in ("ip", "ip6")
            if (address := getattr(target.defaultIntf(), family))
            and getattr(source.defaultIntf(), family)
        )
    )
