"""Traffic compressed before a rented network and expanded behind it: one end of a tunnel.

    python -m usecases.clickos_migration.tunnel DEVICE --local ADDRESS --remote ADDRESS

What is routed into the TUN device leaves compressed in UDP datagrams to the other end, and what
comes from there leaves the device as it was.  It carries packets, not streams: a proxy that ends
connections hop by hop would be an end to Multipath TCP (keys, sequence numbers, subflows), while
a packet comes out of here with every byte it had, and both hosts keep their connection.  Each
datagram is compressed for itself and sent once: under a tunnel that repeats what is lost, TCP
would wait for two retransmission timers; here a lost datagram is lost packets, as on any path.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import socket
import struct
import time
import zlib
from collections.abc import Sequence

from testbed.errors import FeatureError
from testbed.kernel import RtNetlink, rtnetlink
from testbed.kernel.namespaces import sysctl
from traffic.program import Life, Parser, Results, port, run

PORT = 5010
_LENGTH = struct.Struct("!H")
_PLAIN, _DEFLATED = b"\0", b"\1"
_PAYLOAD = 1400  # of a datagram, so that it is not fragmented
_LEVEL = 6
_BATCH = 32  # packets compressed together, at most
_PACKET = 1 << 16
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT = 10, 0
_BUFFER = 4 << 20


# -- packets and datagrams -----------------------------------------------------------------------


def pack(packets: Sequence[bytes]) -> list[bytes]:
    """Datagrams that carry the packets, in order, as few of at most 1400 bytes as were found.

    A packet that alone does not fit makes a longer one.
    """
    if not packets:
        return []
    body = b"".join(_LENGTH.pack(len(packet)) + packet for packet in packets)
    deflated = zlib.compress(body, _LEVEL, -zlib.MAX_WBITS)
    datagram = _DEFLATED + deflated if len(deflated) < len(body) else _PLAIN + body
    if len(datagram) <= _PAYLOAD or len(packets) == 1:
        return [datagram]
    # as many datagrams as this one is too long by, with about as many packets each
    step = max(1, len(packets) * _PAYLOAD // len(datagram))
    return [
        each
        for start in range(0, len(packets), step)
        for each in pack(packets[start : start + step])
    ]


def unpack(datagram: bytes) -> list[bytes]:
    """The packets a datagram carries; none if it is not one that `pack` made."""
    kind, body = datagram[:1], datagram[1:]
    try:
        if kind == _DEFLATED:
            body = zlib.decompress(body, -zlib.MAX_WBITS)
        elif kind != _PLAIN:
            return []
    except zlib.error:
        return []
    packets, place = [], 0
    while place + _LENGTH.size <= len(body):
        (length,) = _LENGTH.unpack_from(body, place)
        place += _LENGTH.size
        packets.append(body[place : place + length])
        place += length
    return packets if place == len(body) else []


# -- the program ---------------------------------------------------------------------------------


def open_tun(name: str) -> int:
    """A TUN device of the namespace this thread is in, up; its descriptor does not block.

    Raises `FeatureError` where /dev/net/tun cannot be used.
    """
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(device, _TUNSETIFF, request)
    except OSError as error:
        raise FeatureError(
            f"no TUN device {name}: {error.strerror}",
            remedy="run as root, on a kernel with CONFIG_TUN and /dev/net/tun",
        ) from error
    # no address of its own: the kernel would begin to solicit routers through the tunnel
    sysctl(f"net/ipv6/conf/{name}/addr_gen_mode", 1)
    netlink = RtNetlink()
    try:
        netlink.request(rtnetlink.set_link(netlink.index(name), up=True))
    finally:
        netlink.close()
    return device


class End:
    """One end of the tunnel, and its account of what went through."""

    def __init__(self, life: Life, tun: int, sock: socket.socket) -> None:
        self._life, self._tun, self._socket = life, tun, sock
        self.results: Results = dict.fromkeys(
            ("packets_in", "bytes_in", "datagrams_out", "bytes_out", "packets_out", "refused"), 0
        )

    def run(self) -> Results:
        """Carry packets both ways until told to stop."""
        poller = select.poll()
        for fd in (self._tun, self._socket.fileno()):
            poller.register(fd, select.POLLIN)
        began = time.process_time()
        while not self._life.stopping:
            for fd, _ in poller.poll(100):
                if fd == self._tun:
                    self._compress()
                else:
                    self._expand()
        self.results["cpu_s"] = round(time.process_time() - began, 6)
        return self.results

    def _compress(self) -> None:
        packets: list[bytes] = []
        while len(packets) < _BATCH:
            try:
                packets.append(os.read(self._tun, _PACKET))
            except BlockingIOError:
                break
        self.results["packets_in"] += len(packets)
        self.results["bytes_in"] += sum(map(len, packets))
        for datagram in pack(packets):
            self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.send(datagram)
        except (BlockingIOError, ConnectionRefusedError):
            self.results["refused"] += 1  # the other end is not there yet, or the path is full
            return
        self.results["datagrams_out"] += 1
        self.results["bytes_out"] += len(datagram)

    def _expand(self) -> None:
        for _ in range(_BATCH):
            try:
                packets = unpack(self._socket.recv(_PACKET))
            except (BlockingIOError, ConnectionRefusedError):
                return
            for packet in packets:
                os.write(self._tun, packet)
            self.results["packets_out"] += len(packets)


def parser() -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(
        prog="usecases.clickos_migration.tunnel",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    top.add_argument("device", metavar="DEVICE", help="name of the TUN device to make")
    top.add_argument("--local", required=True, metavar="ADDRESS", help="own address")
    top.add_argument("--remote", required=True, metavar="ADDRESS", help="the other end's")
    top.add_argument("--port", type=port, default=PORT, help=f"of both ends: {PORT}")
    return top


def main(options: argparse.Namespace, life: Life) -> Results:
    """Be one end."""
    tun = open_tun(options.device)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        sock.bind((options.local, options.port))
        sock.connect((options.remote, options.port))
        sock.setblocking(False)
        life.emit.ready(device=options.device)
        return End(life, tun, sock).run()


if __name__ == "__main__":
    run(parser(), main)
