"""The segments of flows that are being redirected, and segments put between them.

One packet socket serves all redirections of a box.  Its filter (`filters.segments`) is made anew
when flows come and go; without any it lets nothing through.  What is injected leaves by the same
socket, which therefore does not hear it, with the Ethernet header of the last segment that was
forwarded: past routing, translation and the packet filter.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace
from testbed.kernel.socket_filter import PACKET_OUTGOING, attach, packet_socket
from testbed.mptcp.redirection import filters
from testbed.mptcp.redirection.filters import Ports
from testbed.mptcp.redirection.messages import Direction
from testbed.mptcp.redirection.segment import ETHERNET_HEADER, Segment, parse_frame
from testbed.mptcp.redirection.watcher import Connection, Flow

_BUFFER_BYTES = 4 << 20
_AT_ONCE = 512  # frames before others have a turn

Take = Callable[[Direction, Segment, bool], None]
"""Is given a segment as it leaves the box, and whether it was forwarded."""

Fail = Callable[[str], None]
"""Is told why no more segments will come."""


@dataclass
class _Way:
    """One direction of a flow: source and destination where it enters the box and leaves it."""

    direction: Direction
    enters: Flow
    leaves: Flow
    take: Take
    fail: Fail
    blocked: bool = False
    ethernet: bytes = b""
    interface: str = ""


class Sampler:
    """What passes a box of chosen flows.  Needs a running event loop."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._namespace = namespace
        self._socket: socket.socket | None = None
        self._ways: dict[Flow, tuple[_Way, _Way]] = {}
        self._leaving: dict[Flow, _Way] = {}
        self._entering: dict[Flow, _Way] = {}
        self._due: asyncio.Handle | None = None

    def close(self) -> None:
        """Close the socket."""
        if self._due is not None:
            self._due.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def add(self, connection: Connection, take: Take, fail: Fail) -> None:
        """Give the segments of a flow to `take`, from this turn of the event loop on."""
        inside, outside = connection.inside, connection.outside
        ways = (
            _Way(Direction.TO_SERVER, inside, outside, take, fail),
            _Way(Direction.TO_CLIENT, _reversed(outside), _reversed(inside), take, fail),
        )
        self._ways[inside] = ways
        for way in ways:
            self._leaving[way.leaves] = self._entering[way.enters] = way
        self._change()

    def remove(self, connection: Connection) -> None:
        """No longer."""
        for way in self._ways.pop(connection.inside, ()):
            del self._leaving[way.leaves], self._entering[way.enters]
        self._change()

    def block(self, connection: Connection, *, blocked: bool) -> None:
        """Give also what enters and will not leave."""
        for way in self._ways.get(connection.inside, ()):
            way.blocked = blocked
        self._change()

    def inject(self, connection: Connection, direction: Direction, segment: Segment) -> None:
        """Send a segment on a sampled flow; `OSError` where it cannot be."""
        to_server, to_client = self._ways[connection.inside]
        way = to_server if direction is Direction.TO_SERVER else to_client
        if self._socket is None or not way.ethernet:
            raise KernelError(errno.ENOTCONN, f"nothing was forwarded {direction.value} yet")
        self._socket.sendto(way.ethernet + segment.build(), (way.interface, 0))

    # -- the filter ------------------------------------------------------------------------------

    def _change(self) -> None:
        """Have the filter follow at the end of this turn, once for all that change in it."""
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._follow)

    def _follow(self) -> None:
        self._due = None
        try:
            self._attach()
        except OSError as error:
            self._fail(str(error))

    def _attach(self) -> None:
        ways = self._leaving.values()
        program = filters.segments(
            _ports(way.leaves for way in ways), _ports(way.enters for way in ways if way.blocked)
        )
        if self._socket is not None:
            attach(self._socket, program)
        elif ways:
            self._socket = packet_socket(self._namespace, program, buffer_bytes=_BUFFER_BYTES)
            asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _fail(self, reason: str) -> None:
        """Without the socket nothing is sampled: whoever wants to be is told."""
        self.close()
        waiting = [ways[0].fail for ways in self._ways.values()]
        for table in (self._ways, self._leaving, self._entering):
            table.clear()
        for fail in waiting:
            fail(reason)

    # -- segments --------------------------------------------------------------------------------

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            if self._socket is None:
                return
            try:
                frame, (interface, _protocol, kind, *_rest) = self._socket.recvfrom(filters.HEADERS)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(f"a packet socket: {error.strerror}")
                return
            segment = parse_frame(frame)
            if segment is None:
                continue
            ends = Flow(segment.source, segment.destination)
            if kind == PACKET_OUTGOING:
                self._left(self._leaving.get(ends), segment, frame, interface)
            else:
                self._entered(self._entering.get(ends), segment)

    @staticmethod
    def _left(way: _Way | None, segment: Segment, frame: bytes, interface: str) -> None:
        if way is not None:
            way.ethernet, way.interface = frame[:ETHERNET_HEADER], interface
            way.take(way.direction, segment, True)

    @staticmethod
    def _entered(way: _Way | None, segment: Segment) -> None:
        if way is not None and way.blocked:
            source, destination = way.leaves
            as_left = replace(segment, source=source, destination=destination)
            way.take(way.direction, as_left, False)


def _reversed(flow: Flow) -> Flow:
    return Flow(flow.server, flow.client)


def _ports(flows: Iterable[Flow]) -> Ports:
    """Ports of clients, as sources and as destinations: `flows` are of both directions."""
    flows = list(flows)
    return Ports({flow.client.port for flow in flows}, {flow.server.port for flow in flows})
