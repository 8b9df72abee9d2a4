"""Who talks through a box, with which keys: learnt from handshakes, at a constant cost.

A `Watcher` reads what a kernel filter (`filters.handshakes`) lets through: a handful of packets
for each connection, bulk data never.  It pairs what enters the box with what leaves it, so it
knows both sides of a flow that the box translates, and tells its listeners how joins fare and
which flows end.  What to do about them is for `driver`.

The keys of a Multipath TCP connection are in the clear in its handshake (RFC 8684 3.1); a join
names its connection by a token of the server's key (3.2).
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypeVar

from testbed.closing import Closing
from testbed.errors import ParameterError
from testbed.kernel import NetworkNamespace
from testbed.kernel.packet_reader import PacketReader
from testbed.kernel.socket_filter import PACKET_OUTGOING, packet_socket, statistics
from testbed.mptcp import keys as derive
from testbed.mptcp.counters import Address
from testbed.mptcp.options import MpCapable, MpJoinAck, MpJoinSyn
from testbed.mptcp.redirection import filters
from testbed.mptcp.redirection.messages import Join, Keys
from testbed.mptcp.redirection.segment import Flags, Segment, parse_frame

JOINED_MARK = 1 << 30
"""Bit of a packet's mark by which a next hop's rules show the first segment a server sends on an
accepted join (`nexthop`)."""

_BUFFER_BYTES = 16 << 20
_OPENING = 4096  # SYNs whose other side may still show
_OPENS = Flags.SYN | Flags.ACK
_ENDS = Flags.FIN | Flags.RST
_K = TypeVar("_K")
_V = TypeVar("_V")


class Flow(NamedTuple):
    """A TCP connection's ends, as they are on one side of a box: who opened it, and to whom."""

    client: Address
    server: Address


class Session(NamedTuple):
    """What all subflows of a Multipath TCP connection share.

    `port` is the one the client dialled first, where it joins unless told otherwise, and
    `address_ids` are those that boxes have announced addresses under.
    """

    keys: Keys
    port: int
    address_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A flow through a box.

    `inside` is how it looks on its client's side, `outside` on its server's, another one where
    the box translates addresses.  `multipath` says whether both ends offered Multipath TCP, as
    far as was seen, `joined` whether this is a further subflow.  `session` is None for plain TCP,
    as long as the handshake has not passed whole, and for a join whose connection is not known.
    """

    inside: Flow
    outside: Flow
    multipath: bool
    joined: bool = False
    session: Session | None = None


class Ending(Enum):
    """What ended a flow."""

    RESET = "RST"
    FINISHED = "FIN"


class Sighting(NamedTuple):
    """Something that happened to a flow: its join came further, or it ended."""

    what: Join | Ending
    connection: Connection


Listener = Callable[[Sighting], None]

Fail = Callable[[str], None]
"""Is told why nothing more will be seen."""


class Watcher(Closing):
    """The connections through one box, from the moment of watching on.

    `interface` names where clients are, for a box that should not take up what comes from its
    other sides; left out, connections are taken up from all.  At most `capacity` are remembered,
    the oldest are forgotten first.  `read` takes what waits; in an event loop, have it called
    when `fileno` is readable.  Raises `KernelError` where the kernel refuses the socket.
    """

    def __init__(
        self,
        namespace: NetworkNamespace,
        interface: str = "",
        *,
        capacity: int = 1 << 17,
        mark: int = JOINED_MARK,
    ) -> None:
        self.namespace = namespace
        self.packets = 0
        self._interface, self._capacity = _index(namespace, interface), capacity
        program = filters.handshakes(mark)
        self._socket = packet_socket(namespace, program, buffer_bytes=_BUFFER_BYTES)
        self._reader = PacketReader(self._socket, filters.HEADERS)
        self._connections: OrderedDict[Flow, Connection] = OrderedDict()
        self._opening: OrderedDict[int, Flow] = OrderedDict()
        self._sessions: OrderedDict[int, Session] = OrderedDict()
        self._listeners: dict[Flow | Keys, tuple[Listener, Fail]] = {}
        self._attended = 0
        self._lost = 0

    def close(self) -> None:
        """Close the socket; what is known stays known."""
        self._socket.close()

    def fileno(self) -> int:
        """Descriptor that is readable when handshakes wait; -1 when closed."""
        return self._socket.fileno()

    @property
    def connections(self) -> Mapping[Flow, Connection]:
        """What is known, by the flow on its client's side, oldest first."""
        self.read()
        return self._connections

    @property
    def lost(self) -> int:
        """Packets of handshakes that found the socket full since the start: read more often."""
        self._lost += statistics(self._socket)[1]
        return self._lost

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Have the running event loop read what comes, while in the block.

        When the socket fails, all listeners are told and the watcher is closed.  Raises
        `ParameterError` where it is closed already.
        """
        if self.fileno() < 0:
            raise ParameterError("a closed watcher sees nothing", remedy="watch anew")
        loop = asyncio.get_running_loop()
        if self._attended == 0:
            loop.add_reader(self._socket, self._attend)
        self._attended += 1
        try:
            yield
        finally:
            self._attended -= 1
            if self._attended == 0 and self.fileno() >= 0:
                loop.remove_reader(self._socket)

    def _attend(self) -> None:
        try:
            self.read()
        except OSError as error:
            asyncio.get_running_loop().remove_reader(self._socket)
            self.close()
            for _listener, fail in tuple(self._listeners.values()):
                fail(f"a watcher's packet socket: {error.strerror}")

    @contextmanager
    def told(self, key: Flow | Keys, listener: Listener, fail: Fail) -> Iterator[None]:
        """Have `listener` told of a flow, by its client's side, or of a connection's joins.

        Raises `ParameterError` where somebody listens already.
        """
        if key in self._listeners:
            raise ParameterError(
                f"{self._described(key)} is being redirected", remedy="wait until that has ended"
            )
        self._listeners[key] = listener, fail
        try:
            yield
        finally:
            del self._listeners[key]

    @staticmethod
    def _described(key: Flow | Keys) -> str:
        if isinstance(key, Flow):
            return f"the flow from {key.client} to {key.server}"
        return f"connection {derive.token(key.server):#x}"

    def expect(self, session: Session) -> None:
        """Know joins to this connection, whose own handshake may have gone another way."""
        token = derive.token(session.keys.server)
        _remember(self._sessions, token, session, self._capacity)

    def forget(self, flow: Flow) -> None:
        """Remember nothing of a flow (by its client's side), nor which joins belong to it."""
        known = self._connections.pop(flow, None)
        if known is not None and known.session is not None and not known.joined:
            self._sessions.pop(derive.token(known.session.keys.server), None)

    def read(self) -> None:
        """Take in what waits, and tell the listeners."""
        while self._socket.fileno() >= 0 and (frames := self._reader.read()):
            self.packets += len(frames)
            for data, interface, kind in frames:
                segment = parse_frame(data)
                if segment is not None:
                    self._take(segment, interface, outgoing=kind == PACKET_OUTGOING)

    # -- what a segment says ---------------------------------------------------------------------

    def _take(self, segment: Segment, interface: int, *, outgoing: bool) -> None:
        flow = Flow(segment.source, segment.destination)
        if outgoing:
            known = self._connections.get(Flow(flow.server, flow.client))
            if known is not None:
                self._from_server(known, segment)
            elif segment.flags & _OPENS == Flags.SYN:
                self._left(flow, segment.seq)
        elif not self._interface or interface == self._interface:
            if segment.flags & _OPENS == Flags.SYN:
                self._opened(flow, segment)
            else:
                self._from_client(flow, segment)

    def _opened(self, flow: Flow, segment: Segment) -> None:
        """A client's SYN enters the box."""
        join = segment.option(MpJoinSyn)
        capable = segment.option(MpCapable)
        connection = Connection(
            inside=flow,
            outside=flow,
            multipath=bool(join or capable),
            joined=join is not None,
            session=self._sessions.get(join.token) if join else None,
        )
        _remember(self._connections, flow, connection, self._capacity)
        _remember(self._opening, segment.seq, flow, _OPENING)
        if join is not None:
            self._tell(Join.SYN, connection)

    def _left(self, flow: Flow, sequence: int) -> None:
        """A SYN leaves the box: translation keeps its sequence number."""
        inside = self._opening.pop(sequence, None)
        if inside is not None and inside in self._connections:
            self._connections[inside] = replace(self._connections[inside], outside=flow)

    def _from_server(self, known: Connection, segment: Segment) -> None:
        """Something leaves the box for a client."""
        if segment.flags & _ENDS:
            self._ended(known, segment)
        elif segment.flags & Flags.SYN:
            if known.joined:
                self._tell(Join.SYN_ACK, known)
            elif segment.option(MpCapable) is None:
                self._connections[known.inside] = replace(known, multipath=False)
        elif known.joined:
            self._tell(Join.CONFIRMED, known)

    def _from_client(self, flow: Flow, segment: Segment) -> None:
        """Something that is no SYN enters the box."""
        known = self._connections.get(flow)
        if segment.flags & _ENDS:
            if known is not None:
                self._ended(known, segment)
            return
        keys = _keys(segment)
        if keys is not None:
            self._learn(flow, known, keys)
        elif known is not None and segment.option(MpJoinAck) is not None:
            self._tell(Join.ACK, known)

    def _learn(self, flow: Flow, known: Connection | None, keys: Keys) -> None:
        if known is None:  # its SYN passed before the watch began
            known = Connection(inside=flow, outside=flow, multipath=True)
        if known.session is None:
            session = Session(keys, flow.server.port)
            known = replace(known, session=session, multipath=True)
            _remember(self._connections, flow, known, self._capacity)
            self.expect(session)

    def _ended(self, known: Connection, segment: Segment) -> None:
        self.forget(known.inside)
        self._tell(Ending.RESET if segment.flags & Flags.RST else Ending.FINISHED, known)

    def _tell(self, what: Join | Ending, connection: Connection) -> None:
        keys: list[Flow | Keys] = [connection.inside]
        if connection.joined and connection.session is not None:
            keys.append(connection.session.keys)
        for key in keys:
            if key in self._listeners:
                listener, _fail = self._listeners[key]
                listener(Sighting(what, connection))


def _index(namespace: NetworkNamespace, interface: str) -> int:
    if not interface:
        return 0
    try:
        with namespace:
            return socket.if_nametoindex(interface)
    except OSError as error:
        raise ParameterError(
            f"a watched box has no interface {interface!r}", remedy="name one of its own"
        ) from error


def _keys(segment: Segment) -> Keys | None:
    capable = segment.option(MpCapable)
    if capable is None or capable.sender_key is None or capable.receiver_key is None:
        return None
    return Keys(capable.sender_key, capable.receiver_key)


def _remember(table: OrderedDict[_K, _V], key: _K, value: _V, capacity: int) -> None:
    table[key] = value
    if len(table) > capacity:
        table.popitem(last=False)
