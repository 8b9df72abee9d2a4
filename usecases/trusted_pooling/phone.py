"""The phone as one program: its connection manager, and the applications of the workload.

    python -m usecases.trusted_pooling.phone PLAN      (PLAN: JSON, see `plan`)

Phases one after the other: browsing; a video with a chat beside it; a live connection that
uploads, downloads, and uploads again while the trusted path fails.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from testbed.errors import ExperimentError
from traffic.emit import clock
from traffic.program import Life, Parser, Results, run
from traffic.web.tls import client_context
from usecases.trusted_pooling import live
from usecases.trusted_pooling.apps import Chat, Surfer, Video, chat_session
from usecases.trusted_pooling.manager import Connection, Manager, PlainManager, TrustManager
from usecases.trusted_pooling.plan import (
    BROWSING,
    DOWNLOAD,
    LIVE_PORT,
    OUTAGE,
    OUTAGE_DUE,
    UPLOAD,
    VIDEO,
    Plan,
)
from usecases.trusted_pooling.policy import Purpose

SAMPLE_S = 0.1


class Beat(threading.Thread):
    """Does something at a steady beat until it is told to finish."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._stop_asked = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        """Sleep to the beat, sample, again."""
        due = last = clock()
        try:
            while not self._stop_asked.is_set():
                due += SAMPLE_S
                self._stop_asked.wait(max(0.0, due - clock()))
                now = clock()
                self.sample(now, now - last)
                last = now
        except Exception as error:  # raised again by `finish`, in the thread that can tell
            self._error = error

    def sample(self, now_s: float, elapsed_s: float) -> None:
        """One beat, `elapsed_s` after the last."""
        raise NotImplementedError

    def finish(self) -> None:
        """Stop; raises what went wrong."""
        self._stop_asked.set()
        self.join()
        if self._error is not None:
            raise self._error


class PathMeter(Beat):
    """Writes what the connections move over each interface, by their subflows' own counters.

    They count what is in order: they jump when a lost segment is filled in.
    """

    def __init__(self, manager: Manager, plan: Plan, life: Life) -> None:
        super().__init__("path meter")
        self._manager, self._life = manager, life
        self._names = {each.address: each.name for each in plan.interfaces}
        self._before: Counter[str] = Counter()

    def sample(self, now_s: float, elapsed_s: float) -> None:
        """Add up all connections."""
        moved: Counter[str] = Counter()
        for channel in list(self._manager.channels):
            channel.sample()
            moved.update(channel.meter.moved)
        for address, name in self._names.items():
            rate_bps = (moved[address] - self._before[address]) * 8 / elapsed_s
            self._life.emit.sample(f"subflows_{name}", rate_bps, "bit/s", time_s=now_s)
        self._before = moved


class VideoMeter(Beat):
    """Writes the goodput of the video."""

    def __init__(self, video: Video, life: Life) -> None:
        super().__init__("video meter")
        self._video, self._life = video, life
        self._before = 0

    def sample(self, now_s: float, elapsed_s: float) -> None:
        """Look at the count."""
        received = self._video.received
        rate_bps = (received - self._before) * 8 / elapsed_s
        self._life.emit.sample("video_goodput", rate_bps, "bit/s", time_s=now_s)
        self._before = received


class Phone:
    """One trial."""

    def __init__(self, plan: Plan, life: Life) -> None:
        self._plan, self._life, self._emit = plan, life, life.emit
        self._results: list[tuple[str, float, str]] = []
        self._tls = client_context(Path(plan.authority).read_bytes())
        self._manager: Manager
        if plan.managed:
            self._manager = TrustManager(plan.interfaces, plan.congestion)
        else:
            self._manager = PlainManager(plan.interfaces[0].address, plan.congestion)

    def live_through(self) -> Results:
        """All phases; what is the trial's as a whole is returned, the rest is told as it comes."""
        meter = PathMeter(self._manager, self._plan, self._life)
        self._emit.ready()
        meter.start()
        self._phase(BROWSING, self._browse)
        self._phase(VIDEO, self._watch)
        connection = self._call()
        self._phase(UPLOAD, lambda: self._upload(connection))
        self._phase(DOWNLOAD, lambda: self._download(connection))
        self._phase(OUTAGE, lambda: self._outage(connection))
        meter.finish()
        self._reader.close()
        connection.close()
        self._manager.close()
        notes = [channel.close() for channel in self._manager.channels]
        return {"notes": notes, "results": self._results}

    def _result(self, metric: str, value: float, unit: str) -> None:
        self._results.append((metric, value, unit))

    def _phase(self, name: str, work: Any) -> None:
        self._emit.event(f"{name}-begins")
        work()
        self._emit.event(f"{name}-ends")

    def _period(self, begins: bool, phase: str) -> None:
        self._emit.event("sensitive-begins" if begins else "sensitive-ends", phase=phase)

    def _exchanged(self, phase: str, took_s: float) -> None:
        self._emit.event("sensitive-exchange", phase=phase, took_s=took_s)

    def _browse(self) -> None:
        plan = self._plan
        surfer = Surfer(self._life, self._manager, plan.server, self._tls, self._exchanged)
        for site in plan.web.visited:
            load = surfer.visit(site)
            kind = "tls" if site.https else "clear"
            self._emit.sample(f"page_load_time_{kind}", load.seconds, "s")

    def _watch(self) -> None:
        plan, video = self._plan, Video(self._manager, self._plan.server)
        session = chat_session(self._life, self._manager, plan.server, self._tls, self._exchanged)
        chat, meter = Chat(session, plan.web.chat, plan.beat_s), VideoMeter(video, self._life)
        chat.start()
        meter.start()
        started = clock()
        video.watch(plan.video_s)
        # From the request to the last byte of all that was asked for: slow start is in it.
        mean_bps = video.received * 8 / (clock() - started)
        self._result("other_goodput", mean_bps, "bit/s")
        meter.finish()
        chat.finish()

    # -- the live connection ---------------------------------------------------------------------

    def _call(self) -> Connection:
        remote = (self._plan.server, LIVE_PORT)
        connection = self._manager.open(remote, Purpose.MIXED, "live", phase="")
        sock = connection.channel.sock
        self._reader = sock.makefile("rb")
        live.shorten_queue(sock)
        trusted = [each.address for each in self._plan.interfaces if each.trusted]
        live.send_json(connection.channel, "t", trusted)
        self._ask(connection)
        return connection

    def _ask(self, connection: Connection) -> dict[str, Any]:
        live.send_json(connection.channel, "q", None)
        return self._answer(connection, live.Receiver())

    def _answer(self, connection: Connection, receiver: live.Receiver) -> dict[str, Any]:
        """Take the server's frames until its answer; what it sent goes into `receiver`."""
        while frame := live.read_frame(self._reader):
            kind, body = frame
            if kind in "os":
                receiver.take(body)
            elif kind == "r":
                connection.peer_opened()
            elif kind == "p":
                self._period(json.loads(body), DOWNLOAD)
            elif kind == "a":
                return dict(json.loads(body))
        raise ExperimentError("the server closed the live connection")

    def _sender(self, connection: Connection) -> live.Sender:
        return live.Sender(
            connection.channel, connection.sensitive, seed=self._plan.seed, on_period=self._period
        )

    def _upload(self, connection: Connection) -> None:
        segments = self._segments()
        started = clock()
        digest = self._sender(connection).send(segments, UPLOAD)
        answer = self._ask(connection)
        self._told(UPLOAD, segments, clock() - started)
        _compare(digest, answer["digest"], UPLOAD)
        switching = connection.wait_open()
        self._switched(UPLOAD, switching.begins_s, switching.drains_s)

    def _download(self, connection: Connection) -> None:
        segments = self._segments()
        started, receiver = clock(), live.Receiver()
        live.send_json(connection.channel, "d", {"segments": segments, "phase": DOWNLOAD})
        answer = self._answer(connection, receiver)
        self._told(DOWNLOAD, segments, clock() - started)
        _compare(receiver.report()["digest"], answer["digest"], DOWNLOAD)
        self._switched(DOWNLOAD, answer["begins_s"], answer["drains_s"])

    def _outage(self, connection: Connection) -> None:
        plan = self._plan
        lengths = [plan.outage_rate_bps / 8 * each
                   for each in (plan.outage_before_s, plan.outage_after_s)]  # fmt: skip
        segments = [live.Segment(True, sum(map(int, lengths)), plan.outage_rate_bps)]
        timer = threading.Timer(plan.outage_before_s, self._emit.event, (OUTAGE_DUE,))
        timer.start()
        digest = self._sender(connection).send(segments, OUTAGE)
        answer = self._ask(connection)
        timer.join()
        _compare(digest, answer["digest"], OUTAGE)
        self._result("stall", answer["longest_gap_s"], "s")
        before = len(connection.switching.drains_s)
        self._switched(OUTAGE, [], connection.wait_open().drains_s[before:])

    def _segments(self) -> list[live.Segment]:
        plan = self._plan
        return live.alternating(plan.periods, other=plan.other, sensitive=plan.sensitive)

    def _told(self, phase: str, segments: list[live.Segment], elapsed_s: float) -> None:
        total = sum(each.length for each in segments)
        self._result(f"{phase}_goodput", total * 8 / elapsed_s, "bit/s")

    def _switched(self, phase: str, begins_s: list[float], drains_s: list[float]) -> None:
        for took_s in begins_s:
            self._emit.sample(f"{phase}_switch_to_sensitive", took_s, "s")
        for took_s in drains_s:
            self._emit.sample(f"{phase}_switch_back", took_s, "s")


def _compare(sent: str, received: str, phase: str) -> None:
    if sent != received:
        raise ExperimentError(f"{phase}: what arrived is not what was sent")


def main() -> None:
    """Entry point of the program."""
    parser = Parser(prog="usecases.trusted_pooling.phone", description=__doc__)
    parser.add_argument("plan", type=Plan.from_json, help="what to do (JSON)")
    run(parser, lambda options, life: Phone(options.plan, life).live_through())


if __name__ == "__main__":
    main()
