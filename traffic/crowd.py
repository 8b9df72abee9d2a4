"""The client side of `traffic.many`: thousands of live connections in one epoll loop.

Connections take turns: one exchange after the other is due at a steady total rate.  At the end a
roll is called: every connection has to answer once more, and which did is alive.  What an
exchange is, and how it is verified, is `traffic.exchange`'s business.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import statistics
import struct
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.errors import ExperimentError
from traffic.emit import Emitter, clock
from traffic.exchange import Asker
from traffic.program import Life, PeerVanished, Results
from traffic.sockets import Transport, no_delay

_CONNECTING = 256  # handshakes under way at once
_BURST = 64  # exchanges sent, at most, before what came in is looked at
_RECEIVE = 1 << 16
_TOTAL_RETRANS = struct.Struct("=100xI")  # tcpi_total_retrans of struct tcp_info (linux/tcp.h)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a crowd does: rates per second, times in seconds, sizes in bytes.

    A connection has at most `window` messages without an echo; what is due beyond is passed over.
    """

    connections: int
    rate: float
    size: int
    opening_rate: float
    call_rate: float
    patience_s: float
    duration_s: float | None
    window: int
    tick_s: float
    greeting: bytes = b""
    text: bool = False


class Connection:
    """One connection of the crowd and its account."""

    __slots__ = (
        "asker", "bytes", "exchanges", "gap", "last", "retransmissions", "slowest", "sock",
        "state", "unsent",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, asker: Asker) -> None:
        self.sock = sock
        self.asker = asker
        self.state = "opening"  # then "live", and at the end "answered" or why it was lost
        self.unsent = b""
        self.last: float | None = None  # when the last echo came
        self.bytes = self.exchanges = self.retransmissions = 0
        self.gap = self.slowest = 0.0

    @property
    def answers(self) -> bool:
        """Was it neither lost nor closed?"""
        return self.state in ("live", "answered")

    def ask(self, now: float, size: int) -> None:
        """Send the next message."""
        self.unsent += self.asker.ask(now, size)
        self.flush()

    def flush(self) -> None:
        """Give the kernel what it takes; the rest goes with the next echo, which makes room."""
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return

    def echoed(self, sent: float, size: int, now: float) -> None:
        """Count one verified exchange."""
        if self.last is not None:
            self.gap = max(self.gap, now - self.last)
        self.last = now
        self.slowest = max(self.slowest, now - sent)
        self.bytes += size
        self.exchanges += 1

    def close(self, state: str) -> None:
        """End it; one that does not answer is reset, so that nothing of it lingers."""
        self.state = state
        if state != "answered":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class _Ticks:
    """Samples at multiples of `tick_s` of the one clock: what was echoed, and who is live."""

    def __init__(self, emit: Emitter, tick_s: float) -> None:
        self._emit, self._tick_s = emit, tick_s
        self._bin = int(clock() / tick_s)
        self._count, self._bytes, self._slowest = 0, 0, 0.0

    def add(self, took: float, size: int) -> None:
        """One exchange of `size` bytes each way took so long."""
        self._count += 1
        self._bytes += size
        self._slowest = max(self._slowest, took)

    def advance(self, now: float, live: int) -> None:
        """Emit the samples of the intervals that ended before `now`."""
        while self._bin < int(now / self._tick_s):
            self._bin += 1
            self._flush(self._bin * self._tick_s, live)

    def _flush(self, at: float, live: int) -> None:
        self._emit.sample("exchanges", self._count / self._tick_s, "1/s", time_s=at)
        self._emit.sample("goodput", self._bytes * 8 / self._tick_s, "bit/s", time_s=at)
        self._emit.sample("connections", live, "", time_s=at)
        if self._count:
            self._emit.sample("round_trip_max", self._slowest, "s", time_s=at)
        self._count, self._bytes, self._slowest = 0, 0, 0.0


class Crowd:
    """Opens the connections of `plan`, keeps them live, calls the roll."""

    def __init__(self, life: Life, transport: Transport, server: tuple[str, int], plan: Plan):
        self._life, self._transport, self._server, self._plan = life, transport, server, plan
        self._all: list[Connection] = []
        self._by_fd: dict[int, Connection] = {}
        self._poller = select.epoll()
        self._ticks: _Ticks | None = None
        self._finishing = False
        self._calling = False
        self._skipped = 0
        self._live = 0
        self._last_echo: float | None = None
        self._silence, self._silence_at = 0.0, 0.0

    def finish(self) -> None:
        """Call the roll and end (from any thread)."""
        self._finishing = True

    def run(self) -> Results:
        """From the first handshake to the results."""
        began = clock()
        self._open()
        self._life.emit.ready(connections=self._live, seconds=round(clock() - began, 6))
        self._ticks = _Ticks(self._life.emit, self._plan.tick_s)
        self._exchange()
        called = self._call_roll()
        for each in self._all:
            if each.state == "live":
                each.close("silent" if called else "stopped")
        return self._results(called)

    # -- opening ---------------------------------------------------------------------------------

    def _open(self) -> None:
        due = _paced(clock(), self._plan.opening_rate)
        deadline = clock() + self._plan.patience_s
        at = next(due)
        while self._live < self._plan.connections and not self._life.stopping:
            now = clock()
            while self._may_open() and at <= now:
                self._start(len(self._all))
                at, deadline = next(due), now + self._plan.patience_s
            if now > deadline:
                raise PeerVanished(
                    f"only {self._live} of {self._plan.connections} connections came up",
                    remedy="start the server first, and open them more slowly (--opening)",
                )
            self._poll(min(at - now, 0.05) if self._may_open() else 0.05)

    def _may_open(self) -> bool:
        pending = len(self._all) - self._live
        return pending < _CONNECTING and len(self._all) < self._plan.connections

    def _start(self, number: int) -> None:
        sock = self._transport.make(self._server[0])
        sock.setblocking(False)
        no_delay(sock)
        if self._transport.bind:
            sock.bind((self._transport.bind, 0))
        status = sock.connect_ex(self._server)
        if status not in (0, errno.EINPROGRESS):
            raise self._refused(status)
        asker = Asker(number, self._plan.greeting, text=self._plan.text)
        connection = Connection(sock, asker)
        self._all.append(connection)
        self._by_fd[sock.fileno()] = connection
        self._poller.register(sock.fileno(), select.EPOLLOUT)

    def _opened(self, connection: Connection) -> None:
        status = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise self._refused(status)
        connection.state = "live"
        self._live += 1
        self._poller.modify(connection.sock.fileno(), select.EPOLLIN)

    def _refused(self, status: int) -> ExperimentError:
        address, port = self._server
        remedy = "start the server first and check the route to it"
        if status == errno.EADDRNOTAVAIL:
            remedy = "the own ports are used up: widen net.ipv4.ip_local_port_range"
        return PeerVanished(
            f"cannot open connection {len(self._all) + 1} to {address}:{port}: "
            f"{os.strerror(status)}",
            remedy=remedy,
        )

    # -- exchanging ------------------------------------------------------------------------------

    def _exchange(self) -> None:
        start = clock()
        end = start + (self._plan.duration_s or float("inf"))
        due = _paced(start, self._plan.rate)
        at, turns = next(due), deque(self._all)
        while not self._life.stopping and not self._finishing and self._live:
            now = clock()
            if now >= end:
                return
            for _ in range(_BURST):
                if at > now or not self._take_turn(turns, now):
                    break
                at = next(due)
            self._poll(min(at, end) - clock())

    def _take_turn(self, turns: deque[Connection], now: float) -> bool:
        """Have the next live connection ask; is there one?"""
        while turns:
            connection = turns.popleft()
            if connection.state == "live":
                turns.append(connection)
                self._ask(connection, now)
                return True
        return False

    def _ask(self, connection: Connection, now: float) -> None:
        if connection.state != "live":
            return
        if len(connection.asker.waiting) >= self._plan.window and not self._calling:
            self._skipped += 1
            return
        try:
            connection.ask(now, self._plan.size)
        except OSError as error:
            self._lost(connection, error)

    def _poll(self, timeout: float) -> None:
        for fd, events in self._poller.poll(max(0.0, min(timeout, 0.05))):
            connection = self._by_fd[fd]
            if connection.state == "opening":
                self._opened(connection)
            elif events:
                self._hear(connection)
        if self._ticks is not None:
            self._ticks.advance(clock(), self._live)

    def _hear(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(_RECEIVE)
            if not data:
                self._end(connection, "closed")
                return
            now = clock()
            for sent, size in connection.asker.heard(data):
                self._echoed(connection, sent, size, now)
            if connection.unsent:
                connection.flush()
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(connection, error)
            return
        if self._calling and not connection.asker.waiting:
            self._end(connection, "answered")

    def _echoed(self, connection: Connection, sent: float, size: int, now: float) -> None:
        connection.echoed(sent, size, now)
        if self._last_echo is not None and now - self._last_echo > self._silence:
            self._silence, self._silence_at = now - self._last_echo, self._last_echo
        self._last_echo = now
        if self._ticks is not None:
            self._ticks.add(now - sent, size)

    def _lost(self, connection: Connection, error: OSError) -> None:
        self._end(connection, "reset" if error.errno == errno.ECONNRESET else "failed")

    def _end(self, connection: Connection, state: str) -> None:
        if not self._transport.mptcp:
            info = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            connection.retransmissions = _TOTAL_RETRANS.unpack(info)[0]
        self._live -= 1
        del self._by_fd[connection.sock.fileno()]
        connection.close(state)

    # -- the end ---------------------------------------------------------------------------------

    def _call_roll(self) -> bool:
        """Have every live connection answer once more; was there time for it?"""
        self._calling = True
        due = _paced(clock(), self._plan.call_rate)
        for connection in [each for each in self._all if each.state == "live"]:
            at = next(due)
            while clock() < at and not self._life.stopping:
                self._poll(at - clock())
            self._ask(connection, clock())
        deadline = clock() + self._plan.patience_s
        while self._live and clock() < deadline and not self._life.stopping:
            self._poll(0.05)
        return not self._life.stopping

    def _results(self, called: bool) -> Results:
        alive = [each for each in self._all if each.answers]
        lost = Counter(each.state for each in self._all if not each.answers)
        gaps = [each.gap for each in self._all]
        return {
            "connections": len(self._all),
            "lost": len(self._all) - len(alive),
            "why_lost": dict(lost),
            "called": called,
            "exchanges": sum(each.exchanges for each in self._all),
            "bytes_verified": sum(each.bytes for each in self._all),
            "skipped": self._skipped,
            "retransmissions": (
                None if self._transport.mptcp else sum(each.retransmissions for each in self._all)
            ),
            "gap_max": max(gaps, default=0.0),
            "gap_median": statistics.median(gaps) if gaps else 0.0,
            "slowest": max((each.slowest for each in self._all), default=0.0),
            "silence_max": round(self._silence, 6),
            "silence_at": round(self._silence_at, 6),
            "each": {
                "alive": [int(each.answers) for each in self._all],
                "bytes": [each.bytes for each in self._all],
                "gap": [round(each.gap, 4) for each in self._all],
                "slowest": [round(each.slowest, 4) for each in self._all],
            },
        }


def _paced(start: float, rate: float) -> Iterator[float]:
    """When each of endlessly many things is due, `rate` a second from `start` on."""
    number = 0
    while True:
        yield start + number / rate
        number += 1
