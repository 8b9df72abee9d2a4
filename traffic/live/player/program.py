"""The player as a program: connection, session, decoder and view in one loop.

    python -m traffic.live.player http://10.0.0.2:8080/live.m3u8 [--mptcp] [--display]

It reports the protocol's events (`traffic.emit`), five times a second one called "player" with the
fields of `Player.report`.  One thread does all: what it cannot decode in time it leaves out and
counts, as a device that is too slow does.
"""

from __future__ import annotations

import argparse
import math
import select
import time
from typing import Any, cast
from urllib.parse import urlsplit

from traffic.emit import Emitter, clock
from traffic.live.player.connection import Connection
from traffic.live.player.h264 import Decoder
from traffic.live.player.outlet import Outlet
from traffic.live.player.screen import View
from traffic.live.player.session import Session, Settings
from traffic.program import Life, Parser, PeerVanished, Results, amount

EVENT = "player"
_REPORT_S = 0.2
_FOLLOW_S = 0.5
_AGAIN_S = 1.0  # between two attempts to connect
_UNSEEN_S = 0.5  # decoded pictures are drawn this often at least, however late they are


def parser() -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(prog="traffic.live.player", description="Plays a live stream over HTTP.")
    top.add_argument("url", type=_url, help="of the master playlist (http://ADDRESS:PORT/PATH)")
    kind = top.add_mutually_exclusive_group()
    kind.add_argument("--mptcp", action="store_true", help="over Multipath TCP")
    kind.add_argument("--tcp", dest="mptcp", action="store_false", help="over TCP (default)")
    seconds = (
        ("--behind", "behind", 6.0, "how far behind the live edge it begins"),
        ("--start", "start", 2.0, "buffered before it starts"),
        ("--resume", "resume", 1.0, "buffered before it goes on after a stall"),
        ("--timeout", "timeout", 10.0, "without a byte before a connection counts as broken"),
    )
    for flag, name, default, what in seconds:
        top.add_argument(
            flag, dest=name, type=amount, default=default, help=f"{what}, s (default: {default:g})"
        )
    top.add_argument("--position", type=float, help="media time to begin at, s (default: --behind)")
    top.add_argument("--reconnect", action="store_true", help="connect again when it is broken")
    top.add_argument("--display", action="store_true", help="draw on the guest's display")
    top.add_argument("--report", metavar="PATH", help="file or port for the reports")
    return top


def main(options: argparse.Namespace, life: Life) -> Results:
    """Play until told to stop, or to the stream's end."""
    outlet = Outlet(options.report) if options.report else None
    if outlet is not None:
        life.emit = Emitter(cast(Any, outlet))
    player = Player(options, life)
    try:
        life.emit.ready()
        player.play()
        return player.report(clock())
    finally:
        player.close()


class Player:
    """Everything of one viewer."""

    def __init__(self, options: argparse.Namespace, life: Life) -> None:
        self._options, self._life = options, life
        self._host, self._port, path = options.url
        self.session = Session(
            path,
            Settings(
                behind_s=options.behind,
                start_s=options.start,
                resume_s=options.resume,
                position_s=options.position,
            ),
        )
        self._decoder = Decoder()
        self._view = _view() if options.display else None
        self._connection: Connection | None = None
        self._connect_at = -math.inf
        self._broken = ""  # why, until a byte comes again
        self._counts = {"reports": 0, "connections": 0, "breaks": 0, "frames": 0, "shown": 0}
        self._bytes = 0  # over earlier connections
        self._decode_s = 0.0
        self._shown_at = -math.inf

    def play(self) -> None:
        """Until the stream ends, or the program is told to stop."""
        report_at = follow_at = -math.inf
        told = ""
        while not self._life.stopping:
            now = clock()
            state = self.session.state(now)
            if now >= report_at or state != told:
                self._tell(now)
                report_at, told = now + _REPORT_S, state
            if self._view is not None and now >= follow_at:
                self._view.follow()
                follow_at = now + _FOLLOW_S
            if state == "ended":
                return
            self._fetch(now)
            late = self._watch()
            self._wait(0.0 if late else min(report_at, self.session.next_frame_at(now)))

    # -- the network -----------------------------------------------------------------------------

    def _fetch(self, now: float) -> None:
        """Ask for what the session wants, over a connection that is made when there is none."""
        try:
            if self._connection is None:
                self._connect(now)
            connection = self._connection
            if connection is None:
                return
            if connection.ready and (path := self.session.wanted(now)):
                connection.ask(path, now)
            self._judge_silence(connection, now)
        except PeerVanished as error:
            self._lose(error.message)

    def _connect(self, now: float) -> None:
        first = self._counts["connections"] == 0
        if now < self._connect_at or not (first or self._options.reconnect):
            return
        self._connect_at = now + _AGAIN_S
        self._counts["connections"] += 1
        self._connection = Connection(self._host, self._port, now, mptcp=self._options.mptcp)

    def _judge_silence(self, connection: Connection, now: float) -> None:
        if connection.ready or now - connection.progress_s < self._options.timeout:
            return
        why = f"no byte for {self._options.timeout:g} s"
        if self._options.reconnect:
            raise PeerVanished(why)
        if not self._broken:  # said once; should it revive, all goes on
            self._say_broken(why)

    def _say_broken(self, why: str) -> None:
        self._counts["breaks"] += 1
        self._broken = why
        self._life.emit.event("connection broken", reason=why)

    def _lose(self, why: str) -> None:
        self._say_broken(why)
        self.session.lost()
        if self._connection is not None:
            self._bytes += self._connection.received
            self._connection.close()
            self._connection = None
        if self.session.segments == 0 and not self._options.reconnect:
            raise PeerVanished(why, remedy="start the server first and check the route to it")

    def _wait(self, until: float) -> None:
        """Until then, or until something comes."""
        connection = self._connection
        poller = select.poll()
        if connection is not None:
            events = select.POLLIN | (select.POLLOUT if connection.writing else 0)
            poller.register(connection.fileno(), events)
            if connection.ready:
                until = min(until, self.session.wake_s)
        ready = poller.poll(max(0.0, until - clock()) * 1000)
        if connection is None or not ready:
            return
        try:
            if ready[0][1] & select.POLLOUT:
                connection.write()
            if ready[0][1] & ~select.POLLOUT:
                self._read(connection)
        except PeerVanished as error:
            self._lose(error.message)

    def _read(self, connection: Connection) -> None:
        answer = connection.read(clock())
        self._broken = ""
        if answer is not None:
            self.session.arrived(clock(), answer.status, answer.body)

    # -- the picture -----------------------------------------------------------------------------

    def _watch(self) -> bool:
        """Decode the picture that is due, if one is; whether the next is due already."""
        unit = self.session.frames.take(self.session.played_s(clock()))
        if unit is None:
            return False
        began = time.process_time()
        picture = self._decoder.decode(unit.data)
        self._decode_s += time.process_time() - began
        now = clock()
        late = self.session.frames.behind(self.session.played_s(now))
        if picture is not None:
            self._counts["frames"] += 1
            if not late or now - self._shown_at > _UNSEEN_S:
                self._counts["shown"] += 1
                self._shown_at = now
                if self._view is not None:
                    self._view.show(picture)
        return late

    # -- reports ---------------------------------------------------------------------------------

    def report(self, now: float) -> dict[str, Any]:
        """The viewer's state: position, buffer and durations in s, rates in bit/s.

        `frames` were decoded, `shown` of them in time to be drawn, `skipped` not decoded.
        """
        session, connection = self.session, self._connection
        position, edge = session.position_s(now), session.live_edge_s(now)
        stalls, stalled_s = session.stalls(now)
        latency = None if edge is None or position is None else edge - position
        return {
            "state": session.state(now),
            "position_s": _rounded(position),
            "buffer_s": round(session.buffer_s(now), 3),
            "live_edge_s": _rounded(edge),
            "latency_s": _rounded(latency),
            "stalls": stalls,
            "stalled_s": round(stalled_s, 3),
            "missed_s": round(session.missed_s, 3),
            "bitrate": session.bitrate,
            "throughput": _rounded(session.throughput),
            "segments": session.segments,
            "bytes": self._bytes + (connection.received if connection else 0),
            "connection": connection.identity if connection else None,
            "protocol": connection.protocol if connection else "none",
            "broken": self._broken,
            "skipped": session.frames.skipped,
            "cpu_s": round(time.process_time(), 3),
            "decode_s": round(self._decode_s, 3),
            "display": self._view.mode if self._view else None,
            **self._counts,
        }

    def _tell(self, now: float) -> None:
        self._counts["reports"] += 1
        report = self.report(now)
        self._life.emit.event(EVENT, time_s=now, **report)
        if self._view is not None:
            self._view.tell(report)

    def close(self) -> None:
        """Give everything back."""
        if self._connection is not None:
            self._connection.close()
        self._decoder.close()


def _view() -> View:
    from traffic.live.player.display import Display  # only a guest has one

    return View(Display.open())


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _url(text: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or 80
        if parts.scheme == "http" and host and parts.path.strip("/"):
            return host, port, parts.path
    except ValueError:
        pass  # brackets, or a port, that are none
    raise argparse.ArgumentTypeError(f"{text!r} is not like http://10.0.0.2:8080/live.m3u8")
