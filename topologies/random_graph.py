"""Routers wired to each other at random, hosts on each.

              r1h1    r2h1
                \\      |
                 r1 -- r2 --- r5 - r5h1
                  | \\  |    /
         r3h1 -- r3   r4 --'
                       |
                      r4h1

A random tree first, in which each new router is joined to one drawn from those before (so that
everybody reaches everybody), then links between routers drawn from all pairs not yet joined, until
routers have `degree` links to others on average.  The same seed gives the same graph.  Addresses
and shortest-path routes come by plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from mininet.topo import Topo

from testbed.errors import TopologyError
from testbed.network import Host, Router
from topologies._links import at_least, options


class RandomGraph(Topo):
    """`routers` routers with `degree` links to others on average, `hosts` hosts on each.

    Links between routers have `bw` Mb/s and `delay`; those of hosts are unshaped.
    """

    def build(
        self,
        routers: int = 10,
        degree: float = 3,
        *,
        hosts: int = 1,
        seed: int = 1,
        bw: float | None = None,
        delay: str | float | None = None,
    ) -> None:
        """Wire it up."""
        at_least(1, routers=routers)
        at_least(0, hosts=hosts)
        names = [self.addNode(f"r{n}", cls=Router) for n in range(1, routers + 1)]
        for a, b in _edges(routers, _links(routers, degree), random.Random(seed)):
            self.addLink(names[a], names[b], **options(bw, delay))
        for router in names:
            for number in range(1, hosts + 1):
                self.addLink(self.addHost(f"{router}h{number}", cls=Host), router)


def _links(routers: int, degree: float) -> int:
    """How many links between routers make up this average degree."""
    least, most = routers - 1, routers * (routers - 1) // 2
    links = round(routers * degree / 2) if isinstance(degree, int | float) else -1
    if not least <= links <= most:
        raise TopologyError(
            f"degree={degree!r} for {routers} routers",
            remedy=f"give {2 * least / routers:.3g} (a tree) to {routers - 1} (a full mesh)",
        )
    return links


def _edges(routers: int, links: int, draw: random.Random) -> Iterator[tuple[int, int]]:
    joined = set()
    for new in range(1, routers):
        joined.add((draw.randrange(new), new))
    while len(joined) < links:
        a, b = sorted(draw.sample(range(routers), 2))
        joined.add((a, b))
    return iter(sorted(joined))


topos = {"random_graph": RandomGraph}
