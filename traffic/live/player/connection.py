"""One persistent HTTP connection to a server, over TCP or MPTCP, that never blocks its caller.

What goes over it is `traffic.web.http`'s; when to ask for what is the session's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from testbed.errors import FeatureError, ParameterError
from traffic.program import PeerVanished
from traffic.web.http import Message, Parser, request

_IPPROTO_MPTCP = 262
_SOL_MPTCP, _MPTCP_INFO = 284, 1
_BUFFER = 1 << 16


class Connection:
    """A connection to `host`; it is being set up when made, and requests wait for that.

    `progress_s` is when it last did something: it was opened, asked, or brought a byte.
    """

    def __init__(self, host: str, port: int, now: float, *, mptcp: bool) -> None:
        self.received = 0
        self.progress_s = now
        self.waiting = False
        """Has something been asked for that has not come?"""
        self._host = host
        self._where = f"{host}:{port}"
        self._parser = Parser()
        self._unsent = b""
        self._socket = _make(host, mptcp)
        self._mptcp = mptcp
        status = self._begin(port)
        if status not in (0, errno.EINPROGRESS):
            self.close()
            raise PeerVanished(f"cannot connect to {self._where}: {os.strerror(status)}")
        self._connecting = status != 0

    def _begin(self, port: int) -> int:
        """Begin to connect; the error's number, 0 where it is connected already."""
        try:
            return self._socket.connect_ex((self._host, port))
        except (socket.gaierror, UnicodeError) as error:  # unknown, or no name at all
            self.close()
            raise ParameterError(
                f"{self._host} has no address", remedy="name the server by its address"
            ) from error

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    @property
    def writing(self) -> bool:
        """Is there something to be done when the socket is writable?"""
        return self._connecting or bool(self._unsent)

    @property
    def ready(self) -> bool:
        """Can a request be made?"""
        return not self._connecting and not self.waiting

    @property
    def identity(self) -> str:
        """Own address and port at the time of connecting: the same as long as it survives."""
        address, port = self._socket.getsockname()[:2]
        return f"{address}:{port}"

    @property
    def protocol(self) -> str:
        """What the connection really is: "tcp", "mptcp", or "fallback" of MPTCP to TCP."""
        if not self._mptcp:
            return "tcp"
        try:
            self._socket.getsockopt(_SOL_MPTCP, _MPTCP_INFO, 4)
        except OSError:
            return "fallback"
        return "mptcp"

    def ask(self, path: str, now: float) -> None:
        """Request a path."""
        self.waiting = True
        self.progress_s = now
        self._unsent += request("GET", path, self._host).build()
        self.write()

    def write(self) -> None:
        """Go on when the socket is writable; raises `PeerVanished`."""
        if self._connecting:
            status = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                raise PeerVanished(f"cannot connect to {self._where}: {os.strerror(status)}")
            self._connecting = False
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :] if self._unsent else b""
        except BlockingIOError:
            return
        except OSError as error:
            raise PeerVanished(f"{self._where}: {error.strerror}") from error

    def read(self, now: float) -> Message | None:
        """Take what has come, and return the answer if it is complete; raises `PeerVanished`."""
        try:
            data = self._socket.recv(_BUFFER)
        except BlockingIOError:
            return None
        except OSError as error:
            raise PeerVanished(f"{self._where}: {error.strerror}") from error
        if not data:
            raise PeerVanished(f"{self._where} has closed the connection")
        self.received += len(data)
        self.progress_s = now
        self._parser.feed(data)
        if not self._parser.messages:
            return None
        self.waiting = False
        return self._parser.messages.popleft()

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _make(host: str, mptcp: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_STREAM, _IPPROTO_MPTCP if mptcp else 0)
    except OSError as error:
        raise FeatureError(
            f"no MPTCP socket: {error.strerror}", remedy="sysctl net.mptcp.enabled=1, or use --tcp"
        ) from error
    made.setblocking(False)
    return made
