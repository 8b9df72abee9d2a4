"""A client and a server, and two platforms either of which can have the function between them.

client --- p1 --- server        client and server use p1 or p2, by their routes;
   \\------ p2 ------/           p1 and p2 are joined by a link of the wide area
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from mininet.topo import Topo

from testbed.guests import Port, VmFunction
from testbed.network import Network, Router

PUBLIC = "198.51.100.1"  # what the server sees the client as
PORTS = (
    Port("in", "10.9.1.2/30", "vm-in", "10.9.1.1/30"),
    Port("out", "10.9.2.2/30", "vm-out", "10.9.2.1/30"),
)
ROUTES = {"10.1.0.0/16": "10.9.1.1", "default": "10.9.2.1"}
PROGRAM = f"""
table ip function {{
    counter seen {{ }}
    chain filter {{
        type filter hook forward priority 0; policy drop;
        ct state established,related counter name "seen" accept
        iifname "in" ct state new tcp flags & (syn | ack) == syn accept
    }}
    chain nat {{
        type nat hook postrouting priority 100;
        oifname "out" snat to {PUBLIC}
    }}
}}
"""


class Platforms(Topo):
    """The four nodes; `bw` (Mb/s) and `delay` are of the link between the platforms."""

    def build(self, bw: float = 200, delay: str = "2ms") -> None:
        for name in ("client", "server"):
            self.addHost(name, ip=None)
        for number in (1, 2):
            self.addNode(f"p{number}", cls=Router)
            self.link("client", f"p{number}", f"10.1.{number}")
            self.link("server", f"p{number}", f"10.2.{number}")
        self.link("p1", "p2", "10.3.0", bw=bw, delay=delay)

    def link(self, a: str, b: str, net: str, **spec: object) -> None:
        ends = [{"ip": f"{net}.{side}/24"} for side in (1, 2)]
        self.addLink(a, b, intfName1=f"{a}-{b}", intfName2=f"{b}-{a}", params1=ends[0],
                     params2=ends[1], **spec)  # fmt: skip


def prepare(net: Network) -> None:
    """What the platforms do with packets: through the function, whichever way they come."""
    for number in (1, 2):
        platform = net[f"p{number}"]
        platform.cmd(f"ip rule add iif p{number}-client lookup 100 priority 10")
    for host in ("client", "server"):
        net[host].sysctl("net.ipv4.conf.all.rp_filter", 0)
    net["client"].cmd("ip addr add 10.1.0.1/32 dev lo")
    net["server"].cmd("ip addr add 10.2.0.1/32 dev lo")


def steer(net: Network, number: int) -> None:
    """Lead everything to the function at platform `number`."""
    platform = net[f"p{number}"]
    for command in (
        "ip route replace default via 10.9.1.2 dev vm-in table 100",
        f"ip route replace {PUBLIC} via 10.9.2.2 dev vm-out",
        f"ip route replace 10.1.0.1 via 10.1.{number}.1",
        f"ip route replace 10.2.0.1 via 10.2.{number}.1",
    ):
        assert not platform.cmd(command), command
    net["client"].cmd(f"ip route replace 10.2.0.1 via 10.1.{number}.2 src 10.1.0.1")
    net["server"].cmd(f"ip route replace {PUBLIC} via 10.2.{number}.2 src 10.2.0.1")


@contextlib.asynccontextmanager
async def running(net: Network, program: str = PROGRAM) -> AsyncIterator[VmFunction]:
    """The function at p1, with all led to it."""
    function = await VmFunction.boot(net["p1"].netns, PORTS, program, routes=ROUTES)
    try:
        steer(net, 1)
        yield function
    finally:
        await function.close()


class Conversation:
    """One live connection through the function: every word is answered by the same word."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server

    @classmethod
    async def start(cls, net: Network) -> Conversation:
        loop = asyncio.get_running_loop()
        with net["server"].netns:
            listener = socket.create_server(("10.2.0.1", 0))
        with net["client"].netns:
            client = socket.socket()
        with listener:
            for end in (listener, client):
                end.setblocking(False)
            client.bind(("10.1.0.1", 0))
            await asyncio.wait_for(loop.sock_connect(client, listener.getsockname()), 20)
            server, peer = await loop.sock_accept(listener)
        assert peer[0] == PUBLIC
        return cls(client, server)

    async def exchange(self, word: bytes) -> None:
        """One word there and back; it may take as long as TCP takes."""
        loop = asyncio.get_running_loop()
        for one, other in ((self.client, self.server), (self.server, self.client)):
            await loop.sock_sendall(one, word)
            got = b""
            while len(got) < len(word):
                got += await asyncio.wait_for(loop.sock_recv(other, 1 << 16), 60)
            assert got == word

    def close(self) -> None:
        self.client.close()
        self.server.close()
