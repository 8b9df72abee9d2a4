"""A client multihomed to two providers, and servers at each of them and behind both.

                   .--- a1 ------- a2 ---.---- eth0 server_a
              isp_a|                |    '---------.
        client ----'             exchange        site (eth0: isp A, eth1: isp B)
              isp_b'---.            |    .---------'
                   '--- b1 ------- b2 ---'---- eth0 server_b

Each provider is an access router (a1, b1) and a border router (a2, b2); the borders meet at an
exchange.  `client` and `site` have an address of each provider, and what leaves by an address
leaves through its provider, as providers demand that filter sources (BCP 38).
"""

from __future__ import annotations

from mininet.topo import Topo

from testbed.network import Host, Router
from testbed.network.expect import AllReachable, Expectation, Path
from topologies._links import options


class TwoIsps(Topo):
    """Access rates in Mb/s, delays one way; `exchange_delay` between the two providers."""

    def build(
        self,
        *,
        a_bw: float | None = 20,
        a_delay: str | float | None = "10ms",
        a_loss: float | None = None,
        b_bw: float | None = 20,
        b_delay: str | float | None = "20ms",
        b_loss: float | None = None,
        exchange_bw: float | None = None,
        exchange_delay: str | float | None = None,
    ) -> None:
        """Wire it up."""
        client, site = (self.addHost(name, cls=Host) for name in ("client", "site"))
        for isp, access in (
            ("a", options(a_bw, a_delay, a_loss)),
            ("b", options(b_bw, b_delay, b_loss)),
        ):
            near, border = (self.addNode(f"{isp}{n}", cls=Router) for n in (1, 2))
            self.addLink(client, near, intfName1=f"isp_{isp}", **access)
            self.addLink(near, border)
            server = self.addHost(f"server_{isp}", cls=Host)
            self.addLink(border, server, intfName2="eth0")
        self.addLink("a2", site, intfName2="eth0")
        self.addLink("b2", site, intfName2="eth1")
        self.addLink("a2", "b2", **options(exchange_bw, exchange_delay))

    def expect(self) -> list[Expectation]:
        """What leaves by a provider's address leaves through that provider."""
        return [
            AllReachable(),
            Path("client:isp_a", "site:eth0", via=["a1", "a2"]),
            Path("client:isp_b", "site:eth1", via=["b1", "b2"]),
            Path("client:isp_a", "site:eth1", via=["a1", "a2", "b2"]),
            Path("client:isp_b", "site:eth0", via=["b1", "b2", "a2"]),
        ]


topos = {"two_isps": TwoIsps}
