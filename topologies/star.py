"""Hosts around one bridge.

        h1   h2   h3
          \\   |   /
           `- s1 -'
          /   |   \\
        h4   h5   ... hn

A Linux bridge has 1023 ports.  More hosts are spread evenly over bridges s2, s3, ... around s1,
which is then two hops more between hosts of different bridges, and still one LAN.
"""

from __future__ import annotations

from mininet.topo import Topo

from testbed.network import Bridge, Host
from testbed.network.expect import AllReachable, Expectation
from topologies._links import at_least, options

_PORTS = 1023


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
        around = self._around(centre, hosts)
        for number in range(1, hosts + 1):
            host = self.addHost(f"h{number}", cls=Host)
            self.addLink(
                host, around[(number - 1) * len(around) // hosts], **options(bw, delay, loss)
            )

    def _around(self, centre: str, hosts: int) -> list[str]:
        """The bridges that hosts are linked to."""
        if hosts <= _PORTS:
            return [centre]
        count = -(-hosts // (_PORTS - 1))  # a port leads to the centre
        around = [self.addSwitch(f"s{number}", cls=Bridge) for number in range(2, count + 2)]
        for bridge in around:
            self.addLink(bridge, centre)
        return around

    def expect(self) -> list[Expectation]:
        """What must hold."""
        return [AllReachable()]


topos = {"star": Star}
