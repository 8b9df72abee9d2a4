"""Two operators, a data centre at each, and two wide-area paths to servers in a far domain.

      client1 ---.       ISP A       .--- a1 ---.
      client2 --- edge ------ m1 ---<           transit ------------ far ------ server1
      ...     ---'   access    |     '--- a2 ---'        direct       |   `---- server2 ...
                               |          a1                          |
                              dc1          |                          |
                               |           | peering                  |
                   data centre |           |                          |
                  interconnect |           |                          |
                              dci         b1 ------ b2 ---------------'
                               |           |                other
                               '--------- dc2         ISP B
                                         / | \\
                                       m2 m3 m4 ...

`client*`, `server*` are hosts, everything else is a router.  m1 is the middlebox on the path of
ISP A's clients; it has two ways to the operator's neighbour `transit`, over a1 (used) and a2.  The
wide-area path called *direct* is what routing uses between clients and servers.  The *other* one
is ISP B's: only what is addressed to data centre 2 crosses the peering, and what leaves the data
centre for a server goes by it.  dc1 and dc2 are the platforms of the two data centres: functions
are attached to them; what one of them sends to the other goes over the interconnect, and nothing
else does.

After figure 3.1 of D3.1.
"""

from __future__ import annotations

from mininet.topo import Topo

from testbed.network import Host, Router
from testbed.network.expect import AllReachable, Expectation, Path
from topologies._links import at_least, options

ROUTERS = ("edge", "m1", "a1", "a2", "transit", "far", "b1", "b2", "dc1", "dci", "dc2")


class Operators(Topo):
    """The topology above: rates in Mb/s, delays one way, losses in percent each way.

    `clients` and `servers` count hosts, `middleboxes` those in data centre 2 (m2, m3, ...).
    `queue` is that of both wide-area paths ("100p", "64KB", "50ms"; default: 100 ms).
    Links inside the operators, of clients and of servers are not shaped.
    """

    def build(
        self,
        *,
        clients: int = 4,
        servers: int = 1,
        middleboxes: int = 4,
        access_bw: float | None = None,
        access_delay: str | float | None = "4ms",
        direct_bw: float | None = 10,
        direct_delay: str | float | None = "16ms",
        direct_loss: float | None = None,
        other_bw: float | None = 20,
        other_delay: str | float | None = "18ms",
        other_loss: float | None = None,
        queue: str | int | None = None,
        peering_bw: float | None = None,
        peering_delay: str | float | None = "2ms",
        dc_bw: float | None = 50,
        dc_delay: str | float | None = "10ms",
    ) -> None:
        """Wire it up."""
        at_least(1, clients=clients, servers=servers)
        at_least(0, middleboxes=middleboxes)
        for name in ROUTERS:
            self.addNode(name, cls=Router)
        for number in range(1, clients + 1):
            self.addLink(self.addHost(f"client{number}", cls=Host), "edge")
        self.addLink("edge", "m1", **options(access_bw, access_delay))
        for border in ("a1", "a2"):
            self.addLink("m1", border)
            self.addLink(border, "transit")
        direct = options(direct_bw, direct_delay, direct_loss, queue=queue)
        other = options(other_bw, other_delay, other_loss, queue=queue)
        self.addLink("transit", "far", **direct)
        self.addLink("a1", "b1", **options(peering_bw, peering_delay))
        self.addLink("b1", "b2")
        self.addLink("b2", "far", **other)
        self.addLink("b1", "dc2")
        self.addLink("m1", "dc1")
        self.addLink("dc1", "dci", **options(dc_bw, dc_delay))
        self.addLink("dci", "dc2")
        for number in range(2, middleboxes + 2):
            self.addLink("dc2", self.addNode(f"m{number}", cls=Router))
        for number in range(1, servers + 1):
            self.addLink("far", self.addHost(f"server{number}", cls=Host))

    def expect(self) -> list[Expectation]:
        """Which way goes what, in both directions."""
        ways = {
            ("client1", "server1"): ["edge", "m1", "a1", "transit", "far"],
            ("client1", "dc2"): ["edge", "m1", "a1", "b1"],
            ("dc2", "server1"): ["b1", "b2", "far"],
            ("dc1", "dc2"): ["dci"],
        }
        found: list[Expectation] = [AllReachable()]
        for (source, target), via in ways.items():
            found += [Path(source, target, via=via), Path(target, source, via=via[::-1])]
        return found


topos = {"operators": Operators}
