"""Routers in a tree, hosts at its leaves; with `fanout` 2 and `depth` 2:

                  r1
               /      \\
             r2        r3
            /  \\      /  \\
           h1  h2    h3  h4

Mininet's `TreeTopo` is a tree of switches, one LAN whose every broadcast reaches everybody.  In
this one each link is a subnet, so that it may have many thousand hosts.
"""

from __future__ import annotations

from mininet.topo import Topo

from testbed.network import Host, Router
from topologies._links import at_least, options


class Tree(Topo):
    """`depth` layers of routers with `fanout` links down each: fanout^depth hosts.

    Every link has `bw` Mb/s and `delay`.
    """

    def build(
        self,
        depth: int = 2,
        fanout: int = 2,
        *,
        bw: float | None = None,
        delay: str | float | None = None,
    ) -> None:
        """Wire it up."""
        at_least(1, depth=depth, fanout=fanout)
        link = options(bw, delay)
        layer = [self.addNode("r1", cls=Router)]
        routers, hosts = 1, 0
        for level in range(1, depth + 1):
            below = []
            for above in layer:
                for _ in range(fanout):
                    if level < depth:
                        routers += 1
                        below.append(self.addNode(f"r{routers}", cls=Router))
                    else:
                        hosts += 1
                        below.append(self.addHost(f"h{hosts}", cls=Host))
                    self.addLink(above, below[-1], **link)
            layer = below


topos = {"tree": Tree}
