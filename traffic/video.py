"""Streamed video: segments of constant duration, one after the other, and a player's buffer.

    python -m traffic.video server [--port 8090]
    python -m traffic.video client HOST [--bitrate 2.5M] [--length 60] [--segment 4]

As in HTTP Live Streaming (RFC 8216) at one bitrate: segments come over one persistent HTTP
connection, as fast as they can until `--buffer` seconds are ahead, then as they are played.
Reported: seconds buffered and goodput per 100 ms, stalls, and the delay before the first picture.
"""

from __future__ import annotations

import argparse
import threading

from traffic import sockets
from traffic.emit import clock
from traffic.meter import TICK_S
from traffic.playout import Playout
from traffic.program import Life, Parser, Results, Stopped, Task, amount, port, run
from traffic.web.browser import Browser
from traffic.web.server import Answers, Server
from traffic.web.site import Web

PORT = 8090


def parser() -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(prog="traffic.video", description=__doc__.splitlines()[0] if __doc__ else "")
    roles = top.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server", help="serve until told to stop")
    client = roles.add_parser("client", help="play one video")
    client.add_argument("host", metavar="HOST", help="the server's address")
    for name, default, what in (
        ("bitrate", 2.5e6, "of the video, bit/s"),
        ("length", 60.0, "of the video, s"),
        ("segment", 4.0, "length of a segment, s"),
        ("buffer", 30.0, "most that is fetched ahead, s"),
        ("start", 4.0, "buffered before it starts, s"),
        ("resume", 4.0, "buffered before it goes on after a stall, s"),
    ):
        client.add_argument(
            f"--{name}", type=amount, default=default, help=f"{what} (default: {default:g})"
        )
    for role in (server, client):
        role.add_argument("--port", type=port, default=PORT, help=f"default: {PORT}")
        sockets.add_arguments(role)
    return top


def main(options: argparse.Namespace, life: Life) -> Results:
    """Be the server or the player."""
    if options.role == "client":
        return Player(options, life).run()
    listener = sockets.from_options(options).listen(options.port)
    life.emit.ready(port=listener.getsockname()[1])
    server = Server(life, Answers(Web(sites=1)).answer)
    server.serve(listener)
    return {"requests": server.requests, "bytes_sent": server.bytes_sent}


class Player:
    """Fetches segments ahead of the playout, and tells how that goes."""

    def __init__(self, options: argparse.Namespace, life: Life) -> None:
        self._options, self._life = options, life
        transport = sockets.from_options(options)
        self._browser = Browser(
            life, lambda _need: transport.connect(options.host, options.port), per_pool=1
        )
        self._playout = Playout(options.start, options.resume)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._bytes = 0

    def run(self) -> Results:
        """Play the video to its end, or until told to stop."""
        self._life.emit.ready()
        start = clock()
        watching = Task(self._watch)
        try:
            with self._browser.meter.active():
                self._fetch()
                self._play_out()
        except Stopped:
            pass  # what was played is reported
        finally:
            self._over.set()
            watching.join()
            self._browser.close()
        return self._results(start)

    def _fetch(self) -> None:
        left = self._options.length
        number = 0
        while left > 1e-9:
            seconds = min(self._options.segment, left)
            self._wait_for_room(seconds)
            size = round(seconds * self._options.bitrate / 8)
            exchange, _ = self._browser.get("video.example", f"/blob/{size}?{number}")
            self._bytes += exchange.response_bytes
            left -= seconds
            number += 1
            with self._lock:
                self._playout.segment(exchange.end_s, seconds, last=left <= 1e-9)

    def _wait_for_room(self, seconds: float) -> None:
        ahead = max(self._options.buffer - seconds, seconds)
        with self._lock:
            self._playout.advance(clock())
            at = self._playout.room_at(clock(), ahead)
        self._life.sleep(at - clock())

    def _play_out(self) -> None:
        while True:
            with self._lock:
                self._playout.advance(clock())
                if self._playout.finished:
                    return
                at = self._playout.room_at(clock(), 0.0)
            self._life.sleep(at - clock())

    def _watch(self) -> None:
        """Tell the state of the buffer per interval, and stalls as they begin and end."""
        stalled = False
        while not self._over.wait(TICK_S - clock() % TICK_S):
            with self._lock:
                self._playout.advance(clock())
                buffered, now_stalled = self._playout.buffered, self._playout.stalled
            end = round(clock() / TICK_S) * TICK_S
            self._life.emit.sample("buffered", buffered, "s", time_s=end)
            if now_stalled != stalled:
                self._life.emit.event("stall" if now_stalled else "resume")
                stalled = now_stalled

    def _results(self, start: float) -> Results:
        playout, now = self._playout, clock()
        return {
            "finished": playout.finished,
            "startup_delay": None if playout.began is None else playout.began - start,
            "stalls": len(playout.stalls) + playout.stalled,
            "stalled": playout.stalled_s(now),
            "bytes_received": self._bytes,
            "elapsed": now - start,
        }


if __name__ == "__main__":
    run(parser(), main)
