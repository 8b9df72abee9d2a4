"""A lab for moving functions: a client, a server, and two platforms that a function may be on.

    client  10.1.0.1, fd01::1 --+                           +-- server  10.2.0.1, fd02::1
                                +-- in   a firewall   out --+
                     10.1.0.254, fd01::fe          10.2.0.100, fd02::64 (translated to)

    platform  10.9.0.1 ------------------------ 10.9.0.2  platform

Functions are hand-written nftables programs in namespaces of their own.  Whose MAC address the
client and the server send to decides which one packets take.  Call it inside a sandbox only.
"""

from __future__ import annotations

import ipaddress
import subprocess
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.nftables import Nftables
from testbed.kernel.rtnetlink import Message, VethEnd
from testbed.vnf.agent import Agent

CLIENT, SERVER, OUTSIDE = "10.1.0.1", "10.2.0.1", "10.2.0.100"
CLIENT6, SERVER6, OUTSIDE6 = "fd01::1", "fd02::1", "fd02::64"
PLATFORMS = "10.9.0.1", "10.9.0.2"
_INSIDE = "10.1.0.254", "fd01::fe"
_EVERYWHERE = ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")
_MAC = "02:00:00:00:{:02x}:{:02x}"

FIREWALL = """
table inet fw {
    counter forwarded { }
    set clients { type ipv4_addr; flags dynamic,timeout; timeout 1h; }
    chain fresh { meta nfproto ipv4 add @clients { ip saddr }
        counter accept
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        counter name forwarded
        ct state established,related accept
        iifname "in" tcp flags & (fin|syn|rst|ack) == syn ct state new jump fresh
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        oifname "out" meta nfproto ipv4 snat ip to 10.2.0.100
        oifname "out" meta nfproto ipv6 snat ip6 to fd02::64
    }
}
"""


def send(namespace: NetworkNamespace, *messages: Message) -> None:
    with namespace:
        netlink = RtNetlink()
    try:
        netlink.batch(messages)
    finally:
        netlink.close()


def address(index: int, text: str) -> Message:
    return rtnetlink.add_address(index, ipaddress.ip_interface(text))


class Place:
    """A namespace that programs run in, as `traffic_lab` wants its nodes."""

    def __init__(self) -> None:
        self.namespace = NetworkNamespace.create()
        send(self.namespace, rtnetlink.set_link(1, up=True))

    def popen(self, argv: list[str], **settings: Any) -> subprocess.Popen[str]:
        with self.namespace:
            return subprocess.Popen(argv, **settings)


class Firewall:
    """A function whose program is text: `testbed.vnf.agent.Movable`."""

    tables = ("inet fw",)

    def __init__(self, lab: Lab, number: int, program: str = FIREWALL) -> None:
        self.number, self.destroyed = number, False
        self.namespace = NetworkNamespace.create()
        self.namespace.set_sysctls(
            {
                "net.ipv4.ip_forward": 1,
                "net.ipv6.conf.all.forwarding": 1,
                "net.netfilter.nf_conntrack_tcp_loose": 0,
            }
        )
        self.nft = Nftables(self.namespace)
        self.nft.run(program)
        for side, (name, addresses, peers) in enumerate(
            (
                ("in", _INSIDE, ((CLIENT, lab.macs["client"]), (CLIENT6, lab.macs["client"]))),
                (
                    "out",
                    (OUTSIDE, OUTSIDE6),
                    ((SERVER, lab.macs["server"]), (SERVER6, lab.macs["server"])),
                ),
            )
        ):
            index = 2 + side
            lab.plug(self.namespace, name, index, side, _MAC.format(number, side))
            send(
                self.namespace,
                *(address(index, f"{a}/{64 if ':' in a else 24}") for a in addresses),
                *(rtnetlink.add_neighbour(index, ip, mac) for ip, mac in peers),
            )

    def pause(self) -> None:
        self.nft.run(
            "table inet hold { chain hold {"
            " type filter hook prerouting priority -400; counter drop; }; }"
        )

    def resume(self) -> None:
        self.nft.run("delete table inet hold")

    def destroy(self) -> None:
        self.destroyed = True
        self.nft.close()
        self.namespace.close()

    def counted(self, name: str = "forwarded") -> int:
        (_, found) = self.nft.ask(f"list counter inet fw {name}")
        return int(found["counter"]["packets"])


class Lab:
    """The network, without functions; leaving the `with` block closes it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.client, self.server, self._switch = Place(), Place(), Place()
        self.platforms = Place(), Place()
        self.macs = {"client": _MAC.format(0, 1), "server": _MAC.format(0, 2)}
        self._ports = 10
        self._bridges = []
        for side, name in enumerate(("inside", "outside")):
            index = 2 + side
            send(self._switch.namespace, rtnetlink.new_link("bridge", name, index))
            self._bridges.append(index)
        self._functions = 0
        for side, (place, name, own, six, gateways) in enumerate(
            (
                (self.client, "client", CLIENT, CLIENT6, _INSIDE),
                (self.server, "server", SERVER, SERVER6, (OUTSIDE, OUTSIDE6)),
            )
        ):
            self.plug(place.namespace, "eth0", 2, side, self.macs[name])
            send(place.namespace, address(2, f"{own}/24"), address(2, f"{six}/64"))
            if name == "client":
                for everywhere, via in zip(_EVERYWHERE, gateways, strict=True):
                    send(place.namespace, rtnetlink.add_route(everywhere, via=via, index=2))
        first, second = (each.namespace for each in self.platforms)
        ends = VethEnd("wan", 2, first.fd), VethEnd("wan", 2, second.fd)
        send(first, rtnetlink.new_veth(*ends))
        for place, own in zip(self.platforms, PLATFORMS, strict=True):
            send(place.namespace, rtnetlink.set_link(2, up=True), address(2, f"{own}/24"))

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def plug(self, namespace: NetworkNamespace, name: str, index: int, side: int, mac: str) -> None:
        """Connect a namespace to the inside (side 0) or the outside."""
        self._ports += 1
        port = VethEnd(
            f"p{self._ports}",
            self._ports,
            self._switch.namespace.fd,
            master=self._bridges[side],
            up=True,
        )
        end = VethEnd(name, index, namespace.fd, mac=mac)
        send(self._switch.namespace, rtnetlink.new_veth(port, end))
        send(namespace, rtnetlink.set_link(index, up=True))

    def firewall(self, program: str = FIREWALL) -> Firewall:
        """A new function, which no traffic takes yet."""
        self._functions += 1
        return Firewall(self, self._functions, program)

    def lead_through(self, function: Firewall) -> None:
        """Traffic of the client and the server takes `function` from now on."""
        for place, side, gateways in (
            (self.client, 0, _INSIDE),
            (self.server, 1, (OUTSIDE, OUTSIDE6)),
        ):
            mac = _MAC.format(function.number, side)
            send(place.namespace, *(rtnetlink.add_neighbour(2, each, mac) for each in gateways))

    def agent(self) -> Agent:
        """An agent on the second platform."""
        agent = Agent(self.platforms[1].namespace, PLATFORMS[1])
        return self._stack.enter_context(agent)

    def cut_platforms(self) -> None:
        """Nothing passes between the platforms any more; neither of them is told."""
        nft = Nftables(self.platforms[1].namespace)
        for hook in ("input", "output"):
            nft.run(
                f"table inet cut {{ chain {hook} {{ type filter hook {hook} priority 0;"
                " policy drop; }; }"
            )
        nft.close()
