"""A phone behind a WiFi and a tablet behind LTE, side by side, and a server in the Internet.

                   wlan        wan
       .------- ap ----------- isp1 ---.
  wifi |                               |
      phone                           core ----- eth0 server
       |                               |
       | peer                          |
       |                               |
      tablet                           |
   lte |                               |
       '------ enodeb -------- isp2 ---'
            radio      wan

`phone` and `tablet` are devices that may carry virtual machines: they forward for these, and what
runs on each shares the processors of one control group.  The link between them (WiFi Direct, or a
home's network) is the shortest way from one to the other; neither reaches the Internet over the
other.  Everything between is a router, `server` is a host.

WiFi is a wire with WiFi's rate, delay and loss here: airtime is not shared, and no station comes
or goes.

After section 2.1 of D3.1.
"""

from __future__ import annotations

from mininet.topo import Topo

from testbed.network import CPULimitedHost, Host, Router
from testbed.network.expect import AllReachable, Expectation, Path
from topologies._links import options

ROUTERS = ("ap", "isp1", "core", "isp2", "enodeb")


class Device(CPULimitedHost, Router):
    """A phone or a tablet: it carries machines, forwards for them, and has little power."""


class Devices(Topo):
    """The topology above: rates in Mb/s, delays one way, losses in percent each way.

    `cpu` is the share of all processors that each device has.  `peer` is the link between the
    devices; without a delay the kernel shapes it.  `wan_delay` is a delay of each provider's way
    to the core.
    """

    def build(
        self,
        *,
        wifi_bw: float | None = 2,
        wifi_delay: str | float | None = "20ms",
        wifi_loss: float | None = None,
        lte_bw: float | None = 10,
        lte_delay: str | float | None = "25ms",
        lte_loss: float | None = None,
        peer_bw: float | None = 100,
        peer_delay: str | float | None = None,
        wan_delay: str | float | None = None,
        cpu: float | None = None,
    ) -> None:
        """Wire it up."""
        for name in ("phone", "tablet"):
            self.addNode(name, cls=Device, cpu=cpu)
        for name in ROUTERS:
            self.addNode(name, cls=Router)
        radios = (
            ("phone", "ap", ("wifi", "wlan"), options(wifi_bw, wifi_delay, wifi_loss)),
            ("tablet", "enodeb", ("lte", "radio"), options(lte_bw, lte_delay, lte_loss)),
        )
        for device, access, (name, other), shape in radios:
            self.addLink(device, access, intfName1=name, intfName2=other, **shape)
        for access, isp in (("ap", "isp1"), ("enodeb", "isp2")):
            self.addLink(access, isp, intfName1="wan", **options(None, wan_delay))
            self.addLink(isp, "core")
        self.addLink("core", self.addHost("server", cls=Host), intfName2="eth0")
        self.addLink(
            "phone", "tablet", intfName1="peer", intfName2="peer", **options(peer_bw, peer_delay)
        )

    def expect(self) -> list[Expectation]:
        """Each device has its own way to the Internet, and the two reach each other directly."""
        ways = {"phone": ["ap", "isp1", "core"], "tablet": ["enodeb", "isp2", "core"]}
        found: list[Expectation] = [AllReachable()]
        for device, via in ways.items():
            found += [Path(device, "server", via=via), Path("server", device, via=via[::-1])]
        return [*found, Path("phone", "tablet", via=[])]


topos = {"devices": Devices}
