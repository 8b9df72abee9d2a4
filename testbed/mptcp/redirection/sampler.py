"""The segments of flows that are being redirected, and segments put between them.

One packet socket serves all redirections of a box.  Its filter (`filters.segments`) is made anew
when flows come and go; without any it lets nothing through.  What is injected leaves by the same
socket, which therefore does not hear it, with the Ethernet header of the last segment that was
forwarded: past routing, translation and the packet filter.

A forged segment must be newer than what the receiver has, so what matters is the last segment of
a flow, not each.  Frames are taken in at once and kept by flow; whoever has a turn gets those
that say anything new, and is never handed what has been overtaken.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace
from testbed.kernel.packet_reader import PacketReader
from testbed.kernel.socket_filter import attach, packet_socket
from testbed.mptcp.options import KIND, Dss
from testbed.mptcp.redirection import filters
from testbed.mptcp.redirection.messages import Direction
from testbed.mptcp.redirection.segment import ETHERNET_HEADER, Segment, distance, parse_frame
from testbed.mptcp.redirection.watcher import Connection, Flow

_BUFFER_BYTES = 4 << 20
_BATCHES = 32  # of frames, taken in at a time
_TURN_S = 0.005  # spent on what was taken in before more is
_SEQUENCE = struct.Struct("!I")

Take = Callable[[Direction, Segment], None]
"""Is given a segment as it leaves the box."""

Fail = Callable[[str], None]
"""Is told why no more segments will come."""


@dataclass
class _Way:
    """One direction of a flow: source and destination where it leaves the box."""

    of: _Sampled
    direction: Direction
    leaves: Flow
    ethernet: bytes = b""
    interface: int = 0
    furthest: int | None = None


_Item = tuple[int, _Way, bytes]
"""A frame: its number among all, its way, its first bytes."""


@dataclass
class _Sampled:
    """A flow, and what is to be told of it: of ordinary segments, each way's last and furthest."""

    take: Take
    fail: Fail
    ways: dict[Direction, _Way] = field(default_factory=dict)
    kept: dict[object, _Item] = field(default_factory=dict)

    def keep(self, item: _Item) -> None:
        """Take in a frame."""
        number, way, data = item
        tcp = _tcp_offset(data)
        if _is_special(data, tcp):
            self.kept[number] = item
            return
        self.kept[way.direction, "last"] = item
        (sequence,) = _SEQUENCE.unpack_from(data, tcp + 4)
        if way.furthest is None or distance(way.furthest, sequence) >= 0:
            way.furthest = sequence
            self.kept[way.direction, "furthest"] = item

    def tell(self) -> None:
        """Give what is kept, in order, once."""
        items = {item[0]: item for item in self.kept.values()}
        self.kept.clear()
        for number in sorted(items):
            _number, way, data = items[number]
            segment = parse_frame(data)
            if segment is not None:
                self.take(way.direction, segment)


class Sampler:
    """What passes a box of chosen flows.  Needs a running event loop."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._namespace = namespace
        self._socket: socket.socket | None = None
        self._reader: PacketReader | None = None
        self._flows: dict[Flow, _Sampled] = {}
        self._leaving: dict[bytes, _Way] = {}
        self._waiting: dict[int, _Sampled] = {}  # flows with kept frames, in turn
        self._count = 0
        self._change_due: asyncio.Handle | None = None
        self._turn_due: asyncio.Handle | None = None

    def close(self) -> None:
        """Close the socket."""
        for handle in (self._change_due, self._turn_due):
            if handle is not None:
                handle.cancel()
        self._change_due = self._turn_due = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = self._reader = None

    def add(self, connection: Connection, take: Take, fail: Fail) -> None:
        """Give the segments of a flow to `take`, from this turn of the event loop on."""
        inside, outside = connection.inside, connection.outside
        flow = self._flows[inside] = _Sampled(take, fail)
        flow.ways = {
            Direction.TO_SERVER: _Way(flow, Direction.TO_SERVER, outside),
            Direction.TO_CLIENT: _Way(
                flow, Direction.TO_CLIENT, Flow(inside.server, inside.client)
            ),
        }
        for way in flow.ways.values():
            self._leaving[_packed(way.leaves)] = way
        self._change()

    def remove(self, connection: Connection) -> None:
        """No longer."""
        flow = self._flows.pop(connection.inside, None)
        if flow is not None:
            self._waiting.pop(id(flow), None)
            for way in flow.ways.values():
                del self._leaving[_packed(way.leaves)]
            self._change()

    def refresh(self, connection: Connection) -> None:
        """Give now what has passed of a flow until now."""
        flow = self._flows.get(connection.inside)
        if flow is not None:
            self._collect()
            self._waiting.pop(id(flow), None)
            flow.tell()

    def inject(self, connection: Connection, direction: Direction, segment: Segment) -> None:
        """Send a segment on a sampled flow; `OSError` where it cannot be."""
        way = self._flows[connection.inside].ways[direction]
        if self._socket is None or not way.ethernet:
            raise KernelError(errno.ENOTCONN, f"nothing was forwarded {direction.value} yet")
        with self._namespace:
            name = socket.if_indextoname(way.interface)
        self._socket.sendto(way.ethernet + segment.build(), (name, 0))

    # -- the filter ------------------------------------------------------------------------------

    def _change(self) -> None:
        """Have the filter follow at the end of this turn, once for all that change in it."""
        if self._change_due is None:
            self._change_due = asyncio.get_running_loop().call_soon(self._follow)

    def _follow(self) -> None:
        self._change_due = None
        try:
            self._attach()
        except OSError as error:
            self._fail(str(error))

    def _attach(self) -> None:
        clients = [
            {way.leaves[end].port for way in self._leaving.values() if way.direction is direction}
            for end, direction in enumerate((Direction.TO_SERVER, Direction.TO_CLIENT))
        ]
        program = filters.segments(
            clients[0], clients[1]
        )  # a server's port is that of other connections too
        if self._socket is not None:
            attach(self._socket, program)
        elif self._leaving:
            self._socket = packet_socket(self._namespace, program, buffer_bytes=_BUFFER_BYTES)
            self._reader = PacketReader(self._socket, filters.HEADERS)
            asyncio.get_running_loop().add_reader(self._socket, self._turn)

    def _fail(self, reason: str) -> None:
        """Without the socket nothing is sampled: whoever wants to be is told."""
        self.close()
        failed = list(self._flows.values())
        for table in (self._flows, self._leaving, self._waiting):
            table.clear()
        for flow in failed:
            flow.fail(reason)

    # -- segments --------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Take in what waits, and tell as many flows of it as a turn allows."""
        self._turn_due = None
        self._collect()
        until_s = time.monotonic() + _TURN_S
        while self._waiting and time.monotonic() < until_s:
            self._waiting.pop(next(iter(self._waiting))).tell()
        if self._waiting and self._turn_due is None:
            self._turn_due = asyncio.get_running_loop().call_soon(self._turn)

    def _collect(self) -> None:
        """Take in what waits; the hot path while hundreds of flows are sampled."""
        leaving = self._leaving
        for _ in range(_BATCHES):
            if self._reader is None:
                return
            try:
                frames = self._reader.read()
            except OSError as error:
                self._fail(f"a packet socket: {error.strerror}")
                return
            for data, interface, _kind in frames:
                way = leaving.get(_ends(data))
                if way is None:
                    continue
                way.ethernet, way.interface = data[:ETHERNET_HEADER], interface
                self._count += 1
                way.of.keep((self._count, way, data))
                self._waiting[id(way.of)] = way.of
            if not frames:
                return


def _tcp_offset(frame: bytes) -> int:
    """Where the TCP header begins; the filter lets nothing else through."""
    return ETHERNET_HEADER + (4 * (frame[14] & 0xF) if frame[12] == 0x08 else 40)


def _ends(frame: bytes) -> bytes:
    """Source and destination, addresses before ports, as `_packed` has them."""
    tcp = _tcp_offset(frame)
    addresses = frame[26:34] if frame[12] == 0x08 else frame[22:54]
    return addresses + frame[tcp : tcp + 4]


def _packed(flow: Flow) -> bytes:
    addresses = b"".join(ipaddress.ip_address(end.ip).packed for end in flow)
    return addresses + struct.pack("!HH", *(end.port for end in flow))


def _is_special(frame: bytes, tcp: int) -> bool:
    """Is it more than data or an acknowledgement, as far as Linux lays out options?"""
    if frame[tcp + 13] & 0x07:  # FIN, SYN, RST
        return True
    if frame[tcp + 12] >> 4 <= 8:  # no options but timestamps
        return False
    is_dss = frame[tcp + 32] == KIND and frame[tcp + 34] >> 4 == Dss.subtype
    return not is_dss or bool(frame[tcp + 35] & 0x10)  # the end of all data
