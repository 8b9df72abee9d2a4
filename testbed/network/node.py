"""Nodes: a network namespace held by a descriptor, configured by netlink.

`Node` is Mininet's with this engine underneath; `Host` and `Router` are what topologies name.
How its programs run is in `shell`, which addresses and routes it gets by itself in `addressing`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mininet.node import Host as MininetHost
from mininet.node import Node as MininetNode

from testbed.kernel import RtNetlink, rtnetlink
from testbed.network import rules, vlan
from testbed.network.failure import Fallible, Program

if TYPE_CHECKING:
    from testbed.network.addressing import NodeRoutes
    from testbed.network.intf import Intf

_FORWARDING = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
}
_SOURCE_RULES = 1000  # first table (and priority) used for source routing


class Node(Fallible):
    """A node of the network.

    `netns` is its network namespace, `netlink` an rtnetlink socket in it, `network` the
    `Network` it belongs to (None for a node made by hand).
    """

    intf_class: type[Intf] | None = None
    """Of what class its interfaces are, where it must be one of its own."""
    stack_elsewhere = False
    """Is its protocol stack another kernel's, so that sockets in its namespace are not its own?"""

    @classmethod
    def setup(cls) -> None:
        """Needs no helper programs."""

    @classmethod
    def check(cls, name: str, params: Mapping[str, Any]) -> None:
        """Raise `UserError` for parameters that no node of this class can have."""

    @classmethod
    def carriers(cls, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of nodes that a node with these parameters reaches without a link: it is on one."""
        return ()

    @property
    def stubs(self) -> list[Intf]:
        """Interfaces that no link of the network leads to, each with a subnet of its own."""
        found: list[Intf] = self.__dict__.setdefault("_stubs", [])
        return found

    def settle_in(self) -> None:
        """All nodes and links of the network are there, and nothing is configured yet."""

    def switch_on(self) -> None:
        """The network carries packets: begin what takes time; `start_programs` waits for it."""

    def startShell(self, mnopts: str | None = None) -> None:
        """Called by Mininet's constructor; both namespace and shell come when needed."""

    def cmd(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command in the node's shell and return what it says, as in Mininet."""
        vlan.require(" ".join(map(str, args)))
        return super().cmd(*args, **kwargs)

    def sysctl(self, name: str, value: str | int | None = None) -> str:
        """Read kernel setting `name` in this node, writing `value` first if given."""
        if value is not None:
            self.settings[name] = value
        return self.netns.sysctl(name, value)

    # -- configuration ----------------------------------------------------------------------

    def config(
        self,
        mac: str | None = None,
        ip: str | None = None,
        ip6: str | None = None,
        defaultRoute: Any = None,
        lo: str = "up",
        sysctls: dict[str, str | int] | None = None,
        on_start: Sequence[Program] | Program = (),
        **_params: Any,
    ) -> dict[str, Any]:
        """Configure the node, as in Mininet, and besides: `ip6` for the default interface,
        `sysctls` (name to value) for its namespace, `on_start` for the programs that run from
        the network's start on and after a restart.
        """
        self.on_start = on_start or self.on_start
        results: dict[str, Any] = {}
        self.setParam(results, "setMAC", mac=mac)
        self.setParam(results, "setIP", ip=ip)
        self.setParam(results, "setIP6", ip6=ip6)
        self.setParam(results, "setDefaultRoute", defaultRoute=defaultRoute)
        for name, value in (sysctls or {}).items():
            self.sysctl(name, value)
        if lo != "up":
            self.netlink.request(rtnetlink.set_link(1, up=False))
        return results

    def setIP6(self, ip6: str, intf: Any = None) -> None:
        """Add an IPv6 address ("fd00::1/64") to an interface (the default one)."""
        self.intf(intf).setIP6(ip6)

    def IP6(self, intf: Any = None) -> str | None:
        """IPv6 address of the node or of one interface."""
        return self.intf(intf).IP6()  # type: ignore[no-any-return]

    def setARP(self, ip: str, mac: str) -> None:
        """Add a static neighbour on the default interface."""
        self._remember(rtnetlink.add_neighbour(self.defaultIntf().index, ip, mac))

    def _remember(self, message: rtnetlink.Message) -> None:
        """Send a message, and again after a restart."""
        self.configure(message)
        self.remembered[message] = None

    def setHostRoute(self, ip: str, intf: Any) -> None:
        """Route one address through an interface."""
        self.add_route(f"{ip}/{ipaddress.ip_address(ip).max_prefixlen}", dev=str(intf))

    def setDefaultRoute(self, intf: Any = None) -> None:
        """Default route through an interface, or "via ADDRESS [dev INTERFACE] [metric N]"."""
        route = rules.default_route(intf, owner=self.name)
        via = route.get("via", "")
        self.add_route(
            "::/0" if ":" in via else "0.0.0.0/0",
            via=via,
            dev=route.get("dev", ""),
            metric=int(route.get("metric", 0)),
        )

    def add_route(
        self, destination: str, *, via: str = "", dev: str = "", table: int = 254, metric: int = 0
    ) -> None:
        """Add or replace a route to `destination` ("10.1.0.0/16", "::/0")."""
        index = self.nameToIntf[dev].index if dev in self.nameToIntf else 0
        if dev and not index:
            index = self.netlink.index(dev)
        self._remember(
            rtnetlink.add_route(
                ipaddress.ip_network(destination), via=via, index=index, table=table, metric=metric
            )
        )

    def apply_routes(self, routes: NodeRoutes) -> None:
        """Install planned routes, and a routing table per interface where there are several."""
        self._planned = routes
        messages = []
        for route in routes.main:
            index = self.nameToIntf[route.interface].index
            messages.append(
                rtnetlink.add_route(
                    route.destination, via=route.via, index=index, metric=route.metric
                )
            )
        for number, source in enumerate(routes.by_source):
            table = _SOURCE_RULES + number
            for route in source.routes:
                index = self.nameToIntf[route.interface].index
                messages.append(
                    rtnetlink.add_route(route.destination, via=route.via, index=index, table=table)
                )
            messages.append(rtnetlink.add_source_rule(source.source, table, priority=table))
        self.configure(*messages)

    # -- interfaces -------------------------------------------------------------------------

    def addIntf(self, intf: Intf, port: int | None = None, moveIntfFn: Any = None) -> None:
        """Register an interface; one made elsewhere is moved into the node by netlink."""
        super().addIntf(intf, port=port, moveIntfFn=moveIntfFn or _move)

    def deleteIntfs(self, checkName: bool = True) -> None:
        """Delete all interfaces (with `checkName`, those whose names contain the node's)."""
        for intf in list(self.intfs.values()):
            if self.name in intf.name or not checkName:
                intf.delete()

    def __repr__(self) -> str:
        """As in Mininet, without starting a shell for the pid."""
        intfs = ",".join(f"{intf.name}:{intf.IP()}" for intf in self.intfList())
        pid = self.pid if self.shell_started else None
        return f"<{type(self).__name__} {self.name}: {intfs} pid={pid}> "


def _move(name: str, node: Node) -> None:
    here = RtNetlink()
    try:
        here.request(rtnetlink.set_link(here.index(name), namespace_fd=node.netns.fd))
    finally:
        here.close()


class Host(Node, MininetHost):
    """An end system."""


class Router(Node):
    """A node that forwards IPv4 and IPv6, and checks no reverse path.

    A topology with routers gets addresses and routes by plan (see `addressing`) wherever it
    gives none by hand.
    """

    def config(self, *args: Any, **params: Any) -> dict[str, Any]:
        """Turn forwarding on, then configure like any node."""
        self.home.namespace.set_sysctls(_FORWARDING)
        return super().config(*args, **params)


def is_node_class(thing: Any) -> bool:
    """Is `thing` a class of nodes, ours or Mininet's?"""
    return isinstance(thing, type) and issubclass(thing, MininetNode)
