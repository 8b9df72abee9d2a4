"""Many live connections, TCP or MPTCP: which survive, and for how long each was interrupted.

    python -m traffic.many server [--port 5004] [--mptcp]
    python -m traffic.many client HOST [--connections 100] [--rate 200] [--duration S] [--mptcp]

The client opens 1 to 20,000 connections, keeps all of them live with small verified exchanges
(`traffic.exchange`) that take turns at a total rate, and, when the time is over or it reads
{"command": "finish"} on its standard input, calls the roll: a connection that answers is alive.
Its results have totals, and for each connection whether it is alive, the bytes verified, the
longest gap between echoes (turns included: connections / rate) and the slowest exchange (s).
"""

from __future__ import annotations

import argparse
import resource
import select
import socket
import struct
from collections.abc import Mapping
from typing import Any

from testbed.errors import MachineError
from traffic import sockets
from traffic.crowd import Crowd, Plan
from traffic.exchange import LEAST, MOST, Checker, Corrupt
from traffic.meter import TICK_S
from traffic.program import Life, Parser, Results, amount, port, run, whole

PORT = 5004
MOST_CONNECTIONS = 20_000
_FILES = 1 << 16
_OTHER_FILES = 64  # besides connections
_BACKLOG = 4096
_RECEIVE = 1 << 16


def parser() -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(prog="traffic.many", description=__doc__.splitlines()[0] if __doc__ else "")
    roles = top.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server", help="echo until told to stop")
    client = roles.add_parser("client", help="open connections and keep them live")
    client.add_argument("host", metavar="HOST", help="the server's address")
    add = client.add_argument
    add("--connections", type=_count, default=100, metavar="N", help="default: 100")
    add("--rate", type=amount, default=200.0, metavar="N", help="exchanges a second, in all: 200")
    add("--size", type=_size, default=128, metavar="B", help="of a message, each way: 128 bytes")
    add("--duration", type=amount, metavar="S", help="default: until told to finish")
    add("--opening", type=amount, default=1000.0, metavar="N", help="handshakes a second: 1000")
    add("--calling", type=amount, default=2500.0, metavar="N", help="of the roll, a second: 2500")
    add("--patience", type=amount, default=5.0, metavar="S",
        help="for handshakes, and for answers to the roll: 5 s")  # fmt: skip
    add("--window", type=whole, default=256, metavar="N",
        help="messages of a connection without an echo; no more are sent then: 256")  # fmt: skip
    add("--every", type=amount, default=TICK_S, metavar="S", help="between samples: 0.1 s")
    add("--text", action="store_true", help="payload of words, which can be compressed")
    add("--greeting", default="", metavar="TEXT", help="begins the first message's payload")
    for role in (server, client):
        role.add_argument("--port", type=port, default=PORT, help=f"default: {PORT}")
        sockets.add_arguments(role)
    return top


def _count(text: str) -> int:
    return _between(text, 1, MOST_CONNECTIONS, "connections")


def _size(text: str) -> int:
    return _between(text, LEAST, MOST, "bytes")


def _between(text: str, least: int, most: int, what: str) -> int:
    value = whole(text)
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{value}: give {least} to {most} {what}")
    return value


def main(options: argparse.Namespace, life: Life) -> Results:
    """Serve, or be the crowd."""
    transport = sockets.from_options(options)
    files = allow_files()
    if options.role == "server":
        return Server(life, transport.listen(options.port, _BACKLOG)).run()
    if files < options.connections + _OTHER_FILES:
        raise MachineError(
            f"{options.connections} connections need as many open files, {files} are allowed",
            remedy=f"ulimit -n {options.connections + _OTHER_FILES}, or fewer --connections",
        )
    crowd = Crowd(life, transport, (options.host, options.port), plan(options))

    def command(message: Mapping[str, Any]) -> None:
        if message.get("command") == "finish":
            crowd.finish()

    life.on_command = command
    return crowd.run()


def plan(options: argparse.Namespace) -> Plan:
    """What the parsed options ask for."""
    return Plan(
        connections=options.connections,
        rate=options.rate,
        size=options.size,
        opening_rate=options.opening,
        call_rate=options.calling,
        patience_s=options.patience,
        duration_s=options.duration,
        window=options.window,
        tick_s=options.every,
        text=options.text,
        greeting=options.greeting.encode(),
    )


def allow_files() -> int:
    """Raise this process's limit of open files as far as it may; what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, _FILES), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (OSError, ValueError):
            continue  # an ordinary user may not raise the hard limit
        return limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


# -- server --------------------------------------------------------------------------------------


class _Peer:
    """A connected client."""

    __slots__ = ("checker", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.checker, self.unsent = sock, Checker(), b""

    def hear(self) -> list[bytes] | None:
        """Messages that are whole now; None at the connection's end.  Raises `Corrupt`."""
        try:
            data = self.sock.recv(_RECEIVE)
        except BlockingIOError:
            return []
        except OSError:
            return None  # reset: the client counts it, if it was one to count
        return self.checker.heard(data) if data else None

    def echo(self, data: bytes) -> bool:
        """Send `data` and what waits; is all of it with the kernel?"""
        self.unsent += data
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return False
        except OSError:
            self.unsent = b""  # its end will be heard next
        return not self.unsent


class Server:
    """Echoes verified messages over all connections in one loop."""

    def __init__(self, life: Life, listener: socket.socket) -> None:
        self._life, self._listener = life, listener
        listener.setblocking(False)
        self._peers: dict[int, _Peer] = {}
        self._poller = select.epoll()
        self._poller.register(listener.fileno(), select.EPOLLIN)
        self.results: Results = {"connections": 0, "messages": 0, "bytes_verified": 0, "corrupt": 0}

    def run(self) -> Results:
        """Serve until told to stop."""
        address, number = self._listener.getsockname()[:2]
        self._life.emit.ready(address=f"{address}:{number}", port=number)
        while not self._life.stopping:
            for fd, _ in self._poller.poll(0.1):
                if fd == self._listener.fileno():
                    self._accept()
                else:
                    self._serve(self._peers[fd])
        self.results["open"] = len(self._peers)
        for peer in list(self._peers.values()):
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._drop(peer)
        return self.results

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            sock.setblocking(False)
            sockets.no_delay(sock)
            self._peers[sock.fileno()] = _Peer(sock)
            self._poller.register(sock.fileno(), select.EPOLLIN)
            self.results["connections"] += 1

    def _serve(self, peer: _Peer) -> None:
        try:
            messages = peer.hear()
        except Corrupt as error:
            self._life.emit.event("corrupt", error=str(error))
            self.results["corrupt"] += 1
            messages = None
        if messages is None:
            self._drop(peer)
            return
        self.results["messages"] += len(messages)
        self.results["bytes_verified"] += sum(map(len, messages))
        waits = not peer.echo(b"".join(messages)) if messages or peer.unsent else False
        self._poller.modify(peer.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if waits else 0))

    def _drop(self, peer: _Peer) -> None:
        del self._peers[peer.sock.fileno()]
        peer.sock.close()


if __name__ == "__main__":
    run(parser(), main)
