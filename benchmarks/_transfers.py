"""Many Multipath TCP connections that carry bytes both ends can vouch for, and when they came.

Each connection's sender writes a random chunk every so often, as far as its socket takes it; the
receiver notes when bytes arrive.  Two threads serve all connections.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import threading
import time
from types import TracebackType

from testbed.kernel import NetworkNamespace
from testbed.mptcp import sockets
from testbed.mptcp.counters import Address
from testbed.mptcp.redirection.watcher import Flow

_CONNECT_S = 20.0


class Transfer:
    """One connection: its sockets, digests and times of arrival (CLOCK_MONOTONIC, s)."""

    def __init__(self, client: socket.socket, server: socket.socket, *, up: bool) -> None:
        self.client, self.server = client, server
        self.sender, self.receiver = (client, server) if up else (server, client)
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.arrivals: list[float] = []
        self.bytes = 0
        self.error = ""
        self.ended = False

    @property
    def flow(self) -> Flow:
        """The first subflow's ends."""
        ends = (self.client.getsockname(), self.client.getpeername())
        client, server = (Address(*end[:2]) for end in ends)
        return Flow(client, server)

    @property
    def whole(self) -> bool:
        """Did everything that was sent arrive, and the end with it?"""
        same = self.sent.digest() == self.received.digest()
        return self.ended and not self.error and same and self.bytes > 0

    def longest_gap_s(self, after_s: float, before_s: float) -> float:
        """The longest time without an arrival that reaches into this span."""
        spans = zip(self.arrivals, self.arrivals[1:], strict=False)
        return max((b - a for a, b in spans if b > after_s and a < before_s), default=0.0)

    def send(self, chunk: bytes) -> None:
        """Write as much of a chunk as the socket takes."""
        try:
            taken = self.sender.send(chunk)
        except BlockingIOError:
            return
        except OSError as error:
            self.error = f"send: {error}"
            return
        self.sent.update(chunk[:taken])

    def receive(self) -> None:
        """Read what has arrived."""
        try:
            data = self.receiver.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            data, self.error = b"", f"receive: {error}"
        self.ended = not data
        self.bytes += len(data)
        self.received.update(data)
        self.arrivals.append(time.monotonic())


class Transfers:
    """`count` connections from the client's namespace to a listener; leaving the block closes them.

    `up` says who sends: the client, or the server.  A chunk of `chunk` bytes is sent on each
    every `interval_s`.
    """

    def __init__(
        self,
        client: NetworkNamespace,
        server: NetworkNamespace,
        address: tuple[str, int],
        *,
        count: int = 1,
        up: bool = True,
        chunk: int = 2000,
        interval_s: float = 0.005,
        congestion: str = "cubic",
    ) -> None:
        self._chunk, self._interval_s = os.urandom(chunk), interval_s
        self._stop = threading.Event()
        self._congestion, self._patience_s = congestion, 0.0
        with server:
            self.listener = sockets.listen(address, backlog=1024, congestion=congestion)
        self.each = [Transfer(*ends, up=up) for ends in self._connect(client, address, count)]
        self._threads = [threading.Thread(target=run) for run in (self._send, self._receive)]

    def __enter__(self) -> Transfers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.finish(0.0)
        for transfer in self.each:
            transfer.client.close()
            transfer.server.close()
        self.listener.close()

    def _connect(
        self, namespace: NetworkNamespace, address: tuple[str, int], count: int
    ) -> list[tuple[socket.socket, socket.socket]]:
        """So many connections at once: the client's and the server's ends of each."""
        nears: dict[int, socket.socket] = {}  # by port: a box may translate addresses
        with namespace:
            for _ in range(count):
                near = sockets.make(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
                sockets.set_congestion_control(near, self._congestion)
                near.setblocking(False)
                near.connect_ex(address)
                nears[near.getsockname()[1]] = near
        self.listener.settimeout(_CONNECT_S)
        pairs = []
        for _ in range(count):
            far, peer = self.listener.accept()
            pairs.append((nears[peer[1]], far))
            far.settimeout(_CONNECT_S)
        for near, _far in pairs:
            near.settimeout(_CONNECT_S)
            near.sendall(b"?")
        for near, far in pairs:
            assert far.recv(1) == b"?"  # so the third acknowledgement has passed
            for sock in (near, far):
                sock.setblocking(False)
        return pairs

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            for number, transfer in enumerate(self.each):
                at = due + self._interval_s * number / len(self.each)
                if (wait := at - time.monotonic()) > 0:
                    self._stop.wait(wait)
                transfer.send(self._chunk)
            due = max(due + self._interval_s, time.monotonic() - self._interval_s)
        for transfer in self.each:
            if not transfer.error:
                transfer.sender.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        poll = select.epoll()
        of = {transfer.receiver.fileno(): transfer for transfer in self.each}
        for fd in of:
            poll.register(fd, select.EPOLLIN)
        until_s = float("inf")
        while of and time.monotonic() < until_s:
            for fd, _events in poll.poll(0.1):
                of[fd].receive()
                if of[fd].ended:
                    poll.unregister(fd)
                    del of[fd]
            if self._stop.is_set() and until_s == float("inf"):
                until_s = time.monotonic() + self._patience_s
        poll.close()

    def finish(self, patience_s: float = 20.0) -> None:
        """End all transfers, and wait until everything has arrived, for so long at most."""
        self._patience_s = patience_s
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
