"""The servers of the experiment as one program: web sites, clear and TLS, and the live service.

    python -m usecases.trusted_pooling.server WEB --certificate C.pem --key K.pem [--gated]

It ends with notes on what it wrote on every connection (see `channel`).  With --gated it keeps what
it writes on a live connection off the phone's untrusted addresses during sensitive segments: the
sender must enforce, so the server has a trust gate of its own, for addresses the phone names.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from testbed.errors import ExperimentError
from testbed.kernel import NetworkNamespace
from testbed.mptcp import sockets
from testbed.mptcp.confinement import Path, Trust
from testbed.mptcp.events import EventMonitor
from testbed.mptcp.gate import TrustGate
from testbed.mptcp.guard import MARK, PayloadGuard
from testbed.mptcp.path_manager import PathManager
from traffic.program import Life, Results, Stopped, Task, run
from traffic.program import Parser as Arguments
from traffic.sockets import no_delay
from traffic.web.http import Message, Parser
from traffic.web.server import Answers
from traffic.web.tls import server_context
from usecases.trusted_pooling import live
from usecases.trusted_pooling.channel import Channel
from usecases.trusted_pooling.plan import (
    BROWSING,
    HTTP_PORT,
    HTTPS_PORT,
    LIVE_PORT,
    VIDEO,
    WebPlan,
)

_SENDER = "server"
_BUFFER = 65_536


class Sites:
    """Answers requests; answers to who shows who she is are sensitive unless behind TLS."""

    def __init__(self, web: WebPlan) -> None:
        self._answers = Answers(web.web)
        self._chat = web.chat.host
        self._lock = threading.Lock()

    def serve(self, channel: Channel, *, secure: bool) -> None:
        """Answer on one connection until the client closes it."""
        parser = Parser()
        while data := channel.sock.recv(_BUFFER):
            parser.feed(data)
            while parser.messages:
                asked = parser.messages.popleft()
                personal = not secure and bool(asked.cookie or asked.method == "POST")
                phase = VIDEO if asked.header("Host") == self._chat else BROWSING
                channel.send(self._answer(asked), sensitive=phase if personal else "")

    def _answer(self, asked: Message) -> bytes:
        with self._lock:  # its cache of pages is shared by all connections
            return self._answers.answer(asked).build()


class Guards:
    """Payload guards by the phone's addresses they let sensitive bytes go to."""

    def __init__(self) -> None:
        self._namespace = NetworkNamespace.current()
        self._made: dict[frozenset[str], PayloadGuard] = {}
        self._lock = threading.Lock()

    def for_addresses(self, trusted: frozenset[str]) -> PayloadGuard:
        """The guard for `trusted` addresses, made on first use."""
        with self._lock:
            if trusted not in self._made:
                trust, mark = Trust(remote=trusted), MARK + len(self._made)
                self._made[trusted] = PayloadGuard(self._namespace, trust, mark=mark)
            return self._made[trusted]


class Live:
    """The live service on one connection."""

    def __init__(self, channel: Channel, guards: Guards | None) -> None:
        self._channel, self._guards = channel, guards
        self._opened: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._stack = ExitStack()
        self._gate: TrustGate | None = None
        self._begins_s: list[float] = []

    def serve(self) -> None:
        """Take and send segments until the phone closes the connection."""
        receiver = live.Receiver()
        with self._stack, self._channel.sock.makefile("rb") as reader:
            while frame := live.read_frame(reader):
                kind, body = frame
                if kind in "os":
                    receiver.take(body)
                elif kind == "t" and self._guards is not None:
                    self._enforce(frozenset(json.loads(body)), self._guards)
                elif kind == "d":
                    self._send(json.loads(body))
                elif kind == "q":
                    live.send_json(self._channel, "a", receiver.report())
                    receiver = live.Receiver()

    def _enforce(self, trusted: frozenset[str], guards: Guards) -> None:
        """Make a gate: what is sensitive goes to these addresses of the phone only."""
        manager = self._stack.enter_context(PathManager())
        gate = TrustGate(
            self._channel.watch, manager, guards.for_addresses(trusted), restore=self._opened.put
        )
        self._gate = self._stack.enter_context(gate)

    @contextmanager
    def _confine(self) -> Iterator[None]:
        if self._gate is None:
            yield
            return
        started = time.monotonic()
        with self._gate.sensitive():
            self._begins_s.append(time.monotonic() - started)
            yield

    def _send(self, order: dict[str, object]) -> None:
        segments = [live.Segment(*each) for each in order["segments"]]  # type: ignore[attr-defined]
        sender = live.Sender(
            self._channel, self._confine, seed=2, before_frame=self._invite,
            on_period=lambda begins, _phase: live.send_json(self._channel, "p", begins),
        )  # fmt: skip
        digest = sender.send(segments, str(order["phase"]))
        drains_s: list[float] = []
        if self._gate is not None:
            self._gate.wait_open()
            drains_s = list(self._gate.drain_times_s)
        self._invite()
        answer = {"digest": digest, "begins_s": self._begins_s, "drains_s": drains_s}
        live.send_json(self._channel, "a", answer)

    def _invite(self) -> None:
        """Let the phone make the subflows again that the gate had closed, if it is open now."""
        asked = False
        while not self._opened.empty():
            self._opened.get()
            asked = True
        if asked:
            live.send_json(self._channel, "r", None)


class Server:
    """Listeners and the threads of their connections."""

    def __init__(self, options: argparse.Namespace, life: Life) -> None:
        self._life, self._options = life, options
        self._sites = Sites(options.web)
        self._tls = server_context(options.certificate.read_bytes(), options.key.read_bytes())
        self._guards = Guards() if options.gated else None
        # Without a listener for its events the kernel refuses joins under the userspace manager.
        self._monitor = EventMonitor()

    def serve(self) -> Results:
        """Serve until told to stop; the notes on all connections."""
        congestion = self._options.congestion
        ports = (HTTP_PORT, HTTPS_PORT, LIVE_PORT)
        listeners = [sockets.listen(("0.0.0.0", port), congestion=congestion) for port in ports]
        threading.Thread(target=self._drop_events, daemon=True).start()
        self._life.emit.ready()
        tasks: list[Task[dict[str, Any]]] = []
        try:
            while True:
                sock, listener = self._life.accept(*listeners)
                port = listener.getsockname()[1]
                tasks.append(Task(self._connection, sock, port, f"{port}-{len(tasks)}"))
        except Stopped:
            return {"notes": [task.join() for task in tasks]}

    def _drop_events(self) -> None:
        for _event in self._monitor:
            pass

    def _connection(self, sock: socket.socket, port: int, name: str) -> dict[str, Any]:
        channel = Channel(sock, name=name, sender=_SENDER)
        try:
            self._talk(channel, port)
        except (OSError, ExperimentError) as error:
            # The phone is the one to complain: it knows what it wanted.
            if not self._life.stopping:
                self._life.emit.event("hung-up", connection=name, reason=str(error))
        return channel.close()

    def _talk(self, channel: Channel, port: int) -> None:
        if port == LIVE_PORT:
            sock = channel.sock
            live.shorten_queue(sock)
            Live(channel, self._guards).serve()
            return
        no_delay(channel.sock)
        if port == HTTPS_PORT:
            wrapped = self._tls.wrap_socket(
                channel.sock, server_side=True, do_handshake_on_connect=False
            )
            channel.sock = wrapped
            wrapped.do_handshake()
        self._sites.serve(channel, secure=port == HTTPS_PORT)


def main() -> None:
    """Entry point of the program."""
    parser = Arguments(prog="usecases.trusted_pooling.server", description=__doc__)
    parser.add_argument("web", type=WebPlan.from_json, help="the sites (JSON)")
    parser.add_argument(
        "--certificate", type=pathlib.Path, required=True, help="of the sites (PEM)"
    )
    parser.add_argument("--key", type=pathlib.Path, required=True, help="its key (PEM)")
    parser.add_argument("--congestion", default="reno", help="congestion control (reno)")
    parser.add_argument("--gated", action="store_true", help="enforce what phones ask for")
    run(parser, lambda options, life: Server(options, life).serve())


if __name__ == "__main__":
    main()
