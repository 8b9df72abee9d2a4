"""Two places for a function between a client and a server: how moves are tried and measured.

    client  10.1.0.1, fd01::1 --+                           +-- server  10.2.0.1, fd02::1
                                +-- in  a firewall  out ----+
                     10.1.0.254, fd01::fe          10.2.0.100, fd02::64 (translated to)

    platform  10.9.0.1 -------------- a link -------------- 10.9.0.2  platform

The function is a stateful firewall that translates sources, a program of nftables in a namespace
of its own.  Whose MAC address the client and the server send to decides which one packets take.
Use a `Rig` in a sandbox only.
"""

from __future__ import annotations

import ipaddress
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple

from testbed.errors import ExperimentError
from testbed.kernel import NetworkNamespace, RtNetlink, conntrack, rtnetlink
from testbed.kernel.nftables import Nftables
from testbed.kernel.rtnetlink import Message, VethEnd
from testbed.links import LinkSpec, rig
from testbed.vnf.agent import Agent

CLIENT, SERVER, OUTSIDE = "10.1.0.1", "10.2.0.1", "10.2.0.100"
CLIENT6, SERVER6, OUTSIDE6 = "fd01::1", "fd02::1", "fd02::64"
PLATFORMS = "10.9.0.1", "10.9.0.2"
_EVERYWHERE = ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")
_MAC = "02:00:00:00:{:02x}:{:02x}"
_UP, _PATIENCE_S, _POLL_S = 6, 10.0, 0.001  # operstate of RFC 2863

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


class _Side(NamedTuple):
    """A segment: who is on it, and what the function is called there."""

    device: str
    host: tuple[str, str]
    host_mac: str
    function: tuple[str, str]


_SIDES = (
    _Side("in", (CLIENT, CLIENT6), _MAC.format(0, 1), ("10.1.0.254", "fd01::fe")),
    _Side("out", (SERVER, SERVER6), _MAC.format(0, 2), (OUTSIDE, OUTSIDE6)),
)


def _send(namespace: NetworkNamespace, *messages: Message) -> None:
    with namespace:
        netlink = RtNetlink()
    try:
        netlink.batch(messages)
    finally:
        netlink.close()


def _addresses(index: int, addresses: Sequence[str]) -> list[Message]:
    prefixed = (f"{each}/{64 if ':' in each else 24}" for each in addresses)
    return [rtnetlink.add_address(index, ipaddress.ip_interface(each)) for each in prefixed]


class Place:
    """A namespace that programs run in."""

    def __init__(self) -> None:
        self.namespace = NetworkNamespace.create()
        _send(self.namespace, rtnetlink.set_link(1, up=True))

    def popen(self, argv: list[str], **settings: Any) -> subprocess.Popen[str]:
        """Start a program here."""
        with self.namespace:
            return subprocess.Popen(argv, **settings)


class Firewall:
    """A function whose program is text: `testbed.vnf.agent.Movable`."""

    tables = ("inet fw",)

    def __init__(self, network: Rig, number: int, program: str) -> None:
        self.number, self.destroyed = number, False
        self.namespace = NetworkNamespace.create()
        self.namespace.set_sysctls({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
        self.nft = Nftables(self.namespace)
        self.nft.run(program)
        self.namespace.sysctl("net.netfilter.nf_conntrack_tcp_loose", 0)
        conntrack.tell_all(self.namespace)
        for place, side in enumerate(_SIDES):
            index = 2 + place
            network.plug(self.namespace, side.device, place, _MAC.format(number, place))
            neighbours = (rtnetlink.add_neighbour(index, ip, side.host_mac) for ip in side.host)
            _send(self.namespace, *_addresses(index, side.function), *neighbours)

    def pause(self) -> None:
        """Drop what comes."""
        self.nft.run(
            "table inet hold { chain hold { type filter hook prerouting priority -400; drop; }; }"
        )

    def resume(self) -> None:
        """Forward again."""
        self.nft.run("delete table inet hold")

    def destroy(self) -> None:
        """End the function; its namespace goes with what holds it."""
        self.destroyed = True
        self.nft.close()
        self.namespace.close()

    def counted(self) -> int:
        """Packets that came to be forwarded."""
        found = self.nft.ask("list counter inet fw forwarded")
        return next(int(each["counter"]["packets"]) for each in found if "counter" in each)


class Rig:
    """The network, without functions; leaving the `with` block closes it.

    `link` says how the platforms are joined: by a plain veth pair where it is None.
    """

    def __init__(self, link: LinkSpec | None = None) -> None:
        self._stack = ExitStack()
        self._switch = Place()
        self._ports = 10
        self._functions = 0
        for place, side in enumerate(_SIDES):
            message = rtnetlink.new_link("bridge", f"b{side.device}", 2 + place)
            _send(self._switch.namespace, message)
        self.client, self.server = (self._host(place) for place in range(len(_SIDES)))
        _send(
            self.client.namespace,
            *(
                rtnetlink.add_route(everywhere, via=via, index=2)
                for everywhere, via in zip(_EVERYWHERE, _SIDES[0].function, strict=True)
            ),
        )
        wide = rig.Rig(specs=None if link is None else (link, link))
        self.platforms = self._stack.enter_context(wide).a, wide.b
        links = [_link(each, name) for each, name in zip(self.platforms, "ab", strict=True)]
        for here, there in ((0, 1), (1, 0)):
            _send(
                self.platforms[here],
                *_addresses(links[here].index, PLATFORMS[here : here + 1]),
                # ends of a measured wire do not ask for each other
                rtnetlink.add_neighbour(links[here].index, PLATFORMS[there], links[there].mac),
            )

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _host(self, place: int) -> Place:
        host, side = Place(), _SIDES[place]
        self.plug(host.namespace, "eth0", place, side.host_mac)
        _send(host.namespace, *_addresses(2, side.host))
        return host

    def plug(self, namespace: NetworkNamespace, name: str, place: int, mac: str) -> None:
        """Connect a namespace to the inside (0) or the outside (1); up when this returns."""
        self._ports += 1
        port = f"p{self._ports}"
        near = VethEnd(name, 2 + (place if name != "eth0" else 0), namespace.fd, mac=mac)
        far = VethEnd(port, self._ports, self._switch.namespace.fd, master=2 + place, up=True)
        _send(self._switch.namespace, rtnetlink.new_veth(far, near))
        _send(namespace, rtnetlink.set_link(near.index, up=True))
        _await_up(self._switch.namespace, port)
        _await_up(namespace, name)

    def firewall(self, program: str = FIREWALL) -> Firewall:
        """A new function, which no traffic takes yet."""
        self._functions += 1
        return Firewall(self, self._functions, program)

    def lead_through(self, function: Firewall) -> None:
        """Traffic of the client and the server takes `function` from now on."""
        for place, host in enumerate((self.client, self.server)):
            mac = _MAC.format(function.number, place)
            known = (rtnetlink.add_neighbour(2, ip, mac) for ip in _SIDES[place].function)
            _send(host.namespace, *known)

    def agent(self) -> Agent:
        """An agent on the second platform."""
        return self._stack.enter_context(Agent(self.platforms[1], PLATFORMS[1]))

    def cut_platforms(self) -> None:
        """Nothing passes between the platforms any more; neither of them is told."""
        with Nftables(self.platforms[1]) as nft:
            for hook in ("input", "output"):
                chain = f"type filter hook {hook} priority 0; policy drop;"
                nft.run(f"table inet cut {{ chain {hook} {{ {chain} }}; }}")


def _link(namespace: NetworkNamespace, name: str) -> rtnetlink.LinkState:
    with namespace:
        netlink = RtNetlink()
    try:
        return netlink.link(name)
    finally:
        netlink.close()


def _await_up(namespace: NetworkNamespace, name: str) -> None:
    """The kernel opens an interface some time after it was asked to."""
    deadline = time.monotonic() + _PATIENCE_S
    while _link(namespace, name).operstate != _UP:
        if time.monotonic() > deadline:
            raise ExperimentError(f"interface {name} does not come up")
        time.sleep(_POLL_S)
