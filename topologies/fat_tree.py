"""The k-ary fat tree of data centres, after M. Al-Fares, A. Loukissas, A. Vahdat, "A Scalable,
Commodity Data Center Network Architecture", SIGCOMM 2008.  For k = 4, pod 0 of four:

        c1   c2   c3   c4              (k/2)^2 core routers
         \\  /      \\  /      ... to the other pods
         p0a0      p0a1               k/2 aggregation routers in each pod
          |  \\    /  |
          |   \\  /   |
          |   /  \\   |
         p0e0      p0e1               k/2 edge routers in each pod
         /  \\      /  \\
   p0e0h0 p0e0h1  p0e1h0 p0e1h1       k/2 hosts on each edge router

All switches are routers, as in the paper: a tree of bridges with so many loops would need
spanning tree and lose all but one path.  Routes are static and shortest; the paper's two-level
tables, which spread flows over the equal paths, are not built.
"""

from __future__ import annotations

from mininet.topo import Topo

from testbed.errors import TopologyError
from testbed.network import Host, Router
from testbed.network.expect import AllReachable, Expectation, Path
from topologies._links import options


class FatTree(Topo):
    """`k` pods (even): k^3/4 hosts, 5k^2/4 routers; every link with `bw` Mb/s and `delay`."""

    def build(
        self, k: int = 4, *, bw: float | None = None, delay: str | float | None = None
    ) -> None:
        """Wire it up."""
        if not isinstance(k, int) or k < 2 or k % 2:
            raise TopologyError(f"k={k!r}", remedy="a fat tree takes an even integer, 2 or more")
        self._link = options(bw, delay)
        half = self._half = k // 2
        cores = [self.addNode(f"c{n + 1}", cls=Router) for n in range(half * half)]
        for pod in range(k):
            self._pod(pod, half, cores)

    def _pod(self, pod: int, half: int, cores: list[str]) -> None:
        above = [self.addNode(f"p{pod}a{n}", cls=Router) for n in range(half)]
        for number, aggregation in enumerate(above):
            for core in cores[number * half : (number + 1) * half]:
                self.addLink(aggregation, core, **self._link)
        for number in range(half):
            edge = self.addNode(f"p{pod}e{number}", cls=Router)
            for aggregation in above:
                self.addLink(edge, aggregation, **self._link)
            for host in range(half):
                name = self.addHost(f"p{pod}e{number}h{host}", cls=Host)
                self.addLink(name, edge, **self._link)

    def expect(self) -> list[Expectation]:
        """One router between hosts of an edge, three within a pod, five from pod to pod."""
        ends = [("p0e0h0", "p1e0h0", 5)]
        if self._half > 1:
            ends += [("p0e0h0", "p0e0h1", 1), ("p0e0h0", "p0e1h0", 3)]
        return [AllReachable(), *(Path(one, other, hops=hops) for one, other, hops in ends)]


topos = {"fat_tree": FatTree}
