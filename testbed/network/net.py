"""`Network`: Mininet's `Mininet` brought up through netlink.

It needs a sandbox around it (`testbed.sandbox`), keeps Mininet's API, and adds: the engines of
impaired links, addresses and routes by plan where there are routers, a private Open vSwitch
where there are OVS switches, and names of nodes in /etc/hosts.
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from mininet.log import output
from mininet.net import Mininet
from mininet.topo import Topo

from testbed.errors import (
    KernelError,
    PrivilegeError,
)
from testbed.kernel import RtNetlink, rtnetlink
from testbed.kernel.namespaces import sysctl
from testbed.links import Engines
from testbed.network import throughput
from testbed.network.adapt import adapt
from testbed.network.addressing import (
    AddressPlan,
    Port,
    Segment,
    plan_addresses,
    plan_routes,
    segments,
)
from testbed.network.answering import answer_arp
from testbed.network.cuts import Cuts
from testbed.network.intf import Intf
from testbed.network.limits import crowded, may_overflow_neighbours
from testbed.network.link import Link
from testbed.network.live_network import LiveNetwork
from testbed.network.neighbours import NeighbourKeeper
from testbed.network.node import Host, Router
from testbed.network.operations import Operations
from testbed.network.ovs import OpenVSwitch
from testbed.network.pipeline import PIPELINE
from testbed.network.shell import HOSTS_FILE, SUPPLY
from testbed.network.sketch import Settings, of_network
from testbed.network.switch import Bridge, Switch
from testbed.network.validate import refuse_bad, refuse_bad_sketch
from testbed.network.validate_calls import check_link, check_node
from testbed.network.waiting import WaitingNetwork
from testbed.network.where import at, caller, watch
from testbed.sandbox import inside

watch()

_groups = itertools.count(0x6D6E)


class Network(LiveNetwork, WaitingNetwork, Operations):
    """A network of real kernel stacks.

    Parameters are Mininet's, with our classes as defaults and no controller, and:

    engine      "auto", "fabric" or "netem" for links with delay, loss and the like
    seed        fixes the losses of the fabric engine
    workers     most processes of the fabric engine; left out, as many as there are processors
    plan        where planned subnets are taken from; used when the topology has routers
    link_local  do hosts give themselves IPv6 link-local addresses?  Yes, unless there are more
                than 1023 without a router between, whose multicast would be copied to all

    `log_path`, where it is set, says in which file a node that keeps a log does so.

    `with Network(topo) as net:` starts it and stops it.  Raises `PrivilegeError` outside a
    sandbox and `TopologyError` for a topology that cannot be built.
    """

    def __init__(
        self,
        topo: Topo | None = None,
        *,
        engine: str = "auto",
        seed: int = 0,
        workers: int | None = None,
        plan: AddressPlan | None = None,
        link_local: bool | None = None,
        switch: Any = Bridge,
        host: Any = Host,
        link: Any = Link,
        intf: Any = Intf,
        controller: Any = None,
        **options: Any,
    ) -> None:
        if not inside():
            raise PrivilegeError(
                "a Network needs a sandbox around it",
                remedy="call testbed.sandbox.ensure() first, or use `testbed topo FILE.py`",
            )
        self.engines = Engines(prefer=engine, seed=seed, workers=workers)
        self.group = next(_groups)
        self.observers = []
        self.cuts = Cuts(self.group)
        self._plan = plan or AddressPlan()
        self._wants_link_local = link_local
        self._link_local = link_local is not False
        self._neighbours: NeighbourKeeper | None = None
        self._routed = False
        self._validated = False  # as a whole, so that links need no check of their own
        self._settings = Settings(
            host=host, switch=switch, link=link, ip_base=options.get("ipBase", "10.0.0.0/8")
        )
        self._openvswitch: OpenVSwitch | None = None
        self.log_path: Callable[[str], Path] | None = None
        self.stopped = False
        sysctl("net/ipv6/conf/default/disable_ipv6", 1)  # switches and their ports stay silent
        for program in ("arptables", "iptables", "ip6tables"):  # a switch is not a firewall
            if Path(f"/proc/sys/net/bridge/bridge-nf-call-{program}").exists():
                sysctl(f"net/bridge/bridge-nf-call-{program}", 0)
        Mininet.inited = True  # raising the machine's limits is the sandbox's business
        super().__init__(
            topo,
            switch=adapt(switch),
            host=adapt(host),
            link=adapt(link),
            intf=adapt(intf),
            controller=adapt(controller),
            **options,
        )

    @classmethod
    def init(cls) -> None:
        """Nothing to do: raising the machine's limits is the sandbox's business."""

    # -- building -----------------------------------------------------------------------------

    def addHost(self, name: str, cls: Any = None, **params: Any) -> Any:
        """As in Mininet; a host of a routed network gets its addresses by plan."""
        with at(caller):
            check_node(self, name, cls, params)
            given = dict(params)
            if self._routed:
                params.setdefault("ip", None)
            node = super().addHost(name, cls=adapt(cls) if cls else None, **params)
        self._own(node, given)
        if settings := self._quieting(params):
            node.home.namespace.set_sysctls(settings)
            node.settings.update(settings)
        return node

    def _quieting(self, params: dict[str, Any]) -> dict[str, str | int]:
        """Settings for interfaces still to come, so that IPv6 talks less by itself."""
        settings: dict[str, str | int] = {}
        if self._routed or "ip6" in params:
            # They would keep silent for a second to detect duplicates.
            settings["net/ipv6/conf/default/accept_dad"] = 0
        if not self._link_local:
            settings["net/ipv6/conf/default/addr_gen_mode"] = 1  # none
        return settings

    def addSwitch(self, name: str, cls: Any = None, **params: Any) -> Any:
        """As in Mininet."""
        with at(caller):
            check_node(self, name, cls, params)
            node = super().addSwitch(name, cls=adapt(cls) if cls else None, **params)
        self._own(node, params)
        return node

    def _own(self, node: Any, given: dict[str, Any]) -> None:
        """Make `node` ours; what its user gave, and where, is kept for checks to come."""
        node.network = self
        if self.topo is None:
            node.given, node.place = given, caller()

    def addLink(self, node1: Any, node2: Any, *args: Any, **params: Any) -> Any:
        """As in Mininet, with the parameters of `LinkSpec` besides."""
        with at(caller):
            if params.get("cls"):
                params["cls"] = adapt(params["cls"])
            if not self._validated:
                check_link(self, node1, node2)
            link = super().addLink(node1, node2, *args, **params)
        if self.topo is None:
            link.place = caller()
        return link

    def buildFromTopo(self, topo: Topo | None = None) -> None:
        """Build the nodes and links of a topology."""
        topo = topo or self.topo
        assert topo is not None
        refuse_bad(topo, self._settings, choose=self.engines.choose)
        classes = (topo.nodeInfo(name).get("cls") for name in topo.hosts())
        self._routed = any(isinstance(cls, type) and issubclass(cls, Router) for cls in classes)
        if self._wants_link_local is None:
            self._link_local = not crowded(len(topo.hosts()), self._routed)
        SUPPLY.prepare(len(topo.hosts()))
        self._validated = True
        try:
            super().buildFromTopo(topo)
        finally:
            self._validated = False
            SUPPLY.discard()

    def build(self) -> None:
        """Build the network; all of it is there in the kernel when this returns."""
        with PIPELINE:
            super().build()

    def configHosts(self) -> None:
        """Configure the hosts; in a routed network plan what was not given by hand."""
        if self.topo is None:
            refuse_bad_sketch(of_network(self))
        for host in self.hosts:
            host.settle_in()
        super().configHosts()
        if self._routed:
            self._apply_plan()

    def segments(self) -> list[Segment]:
        """Sets of interfaces that reach each other without a router."""
        linked = segments(
            (_port(link.intf1), _port(link.intf2)) for link in self.links if link.intf1 is not None
        )
        return [*linked, *((_port(stub),) for host in self.hosts for stub in host.stubs)]

    def _apply_plan(self) -> None:
        parts = self.segments()
        fixed = {
            (port.node, port.interface): _addresses(self[port.node].nameToIntf[port.interface])
            for part in parts
            for port in part
        }
        addresses = plan_addresses(parts, fixed, self._plan)
        for (node, name), wanted in addresses.items():
            intf = self[node].nameToIntf[name]
            for address in wanted:
                if address not in fixed[node, name]:
                    (intf.setIP if address.version == 4 else intf.setIP6)(str(address))
        for node, routes in plan_routes(parts, addresses, self._plan).items():
            if self[node].params.get("defaultRoute"):
                routes.main = [route for route in routes.main if route.destination.prefixlen]
            self[node].apply_routes(routes)

    # -- running ------------------------------------------------------------------------------

    @property
    def openvswitch(self) -> OpenVSwitch:
        """The sandbox's private Open vSwitch, started on first use."""
        if self._openvswitch is None:
            self._openvswitch = OpenVSwitch.join()
        return self._openvswitch

    def start(self) -> None:
        """Start controllers and switches; the network then carries packets.

        It waits for links, for IPv6 addresses and for spanning trees (30 s with the kernel's
        timers; see `Bridge`).  Raises `NotReady` where one does not come up.
        """
        HOSTS_FILE.write_text("127.0.0.1 localhost\n::1 localhost\n" + "".join(self._names()))
        super().start()
        if not self._link_local and self._wants_link_local is None:
            answer_arp(self.links)
        if may_overflow_neighbours(self.segments()):
            self._neighbours = NeighbourKeeper(host.netns for host in self.hosts)
        self.settle()
        for host in self.hosts:
            host.switch_on()
        for host in self.hosts:
            host.start_programs()

    def _names(self) -> Iterator[str]:
        for host in self.hosts:
            for intf in host.intfList():
                for address in (intf.ip, intf.ip6):
                    if address:
                        yield f"{address} {host.name} {host.name}.{intf.name}\n"

    def stop(self) -> None:
        """End everything: engines, switches, nodes and their programs, all links at once."""
        if self.stopped:
            return
        self.stopped = True
        if self._neighbours is not None:
            self._neighbours.close()
        for controller in self.controllers:
            controller.stop()
        self.engines.close()
        self.cuts.close()
        for switch in self.switches:
            switch.stop(deleteIntfs=False)
        self._delete_links()
        for node in (*self.switches, *self.hosts):
            node.terminate()
        if self._openvswitch is not None:
            self._openvswitch.leave()
            self._openvswitch = None

    def _delete_links(self) -> None:
        """Remove every interface of this network that is in the namespace it shares.

        Interfaces in nodes go with their peers or with the node's namespace.
        """
        netlink = RtNetlink()
        group = rtnetlink.attribute(rtnetlink.IFLA_GROUP, self.group)
        message = rtnetlink.Message(
            rtnetlink.RTM_DELLINK, 0, rtnetlink.link(extra=group), ("links",)
        )
        try:
            netlink.request(message)
        except KernelError as error:
            if error.errno != errno.ENODEV:  # no interface left in the group
                raise
        finally:
            netlink.close()

    def __enter__(self) -> Network:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- tests --------------------------------------------------------------------------------

    def iperf(
        self,
        hosts: Any = None,
        l4Type: str = "TCP",
        udpBw: str = "10M",
        fmt: str | None = None,
        seconds: int = 5,
        port: int = 5001,
    ) -> list[str]:
        """Throughput between two hosts by iperf3; returns [server, client] as Mininet does.

        UDP is sent by a program of our own, which needs no connection that losses break; its
        result begins with `udpBw`.
        """
        client, server = hosts or (self.hosts[0], self.hosts[-1])
        output(f"*** Iperf: testing {l4Type} bandwidth between {client} and {server}\n")
        if l4Type == "UDP":
            result = [udpBw, *throughput.udp(client, server, udpBw, seconds, port)]
        else:
            result = throughput.tcp(client, server, seconds, port)
        output(f"*** Results: {result}\n")
        return result


def _port(intf: Any) -> Port:
    node = intf.node
    return Port(node.name, intf.name, isinstance(node, Router), isinstance(node, Switch))


def _addresses(intf: Any) -> list[rtnetlink.Interface]:
    found: list[rtnetlink.Interface] = []
    if intf.ip:
        found.append(ipaddress.ip_interface(f"{intf.ip}/{intf.prefixLen}"))
    if intf.ip6:
        found.append(ipaddress.ip_interface(f"{intf.ip6}/{intf.prefixLen6}"))
    return found
