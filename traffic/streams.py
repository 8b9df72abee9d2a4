"""One bulk or bursty connection, from either end: send, receive, compare.

Both directions run at once, payload or not.  A `Stream` ends when each side knows how much the
other received and that its hash is that of what was sent.  Protocol: `traffic.deframer`.
"""

from __future__ import annotations

import hashlib
import socket
from contextlib import nullcontext
from typing import NamedTuple

from testbed.errors import ExperimentError
from traffic.arrivals import Arrivals
from traffic.deframer import HEADER, Count, Deframer, State, header, line
from traffic.emit import clock
from traffic.meter import Meter
from traffic.pattern import Frames
from traffic.program import Life, PeerVanished, Results, Stopped, Task
from traffic.sources import Source

_BUFFER = 1 << 18


class Outcome(NamedTuple):
    """What a finished stream carried, and what of it each end received."""

    sent: Count
    received: Count
    peer_received: Count

    def results(self) -> Results:
        """As a program's results (bytes, seconds, bit/s); both ends' goodput is in it."""
        return {
            "bytes_sent": self.sent.total,
            "bytes_received": self.received.total,
            "goodput_sent": self.peer_received.rate,
            "goodput_received": self.received.rate,
            "sha256_sent": self.sent.sha256,
            "sha256_received": self.received.sha256,
            "intact": True,
        }


class Stream:
    """A connected socket that carries streams; `wait_s` is how long it may stay silent.

    `arrivals`, where given, collects when payload arrived.
    """

    def __init__(
        self,
        life: Life,
        sock: socket.socket,
        meter: Meter,
        wait_s: float,
        arrivals: Arrivals | None = None,
    ) -> None:
        self.life, self.socket = life, sock
        self._meter, self._arrivals = meter, arrivals
        sock.settimeout(wait_s)
        self._buffer = memoryview(bytearray(_BUFFER))
        self._first = self._last = 0.0

    def ask(self, own: Source, peer: Source) -> Outcome:
        """The client's side: send `own`, have the server send `peer`."""
        self._send(line({"send": peer._asdict(), "receive": not own.silent}))
        return self._run(own, not peer.silent, Deframer(on_payload=self._took))

    def answer(self) -> Outcome:
        """The server's side: send what the request asks for."""
        deframer = Deframer(expect_request=True, on_payload=self._took)
        self._receive(deframer, State.REQUEST)
        request = deframer.request or {}
        source = Source.parse(request.get("send", {}))
        return self._run(source, bool(request.get("receive")), deframer)

    def _run(self, source: Source, receives: bool, deframer: Deframer) -> Outcome:
        sending = Task(self._send_source, source)
        with self._meter.active() if receives else nullcontext():
            self._receive(deframer, State.FRAME, State.PAYLOAD, State.TRAILER)
        sent = sending.join()
        received = deframer.count._replace(seconds=round(self._last - self._first, 6))
        self.life.finishing(self.socket)  # the peer may be done as soon as it has our report
        self._send(received.line())
        self._receive(deframer, State.REPORT)
        assert deframer.trailer
        assert deframer.report
        _check("received", received, deframer.trailer)
        _check("sent", deframer.report, sent)
        return Outcome(sent, received, deframer.report)

    def _send_source(self, source: Source) -> Count:
        digest, total = hashlib.sha256(), 0
        frames = Frames(source.seed, source.mark, HEADER)
        for size in () if source.silent else source.sizes(self.life):
            frame = frames.next(size, header(size))
            digest.update(frame[HEADER:])
            self._send(frame)
            total += size
        count = Count(total, digest.hexdigest())
        self._send(header(0) + count.line())
        return count

    def _send(self, data: bytes | memoryview) -> None:
        # Not sendall: its time limit is for the whole, ours is for the peer's silence.
        view = memoryview(data)
        try:
            while view:
                view = view[self.socket.send(view) :]
        except OSError as error:
            raise self._vanished(error) from error

    def _receive(self, deframer: Deframer, *states: State) -> None:
        while deframer.state in states:
            try:
                count = self.socket.recv_into(self._buffer)
            except OSError as error:
                raise self._vanished(error) from error
            if count == 0:
                raise self._vanished(None)
            deframer.feed(self._buffer[:count])

    def _took(self, count: int) -> None:
        self._last = clock()
        self._first = self._first or self._last
        self._meter.add(count)
        if self._arrivals is not None:
            self._arrivals.took(self._last, count)

    def _vanished(self, error: OSError | None) -> Exception:
        if self.life.stopping:
            return Stopped()
        why = "closed the connection" if error is None else str(error.strerror or error)
        if isinstance(error, TimeoutError):
            why = f"silent for {self.socket.gettimeout():g} s"
        return PeerVanished(f"the peer vanished before the transfer was complete: {why}")


def _check(what: str, one: Count, other: Count) -> None:
    if one[:2] != other[:2]:
        raise ExperimentError(
            f"data were corrupted on the way: {what} {other.total} bytes with SHA-256 "
            f"{other.sha256[:12]}..., arrived {one.total} with {one.sha256[:12]}..."
        )
