"""Bulk transfer over TCP or MPTCP: up, down or both, for a time or a number of bytes.

    python -m traffic.bulk server [--port 5001] [--mptcp]
    python -m traffic.bulk client HOST [--direction up|down|both] [--duration S | --bytes N]

The receiving application reports its goodput per 100 ms; both ends compare SHA-256 of what was
sent and what arrived.  Bursty sources (`traffic.bursts`) speak to the same server.
"""

from __future__ import annotations

import argparse
import socket

from testbed.errors import TestbedError
from traffic import sockets
from traffic.arrivals import Arrivals
from traffic.emit import clock
from traffic.meter import Meter
from traffic.pattern import MARKS, NONE
from traffic.program import (
    Life,
    Parser,
    PeerVanished,
    Results,
    Stopped,
    Tasks,
    amount,
    port,
    run,
    whole,
)
from traffic.sources import Source
from traffic.streams import Stream

PORT = 5001
_SILENCE_S = 120.0
_DIRECTIONS = ("up", "down", "both")


def parser(prog: str = "traffic.bulk") -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(prog=prog, description=__doc__.splitlines()[0] if __doc__ else "")
    roles = top.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server", help="serve until told to stop")
    server.add_argument("--once", action="store_true", help="serve one connection, then end")
    client = roles.add_parser("client", help="one transfer")
    client.add_argument("host", metavar="HOST", help="the server's address")
    length = client.add_mutually_exclusive_group()
    length.add_argument("--duration", type=amount, metavar="S", help="default: 10 s")
    length.add_argument("--bytes", type=whole, metavar="N", help="in each direction")
    add_client_arguments(client)
    client.add_argument(
        "--rate", type=amount, default=0.0, metavar="BPS", help="pace it (default: as it goes)"
    )
    for role, when in ((server, "with --once, "), (client, "")):
        role.add_argument(
            "--arrivals", action="store_true", help=f"{when}report when payload arrived"
        )
        add_common_arguments(role)
    return top


def add_client_arguments(client: argparse.ArgumentParser) -> None:
    """Options of any client of this server."""
    client.add_argument("--direction", choices=_DIRECTIONS, default="up", help="default: up")
    client.add_argument("--seed", type=int, default=1, help="of the payload (default: 1)")
    client.add_argument(
        "--mark", choices=MARKS, default=NONE, help="top bit of each payload byte (default: none)"
    )


def add_common_arguments(role: argparse.ArgumentParser) -> None:
    """Options of clients and servers."""
    role.add_argument("--port", type=port, default=PORT, help=f"default: {PORT}")
    role.add_argument(
        "--silence", type=amount, default=_SILENCE_S, metavar="S",
        help=f"a peer silent for so long has vanished (default: {_SILENCE_S:g} s)",
    )  # fmt: skip
    sockets.add_arguments(role)


def main(options: argparse.Namespace, life: Life) -> Results:
    """Be a client or a server, as the options say."""
    if options.role == "server":
        return serve(options, life)
    duration = 0.0 if options.bytes else options.duration or 10.0
    source = Source(
        bytes=options.bytes or 0,
        duration_s=duration,
        rate_bps=options.rate,
        off_s=0.0,  # one period follows the other
        seed=options.seed,
        mark=options.mark,
    )
    return transfer(options, life, source)


# -- client --------------------------------------------------------------------------------------


def transfer(options: argparse.Namespace, life: Life, source: Source) -> Results:
    """Connect, run `source` in the directions asked for, and return what came of it."""
    transport = sockets.from_options(options)
    sock = life.track(transport.connect(options.host, options.port))
    life.emit.ready(local=_text(sock.getsockname()), remote=_text(sock.getpeername()))
    arrivals = _arrivals(options)
    stream = Stream(life, sock, Meter(life.emit), options.silence, arrivals)
    up, down = options.direction in ("up", "both"), options.direction in ("down", "both")
    silent = Source(seed=source.seed)
    start = clock()
    try:
        outcome = stream.ask(source if up else silent, source if down else silent)
    except Stopped:
        return {"intact": False, "elapsed": clock() - start}
    return {
        **outcome.results(),
        "elapsed": clock() - start,
        "protocol": sockets.protocol(sock, transport),
        **({"arrivals": arrivals.bursts} if arrivals else {}),
    }


def _arrivals(options: argparse.Namespace) -> Arrivals | None:
    return Arrivals() if getattr(options, "arrivals", False) else None


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


# -- server --------------------------------------------------------------------------------------


def serve(options: argparse.Namespace, life: Life) -> Results:
    """Answer clients, each in a thread, until told to stop (or after one, with --once).

    A client that vanishes is an event and ends a server only with --once.
    """
    listener = sockets.from_options(options).listen(options.port)
    life.emit.ready(address=_text(listener.getsockname()), port=listener.getsockname()[1])
    arrivals = _arrivals(options) if options.once else None
    server = _Server(life, options.silence, arrivals)
    tasks = Tasks()
    try:
        while True:
            connection, _ = life.accept(listener)
            task = tasks.start(server.answer, connection)
            if options.once:
                server.check(task.join())
                return {**server.results, **({"arrivals": arrivals.bursts} if arrivals else {})}
    except Stopped:
        tasks.join()
        return server.results


class _Server:
    def __init__(self, life: Life, silence: float, arrivals: Arrivals | None) -> None:
        self._life, self._silence, self._arrivals = life, silence, arrivals
        self._meter = Meter(life.emit)
        self.results: Results = {"streams": 0, "failed": 0, "bytes_sent": 0, "bytes_received": 0}

    def answer(self, connection: socket.socket) -> TestbedError | None:
        """Serve one connection; what went wrong with it, if anything, is returned."""
        peer = "a client"
        try:
            peer = _text(connection.getpeername())
            outcome = Stream(
                self._life, connection, self._meter, self._silence, self._arrivals
            ).answer()
        except Stopped:
            return None
        except (TestbedError, OSError) as error:
            self._life.emit.event("failed", peer=peer, error=str(error))
            self.results["failed"] += 1
            return error if isinstance(error, TestbedError) else PeerVanished(str(error))
        finally:
            self._life.drop(connection)
        self._life.emit.event("served", peer=peer, **outcome.results())
        self.results["streams"] += 1
        self.results["bytes_sent"] += outcome.sent.total
        self.results["bytes_received"] += outcome.received.total
        return None

    @staticmethod
    def check(error: TestbedError | None) -> None:
        """Raise what a single client ended with."""
        if error is not None:
            raise error


if __name__ == "__main__":
    run(parser(), main)
