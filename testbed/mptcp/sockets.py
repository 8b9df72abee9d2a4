"""MPTCP sockets: make them, connect and listen, and ask how their connections stand.

Sockets are made in the namespace the calling thread is in (`with node.netns:`).  Which subflows
a connection has is the path manager's affair (`path_manager`); what is confined to which path
is the gate's (`gate`).
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

from testbed.errors import FeatureError, KernelError, ParameterError
from testbed.kernel.namespaces import sysctl
from testbed.mptcp.counters import (
    Address,
    ConnectionInfo,
    Subflow,
    TcpState,
    connection_info,
    full_info,
)

__all__ = [
    "Address",
    "ConnectionInfo",
    "Subflow",
    "TcpState",
    "connect",
    "full_info",
    "info",
    "is_fallback",
    "listen",
    "make",
    "set_congestion_control",
    "subflows",
    "unacked",
]

IPPROTO_MPTCP = 262
_SIOCOUTQ = 0x5411
_NO_MPTCP = (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT, errno.EINVAL)


def make(family: int = socket.AF_INET) -> socket.socket:
    """A new MPTCP stream socket; `FeatureError` where the kernel or the namespace has none."""
    try:
        return socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError as error:
        if error.errno not in _NO_MPTCP:
            raise
        raise FeatureError(
            f"no MPTCP sockets here ({error.strerror})",
            remedy="set net.mptcp.enabled=1, or use a kernel with CONFIG_MPTCP (5.6 or later)",
        ) from error


def connect(
    remote: tuple[str, int],
    *,
    local: tuple[str, int] | None = None,
    congestion: str = "",
    timeout_s: float | None = None,
) -> socket.socket:
    """Connect to `remote`, its first subflow from `local` where given; a blocking socket.

    Raises `FeatureError` without MPTCP, `OSError` as `socket.connect` does.  The connection may
    have fallen back to TCP (`is_fallback`), which shows at the latest after the first data.
    """
    sock = make(_family(remote[0]))
    try:
        if congestion:
            set_congestion_control(sock, congestion)
        if local is not None:
            sock.bind(local)
        sock.settimeout(timeout_s)
        sock.connect(remote)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(address: tuple[str, int], *, backlog: int = 128, congestion: str = "") -> socket.socket:
    """A listening socket on `address`; port 0 lets the kernel choose.

    Keep it open while its connections live: joins arrive at the listener, and without one a
    connection is silently left with the paths it has.
    """
    sock = make(_family(address[0]))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if congestion:
            set_congestion_control(sock, congestion)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def info(sock: socket.socket) -> ConnectionInfo:
    """Counters of the connection (MPTCP_INFO); `KernelError` after a fallback to TCP."""
    return connection_info(sock)


def subflows(sock: socket.socket, *, closed: bool = False) -> tuple[Subflow, ...]:
    """Subflows of the connection; the kernel lists a closed first one too, shown if `closed`."""
    return tuple(
        flow
        for flow in full_info(sock)[1]
        if closed or (flow.state != TcpState.CLOSE and flow.remote.port)
    )


def is_fallback(sock: socket.socket) -> bool:
    """Is this plain TCP: accepted from, or connected to, something that does not speak MPTCP?"""
    try:
        connection_info(sock)
    except KernelError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOPROTOOPT):
            return True
        raise
    return False


def unacked(sock: socket.socket) -> int:
    """Bytes written and not acknowledged by the peer at the data level (SIOCOUTQ)."""
    answer = fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4))
    return int(struct.unpack("=i", answer)[0])


def set_congestion_control(sock: socket.socket, name: str) -> None:
    """Pin the algorithm on the socket and its subflows, those to come included.

    Raises `ParameterError` for one the kernel has not: an MPTCP socket without subflows would
    take any name without a word.
    """
    available = sysctl("net.ipv4.tcp_available_congestion_control").split()
    if name not in available:
        raise ParameterError(
            f"congestion control {name!r} is not in this kernel",
            remedy=f"use one of: {', '.join(available)}",
        )
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
