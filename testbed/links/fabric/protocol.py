"""What the network's process and the worker say to each other: JSON lines on a socket pair.

One request, one answer.  A request is {"op": NAME, ...}; its answer {"ok": VALUE}, or
{"error": TEXT, "errno": NUMBER} where the kernel refused, after which the worker goes on.
Requests: status, attach, update, schedule, unschedule, flush, detach, report, losses.  End of
file ends the worker.
"""

from __future__ import annotations

import json
import socket
from typing import Any

Message = dict[str, Any]


class Channel:
    """One end of the socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._pending = b""

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send one message."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Message | None:
        """The next message, waited for; None when the other side is gone."""
        while b"\n" not in self._pending:
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._pending += data
        line, _newline, self._pending = self._pending.partition(b"\n")
        message: Message = json.loads(line)
        return message

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
