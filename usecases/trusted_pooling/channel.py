"""A connection whose writes are noted: which bytes of its stream were sensitive, and where.

The notes are the ground truth `leaks` judges by, so they are taken where the bytes enter the
kernel: the data sequence number of the first byte is the connection's, before anything was
written (MPTCP_INFO), and the rest is counted.  Which paths the bytes use is decided elsewhere.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import Any

from testbed.errors import ExperimentError
from testbed.mptcp import sockets
from testbed.mptcp.counters import Address, Subflow


class Meter:
    """Bytes a connection moved, by local address, from counters of subflows that come and go."""

    def __init__(self) -> None:
        self._last: dict[tuple[Address, Address], int] = {}
        self.moved: Counter[str] = Counter()

    def read(self, subflows: tuple[Subflow, ...]) -> None:
        """Take the subflows' counters as they are now."""
        for flow in subflows:
            key, now = (flow.local, flow.remote), flow.bytes_acked + flow.bytes_received
            self.moved[flow.local.ip] += max(0, now - self._last.get(key, 0))
            self._last[key] = now


class Channel:
    """One end of an MPTCP connection: `sock` to talk on, `watch` to ask how it stands.

    `watch` is a second descriptor of the same connection, so that it can be asked also when
    whoever talks has wrapped `sock` into TLS or closed it; the connection ends with `close`.

    `sender` is who writes at this end ("phone", "server"), `name` what the connection is for.
    With `sensitive`, a phase of the workload, every byte written is; else `send` says it.
    Raises `ExperimentError` for a connection that fell back to TCP.
    """

    def __init__(self, sock: socket.socket, *, name: str, sender: str, sensitive: str = "") -> None:
        if sockets.is_fallback(sock):
            raise ExperimentError(
                f"connection {name!r} is plain TCP",
                remedy="see that MPTCP is on (net.mptcp.enabled) at both ends and on the path",
            )
        self.sock, self.watch = sock, sock.dup()
        self.name, self.sender = name, sender
        self.meter = Meter()
        self._first = sockets.info(sock).write_seq
        self._written = 0
        self._whole = sensitive
        self._sensitive: list[tuple[int, int, str]] = []
        self._lock = threading.Lock()
        self._note: dict[str, Any] | None = None

    def send(self, data: bytes, *, sensitive: str = "") -> None:
        """Write `data`; `sensitive` names the phase it belongs to if it is sensitive.

        It returns when the kernel has taken all of it.
        """
        if sensitive:
            # noted first: what is written in part when the connection breaks counts too
            self._sensitive.append((self._written, self._written + len(data), sensitive))
        self._written += len(data)
        self.sock.sendall(data)

    def sample(self) -> None:
        """Read the subflows' counters into `meter`, unless the connection is closed."""
        with self._lock:
            if self._note is None:
                self.meter.read(sockets.subflows(self.watch))

    def close(self) -> dict[str, Any]:
        """Close the connection; the note on what was written (`leaks.Note`), fit for JSON."""
        with self._lock:
            if self._note is None:
                self._note = self._make_note()
                self.sock.close()
                self.watch.close()
            return self._note

    def _make_note(self) -> dict[str, Any]:
        self.meter.read(sockets.subflows(self.watch))
        length = (sockets.info(self.watch).write_seq - self._first) % (1 << 64)
        whole = [(0, length, self._whole)] if self._whole else []
        return {
            "connection": self.name,
            "sender": self.sender,
            "first": self._first,
            "length": length,
            "sensitive": [*whole, *self._sensitive],
        }
