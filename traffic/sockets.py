"""The sockets of traffic programs: TCP or MPTCP, congestion control pinned, bound where asked.

A kernel's default congestion control differs between machines (and bbr is far from fair to the
others), so every program pins one: reno unless told otherwise.
"""

from __future__ import annotations

import argparse
import socket
from typing import NamedTuple

from traffic.program import PeerVanished


class Transport(NamedTuple):
    """How connections are made: protocol, congestion control and own address ("" for any)."""

    mptcp: bool = False
    congestion: str = "reno"
    bind: str = ""

    def make(self, address: str) -> socket.socket:
        """A socket for `address`'s family.

        Raises `FeatureError` without MPTCP and `ParameterError` for an unknown algorithm.
        """
        if self.mptcp:
            from testbed.mptcp import sockets  # only here: half of the start-up time

            sock = sockets.make(_family(address))
        else:
            sock = socket.socket(_family(address), socket.SOCK_STREAM)
        try:
            pin_congestion_control(sock, self.congestion)
        except BaseException:
            sock.close()
            raise
        return sock

    def listen(self, port: int, backlog: int = 128) -> socket.socket:
        """A listening socket at the own address (0.0.0.0 if none was given)."""
        address = self.bind or "0.0.0.0"
        sock = self.make(address)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.listen(backlog)
        except OSError as error:
            sock.close()
            raise OSError(f"cannot listen at {address}:{port}: {error.strerror}") from error
        return sock

    def connect(self, address: str, port: int, timeout_s: float = 30.0) -> socket.socket:
        """A connected, blocking socket; `PeerVanished` when nobody answers."""
        sock = self.make(address)
        try:
            if self.bind:
                sock.bind((self.bind, 0))
            sock.settimeout(timeout_s)
            sock.connect((address, port))
            sock.settimeout(None)
        except OSError as error:
            sock.close()
            reason = error.strerror or error
            raise PeerVanished(
                f"cannot connect to {address}:{port}: {reason}",
                remedy="start the server first and check the route to it",
            ) from error
        return sock


def pin_congestion_control(sock: socket.socket, name: str) -> None:
    """Have `sock`, and what is accepted from it, use algorithm `name`."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except OSError:
        from testbed.mptcp import sockets  # knows how to explain it

        sockets.set_congestion_control(sock, name)


def no_delay(sock: socket.socket) -> None:
    """Send small writes at once, as browsers and web servers do (TCP_NODELAY).

    With Nagle's algorithm the end of each TLS record waits for a delayed acknowledgement.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def protocol(sock: socket.socket, transport: Transport) -> str:
    """What the connection really is: "tcp", "mptcp" or "tcp (mptcp fell back)".

    A fallback shows at the latest after the first data in both directions.
    """
    if not transport.mptcp:
        return "tcp"
    from testbed.mptcp import sockets

    return "tcp (mptcp fell back)" if sockets.is_fallback(sock) else "mptcp"


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that describe a `Transport`."""
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--mptcp", action="store_true", help="Multipath TCP sockets")
    kind.add_argument("--tcp", dest="mptcp", action="store_false", help="TCP sockets (default)")
    parser.add_argument("--bind", default="", metavar="ADDRESS", help="own address")
    parser.add_argument("--congestion", default="reno", metavar="NAME", help="default: reno")


def from_options(options: argparse.Namespace) -> Transport:
    """The transport that parsed options describe."""
    return Transport(options.mptcp, options.congestion, options.bind)
