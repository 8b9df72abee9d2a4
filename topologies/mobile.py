"""A phone with WiFi and LTE between an access point and an eNodeB, the Internet, servers.

                    wlan        wan
             .------- ap ------------ isp1 ---.
        wifi |                                |
           phone                             core ----- eth0 server1
         lte |                                |   `---- eth0 server2 ...
             '------ enodeb --------- isp2 ---'
                   radio       wan

`phone` and the servers are hosts; `ap`, `enodeb`, `isp1`, `isp2` and `core` are routers.  The
phone has two addresses, and what leaves by one leaves by that one's interface.  The two radio
links are what limits; `wan_delay` is a delay (one way) of each provider's way to the core, and
the servers' links are unshaped unless `server_bw` is given.

WiFi is a wire with WiFi's rate, delay and loss here: airtime is not shared, and no station comes
or goes.
"""

from __future__ import annotations

from typing import Any

from mininet.topo import Topo

from testbed.network import Host, Router
from testbed.network.expect import AllReachable, Expectation, Path
from topologies._links import at_least, options


class Mobile(Topo):
    """The topology above.

    Rates in Mb/s: `wifi_bw` and `lte_bw` towards the phone, `wifi_bw_up` and `lte_bw_up` from it
    (default: the same).  Delays one way, losses in percent in each direction.  `wifi` and `lte`
    are further parameters of `LinkSpec` for the radio links ({"jitter": "2ms", "queue": "64KB"}).
    """

    def build(
        self,
        *,
        wifi_bw: float | None = 20,
        wifi_bw_up: float | None = None,
        wifi_delay: str | float | None = "5ms",
        wifi_loss: float | None = None,
        lte_bw: float | None = 10,
        lte_bw_up: float | None = None,
        lte_delay: str | float | None = "25ms",
        lte_loss: float | None = None,
        wan_delay: str | float | None = None,
        server_bw: float | None = None,
        servers: int = 1,
        wifi: dict[str, Any] | None = None,
        lte: dict[str, Any] | None = None,
    ) -> None:
        """Wire it up."""
        at_least(1, servers=servers)
        phone = self.addHost("phone", cls=Host)
        self._routers()
        self._radio(
            phone, "ap", ("wifi", "wlan"), (wifi_bw_up, wifi_bw),
            options(wifi_bw, wifi_delay, wifi_loss, **wifi or {}),
        )  # fmt: skip
        self._radio(
            phone, "enodeb", ("lte", "radio"), (lte_bw_up, lte_bw),
            options(lte_bw, lte_delay, lte_loss, **lte or {}),
        )  # fmt: skip
        for access, isp in (("ap", "isp1"), ("enodeb", "isp2")):
            self.addLink(access, isp, intfName1="wan", **options(None, wan_delay))
            self.addLink(isp, "core")
        for number in range(1, servers + 1):
            server = self.addHost(f"server{number}", cls=Host)
            self.addLink("core", server, intfName2="eth0", **options(server_bw))

    def _routers(self) -> None:
        for name in ("ap", "enodeb", "isp1", "isp2", "core"):
            self.addNode(name, cls=Router)

    def _radio(
        self,
        phone: str,
        access: str,
        names: tuple[str, str],
        rates: tuple[float | None, float | None],
        common: dict[str, Any],
    ) -> None:
        up, down = rates
        if up is not None and up != down:
            common["params1"] = {"bw": up}
        self.addLink(phone, access, intfName1=names[0], intfName2=names[1], **common)

    def expect(self) -> list[Expectation]:
        """What leaves by a radio's address leaves by that radio, and comes back by it."""
        return [
            AllReachable(),
            Path("phone:wifi", "server1", via=["ap", "isp1", "core"]),
            Path("phone:lte", "server1", via=["enodeb", "isp2", "core"]),
            Path("server1", "phone:wifi", via=["core", "isp1", "ap"]),
            Path("server1", "phone:lte", via=["core", "isp2", "enodeb"]),
        ]


topos = {"mobile": Mobile}
