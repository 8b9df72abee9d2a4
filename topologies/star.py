"""Hosts around one bridge.

        h1   h2   h3
          \\   |   /
           `- s1 -'
          /   |   \\
        h4   h5   ... hn
"""

from __future__ import annotations

from mininet.topo import Topo

from testbed.network import Bridge, Host
from topologies._links import at_least, options


class Star(Topo):
    """`hosts` hosts, each on a link of `bw` Mb/s, `delay`, `loss` (percent); default: unshaped."""

    def build(
        self,
        hosts: int = 4,
        *,
        bw: float | None = None,
        delay: str | float | None = None,
        loss: float | None = None,
    ) -> None:
        """Wire it up."""
        at_least(1, hosts=hosts)
        centre = self.addSwitch("s1", cls=Bridge)
        for number in range(1, hosts + 1):
            host = self.addHost(f"h{number}", cls=Host)
            self.addLink(host, centre, **options(bw, delay, loss))


topos = {"star": Star}
