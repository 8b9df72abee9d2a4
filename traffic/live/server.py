"""A live stream's server: ffmpeg makes it in real time, and HTTP clients come for it.

    python -m traffic.live.server [--port 8080] [--mptcp] [--ladder 160x90:80k,480x270:600k]

It is ready when the first segment can be fetched.  For each segment it tells "live edge" (s of
media time), when it was announced.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from testbed.errors import ExperimentError, FeatureError, ParameterError
from traffic import sockets
from traffic.live.ladder import Ladder, command_line
from traffic.live.stream import MASTER, Stream
from traffic.program import Life, Parser, Results, Task, amount, port, run, whole
from traffic.web.server import Server

PORT = 8080


def parser() -> argparse.ArgumentParser:
    """Arguments of the program."""
    top = Parser(prog="traffic.live.server", description="Serves a live stream (HLS).")
    top.add_argument("--port", type=port, default=PORT, help=f"default: {PORT}")
    top.add_argument(
        "--ladder", default=str(Ladder()), help="bitrates, WIDTHxHEIGHT:RATE (default: %(default)s)"
    )
    top.add_argument("--frame-rate", type=whole, default=12, help="pictures a second (default: 12)")
    top.add_argument("--segment", type=whole, default=1, help="seconds of a segment (default: 1)")
    top.add_argument(
        "--window", type=amount, default=60.0, help="seconds that can be fetched (default: 60)"
    )
    sockets.add_arguments(top)
    return top


def main(options: argparse.Namespace, life: Life) -> Results:
    """Serve until told to stop."""
    if options.window < 3 * options.segment:
        raise ParameterError("--window is too short", remedy="keep three segments at least")
    ladder = Ladder.parse(options.ladder, options.frame_rate, options.segment)
    stream = Stream(ladder, options.window)
    server = Server(life, stream.answer)
    listener = sockets.from_options(options).listen(options.port)
    with tempfile.TemporaryDirectory() as place, Encoder(ladder, Path(place)) as encoder:
        encoding = Task(_publish, encoder, stream, life, listener.getsockname()[1])
        server.serve(listener)
    encoding.join()
    return {
        "requests": server.requests,
        "bytes_sent": server.bytes_sent,
        "live_edge": stream.live_edge_s,
        "encoder_cpu": encoder.cpu_s,
    }


def _publish(encoder: Encoder, stream: Stream, life: Life, at_port: int) -> None:
    """Announce what the encoder makes; the program stops when it ends."""
    ready = False
    try:
        while segment := encoder.segment():
            if not stream.add(*segment):
                continue
            life.emit.sample("live edge", stream.live_edge_s, "s")
            if not ready:
                life.emit.ready(port=at_port, path=MASTER)
                ready = True
        if not life.stopping:
            raise ExperimentError(f"ffmpeg ended: {encoder.last_words()}")
    finally:
        life.stop()


class Encoder:
    """ffmpeg, making a stream's segments in a folder until the block ends."""

    def __init__(self, ladder: Ladder, place: Path) -> None:
        if shutil.which("ffmpeg") is None:
            raise FeatureError("no ffmpeg", remedy="apt-get install ffmpeg")
        self.cpu_s = 0.0
        """Seconds of processor it took; known when it has ended."""
        self._place = place
        self._errors = (place / "errors").open("w+")
        # it dies with the server, however that ends
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command_line(ladder)],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def segment(self) -> tuple[int, int, float, float, bytes] | None:
        """The next that is complete: bitrate, number, start, end, content; None at the end."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            return None
        name, start, end = line.split(",")
        rung, number = name.removesuffix(".ts").split("-")
        path = self._place / name
        data = path.read_bytes()
        path.unlink()
        return int(rung), int(number), float(start), float(end), data

    def last_words(self) -> str:
        """What it complained of last."""
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"status {self._process.wait()}"

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s = usage.ru_utime + usage.ru_stime  # the program has no other children


if __name__ == "__main__":
    run(parser(), main)
