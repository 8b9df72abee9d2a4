"""How agents of two data centres talk: frames over one TCP stream.

A frame is a kind, a length and that many bytes.  Requests are answered one by one, in order:

    PREPARE  a function's name            READY, or REFUSED and why
    COPY     last or not; a `Change`      STORED with counts, or REFUSED and why
    KEEP     the target is on its own     READY
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from enum import IntEnum

from testbed.errors import ExperimentError

_HEADER = struct.Struct("!BI")
_MOST = 1 << 28  # bytes of a frame: anything above is no frame
_LOOK_S = 0.05  # how often one who waits looks whether he still should
_USER_TIMEOUT_MS = 5000
_CONGESTION = b"reno"


class Kind(IntEnum):
    """What a frame is."""

    PREPARE = 1
    COPY = 2
    KEEP = 3
    READY = 11
    STORED = 12
    REFUSED = 13


class ConnectionLost(ExperimentError):
    """The other agent is gone, or does not answer in time."""


class NotWanted(ExperimentError):
    """Whoever waited was told to stop waiting."""


class Stream:
    """Frames over a connected socket; `sent` and `received` count their bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""
        self.sent = self.received = 0
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _CONGESTION)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            connection.setsockopt(socket.IPPROTO_TCP, option, 2)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(
        self,
        kind: Kind,
        body: bytes = b"",
        *,
        deadline: float | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Send a frame before `deadline` (CLOCK_MONOTONIC)."""
        data = memoryview(_HEADER.pack(kind, len(body)) + body)
        while data:
            self._wait(deadline, stop, writing=True)
            try:
                size = self._socket.send(data)
            except OSError as error:
                raise ConnectionLost(f"the agents' connection: {error.strerror}") from error
            self.sent += size
            data = data[size:]

    def receive(
        self, *, deadline: float | None = None, stop: threading.Event | None = None
    ) -> tuple[Kind, bytes]:
        """The next frame, before `deadline`."""
        kind, length = _HEADER.unpack(self._exactly(_HEADER.size, deadline, stop))
        if kind not in Kind.__members__.values() or length > _MOST:
            raise ConnectionLost(f"the agents' connection carries no frames (kind {kind})")
        return Kind(kind), self._exactly(length, deadline, stop)

    def _exactly(self, size: int, deadline: float | None, stop: threading.Event | None) -> bytes:
        parts = [self._buffer]
        have = len(self._buffer)
        while have < size:
            self._wait(deadline, stop, writing=False)
            try:
                data = self._socket.recv(1 << 18)
            except OSError as error:
                raise ConnectionLost(f"the agents' connection: {error.strerror}") from error
            if not data:
                raise ConnectionLost("the other agent closed the connection")
            self.received += len(data)
            have += len(data)
            parts.append(data)
        whole = b"".join(parts)
        self._buffer = whole[size:]
        return whole[:size]

    def _wait(self, deadline: float | None, stop: threading.Event | None, *, writing: bool) -> None:
        while True:
            if stop is not None and stop.is_set():
                raise NotWanted("it was cancelled")
            left = _LOOK_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise ConnectionLost("the other agent does not answer in time")
            wait_s = min(left, _LOOK_S)
            ours = [self._socket]
            if any(select.select(*(([], ours) if writing else (ours, [])), [], wait_s)):
                return
