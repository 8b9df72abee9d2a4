"""Where the player's lines go: standard output, a file, or a port to the host.

A port whose other end does not read, because the guest is being moved for one, must not stop the
picture.  Lines then wait here, up to a number; lines have numbers, so that lost ones are missed.
"""

from __future__ import annotations

import os
from collections import deque

from testbed.errors import ParameterError

_MOST_LINES = 5000


class Outlet:
    """A text stream (for `Emitter`) that writes whole lines, without ever blocking."""

    def __init__(self, path: str) -> None:
        self.lost = 0
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CREAT
        try:
            self._fd = os.open(path, flags, 0o644)
        except OSError as error:
            raise ParameterError(
                f"--report {path}: {error.strerror}", remedy="name a file, or the port to the host"
            ) from error
        self._waiting: deque[bytes] = deque()

    def write(self, text: str) -> int:
        """Take a line."""
        self._waiting.append(text.encode())
        if len(self._waiting) > _MOST_LINES:
            del self._waiting[1]  # the first may be half written
            self.lost += 1
        return len(text)

    def flush(self) -> None:
        """Write as much as is taken without waiting."""
        while self._waiting:
            line = self._waiting[0]
            try:
                written = os.write(self._fd, line)
            except BlockingIOError:
                return
            if written < len(line):
                self._waiting[0] = line[written:]
                return
            self._waiting.popleft()

    def close(self) -> None:
        """Close it; what was not taken is lost."""
        os.close(self._fd)
