"""A small lab for the live tests of Multipath TCP: a client with two paths, a router, a server.

    client  wifi 10.1.0.2 ----- 10.1.0.1 rwifi  router  rsrv 10.9.0.1 ----- 10.9.0.2 eth0  server
            lte  10.2.0.2 ----- 10.2.0.1 rlte

Call it inside a sandbox only.  Both paths also have IPv6 (fd01::/64, fd02::/64, fd09::/64).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.rtnetlink import Message, VethEnd
from testbed.links import offloads
from testbed.mptcp import configure, sockets
from testbed.mptcp.events import EventKind, EventMonitor
from testbed.mptcp.path_manager import PathManager

WIFI, LTE, SERVER = "10.1.0.2", "10.2.0.2", "10.9.0.2"
PORT = 5000
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33


def until(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Poll until `condition` holds; AssertionError names what never came."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.002)


def run(namespace: NetworkNamespace, *argv: str, stdin: str = "") -> str:
    """Run a command in a namespace; a failure quotes what it printed."""
    with namespace:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


class Lab:
    """The three namespaces; leaving the `with` block closes them."""

    def __init__(self, *, wifi_mbit: float = 0, lte_mbit: float = 0) -> None:
        self._stack = ExitStack()
        self.client, self.router, self.server = (self._node() for _ in range(3))
        self._wire(self.client, "wifi", 2, self.router, "rwifi", 2, subnet=1)
        self._wire(self.client, "lte", 3, self.router, "rlte", 3, subnet=2)
        self._wire(self.server, "eth0", 2, self.router, "rsrv", 4, subnet=9)
        for node in (self.client, self.server):
            configure.pin_congestion_control(node, "reno")
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.router.sysctl(name, 1)
        everywhere = ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")
        for network in everywhere:
            self._routes(network)
        for name, rate in (("wifi", wifi_mbit), ("lte", lte_mbit)):
            if rate:
                self.shape(self.client, name, rate)
                self.shape(self.router, "r" + name, rate)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _node(self) -> NetworkNamespace:
        node = NetworkNamespace.create()
        self._stack.callback(node.close)
        self._send(node, rtnetlink.set_link(1, up=True))
        return node

    @staticmethod
    def _send(node: NetworkNamespace, *messages: Message) -> None:
        with node:
            netlink = RtNetlink()
        try:
            netlink.batch(messages)
        finally:
            netlink.close()

    def _wire(
        self,
        node: NetworkNamespace,
        name: str,
        index: int,
        router: NetworkNamespace,
        router_name: str,
        router_index: int,
        *,
        subnet: int,
    ) -> None:
        ends = VethEnd(name, index, node.fd), VethEnd(router_name, router_index, router.fd)
        self._send(node, rtnetlink.new_veth(*ends))
        for side, number, host in ((node, index, 2), (router, router_index, 1)):
            addresses = (
                ipaddress.ip_interface(f"10.{subnet}.0.{host}/24"),
                ipaddress.ip_interface(f"fd0{subnet}::{host}/64"),
            )
            self._send(
                side,
                rtnetlink.set_link(number, up=True),
                *(rtnetlink.add_address(number, address) for address in addresses),
            )
            offloads.disable(side, name if side is node else router_name)

    def _routes(self, default: rtnetlink.Network) -> None:
        six = default.version == 6
        gateway = "fd0{}::1" if six else "10.{}.0.1"
        own = "fd0{}::2/128" if six else "10.{}.0.2/32"
        self._send(self.server, rtnetlink.add_route(default, via=gateway.format(9), index=2))
        for subnet, index in ((1, 2), (2, 3)):
            via = gateway.format(subnet)
            self._send(
                self.client,
                rtnetlink.add_route(default, via=via, index=index, metric=100 * subnet),
                rtnetlink.add_route(default, via=via, index=index, table=subnet),
                rtnetlink.add_source_rule(
                    ipaddress.ip_network(own.format(subnet)), subnet, priority=100 + subnet
                ),
            )

    def shape(self, node: NetworkNamespace, name: str, mbit: float) -> None:
        """Limit what leaves through `name`; the queue holds 100 ms at that rate."""
        limit = [
            "rate",
            f"{mbit}mbit",
            "burst",
            str(max(3200, int(mbit * 500))),
            "latency",
            "100ms",
        ]
        run(node, "tc", "qdisc", "replace", "dev", name, "root", "tbf", *limit)

    def lose(self, name: str, permille: int) -> None:
        """Lose packets of path `name` ("wifi", "lte") at random, both ways."""
        verdict = "drop" if permille >= 1000 else f"numgen random mod 1000 < {permille} drop"
        for node, device in ((self.router, "r" + name), (self.client, name)):
            run(node, "nft", "-f", "-", stdin=_netdev_drop(device, verdict))

    def heal(self, name: str) -> None:
        """End `lose`."""
        for node in (self.router, self.client):
            run(node, "nft", "delete", "table", "netdev", f"loss_{name}")

    @contextmanager
    def capture(self, path: Path, *, node: NetworkNamespace, name: str) -> Iterator[None]:
        """Capture an interface into `path` while the block runs, every frame of it.

        The capture is over when it holds as many frames as the interface says it carried, and
        fails if it never does: a leak test on an incomplete capture would prove nothing.
        """
        tap = Tap(node, name)
        try:
            yield
            deadline = time.monotonic() + 20
            while (carried := frames(node, name) - tap.before) != len(tap.packets):
                tally = f"{name}: captured {len(tap.packets)} of {carried} frames"
                assert time.monotonic() < deadline, tally
                time.sleep(0.01)
        finally:
            tap.close()
        tap.write(path)


class Tap:
    """A thread that collects every frame of an interface.

    Not tcpdump: it cannot give up its privileges in an ordinary user's sandbox, and gives no
    frame a place in its file before a block of them is full.
    """

    def __init__(self, node: NetworkNamespace, name: str) -> None:
        self.packets: list[tuple[float, bytes]] = []
        self._closing = False
        for _attempt in range(10):
            self.before = frames(node, name)
            with node:
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._enlarge()
            self._socket.bind((name, ETH_P_ALL))
            if frames(node, name) == self.before:
                break
            self._socket.close()  # a frame passed while it was bound: counted or not?
        else:
            raise AssertionError(f"{name} is never quiet: begin the capture before the traffic")
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _enlarge(self) -> None:
        size = 16 << 20
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
        except PermissionError:  # an ordinary user gets what the machine allows everybody
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def _collect(self) -> None:
        self._socket.settimeout(0.05)
        while True:
            try:
                frame = self._socket.recv(1 << 16)
            except TimeoutError:
                if self._closing:
                    return
            else:
                self.packets.append((time.time(), frame))

    def close(self) -> None:
        """Stop collecting."""
        self._closing = True
        self._thread.join()
        self._socket.close()

    def write(self, path: Path) -> None:
        """Write what was collected as a pcap file."""
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, 1))
            for time_s, frame in self.packets:
                stamp = int(time_s), int(time_s % 1 * 1e6)
                file.write(struct.pack("<IIII", *stamp, len(frame), len(frame)) + frame)


def frames(node: NetworkNamespace, name: str) -> int:
    """Frames that an interface has sent and received."""
    with node:
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    (fields,) = (
        line.split(":")[1].split() for line in lines if line.strip().startswith(name + ":")
    )
    return int(fields[1]) + int(fields[9])


def _netdev_drop(device: str, verdict: str) -> str:
    path = device.removeprefix("r")
    return (
        f"table netdev loss_{path} {{ chain in {{ "
        f"type filter hook ingress device {device} priority 0; {verdict}; }}; }}"
    )


@dataclass(frozen=True)
class Segment:
    """One TCP segment over IPv4 of a capture."""

    time_s: float
    source: str
    destination: str
    options: bytes
    payload: bytes


def packets(path: Path) -> list[tuple[float, bytes]]:
    """Times and frames of a pcap file, as far as it is written."""
    data = path.read_bytes()
    found, offset = [], 24
    while offset + 16 <= len(data):
        seconds, micros, captured, _length = struct.unpack_from("<IIII", data, offset)
        frame = data[offset + 16 : offset + 16 + captured]
        offset += 16 + captured
        if len(frame) == captured:
            found.append((seconds + micros / 1e6, frame))
    return found


def segments(path: Path) -> list[Segment]:
    """TCP segments over IPv4 of a pcap file (Ethernet, whole frames)."""
    return [
        _segment(time_s, frame[14:])
        for time_s, frame in packets(path)
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_TCP
    ]


def _segment(time_s: float, packet: bytes) -> Segment:
    header = (packet[0] & 0xF) * 4
    segment = packet[header : struct.unpack_from("!H", packet, 2)[0]]
    data = (segment[12] >> 4) * 4
    source, destination = (socket.inet_ntoa(packet[i : i + 4]) for i in (12, 16))
    return Segment(time_s, source, destination, segment[20:data], segment[data:])


@dataclass
class Connection:
    """A connection between client and server with both subflows, `first` being the older."""

    lab: Lab
    first: str = WIFI
    congestion: str = "cubic"
    other: str = ""  # the other local address; the lab's by default
    address: str = SERVER
    listen: str = ""  # where the server listens; `address` by default

    def __enter__(self) -> Connection:
        for node in (self.lab.client, self.lab.server):
            configure.set_path_manager(node, "userspace")
        self.client_events = EventMonitor(self.lab.client)
        self.server_events = EventMonitor(self.lab.server)
        self.client_manager = PathManager(self.lab.client)
        self.server_manager = PathManager(self.lab.server)
        with self.lab.server:
            self.listener = sockets.listen(
                (self.listen or self.address, PORT), congestion=self.congestion
            )
        with self.lab.client:
            self.client = sockets.connect(
                (self.address, PORT), local=(self.first, 0), congestion=self.congestion
            )
        self.server, _peer = self.listener.accept()
        self.client.sendall(b"x")
        assert self.server.recv(1) == b"x"
        self.client_events.wait(EventKind.ESTABLISHED)
        self.join(self.other or {WIFI: LTE, LTE: WIFI}[self.first], 2)
        return self

    def join(self, local: str, number: int) -> None:
        """Have the client add a subflow from `local`, and wait until both sides have it."""
        token = sockets.info(self.client).token
        self.client_manager.create_subflow(token, local, (self.address, PORT), local_id=number)
        self.client_events.wait(
            EventKind.SUB_ESTABLISHED, lambda e: e.local is not None and e.local.ip == local
        )
        self.server_events.wait(
            EventKind.SUB_ESTABLISHED, lambda e: e.remote is not None and e.remote.ip == local
        )

    def __exit__(self, *_exception: object) -> None:
        for item in (self.client, self.server, self.listener, self.client_events):
            item.close()
        for other in (self.server_events, self.client_manager, self.server_manager):
            other.close()
