"""What a live stream's server has: the newest segments, and playlists of them; no I/O.

HTTP Live Streaming (RFC 8216): `/live.m3u8` names the bitrates, `/RUNG/index.m3u8` the segments
of one, `/RUNG/NUMBER.ts` is one.  A segment is announced when all bitrates have it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from testbed.errors import ExperimentError
from traffic.live.ladder import Ladder
from traffic.web.http import Message, response

MASTER = "/live.m3u8"
_PLAYLIST, _SEGMENT = "application/vnd.apple.mpegurl", "video/mp2t"
_KEPT = 5  # segments beyond the window, for those who read the playlist just before


@dataclass
class _Number:
    """A segment in all its bitrates."""

    start_s: float
    end_s: float
    data: dict[int, bytes] = field(default_factory=dict)


class Stream:
    """The last `window_s` seconds of a stream, which threads may fill and ask meanwhile."""

    def __init__(self, ladder: Ladder, window_s: float = 60.0) -> None:
        self._ladder = ladder
        self._window = max(3, round(window_s / ladder.segment_s))
        self._numbers: dict[int, _Number] = {}
        self._lock = threading.Lock()
        self._announced = -1

    def add(self, rung: int, number: int, start_s: float, end_s: float, data: bytes) -> bool:
        """A segment is complete; whether its number is announced now.

        Raises `ExperimentError` when one is missing before it.
        """
        with self._lock:
            item = self._numbers.setdefault(number, _Number(start_s, end_s))
            item.data[rung] = data
            if len(item.data) < len(self._ladder.rungs):
                return False
            if number != self._announced + 1:
                raise ExperimentError(f"segment {number} follows {self._announced}")
            self._announced = number
            self._numbers.pop(number - self._window - _KEPT, None)
            return True

    @property
    def live_edge_s(self) -> float:
        """Media time up to which the stream is announced."""
        with self._lock:
            return self._numbers[self._announced].end_s if self._announced >= 0 else 0.0

    def answer(self, asked: Message) -> Message:
        """The response to a request."""
        if asked.path == MASTER:
            return response(200, self._master().encode(), _PLAYLIST)
        rung, _slash, name = asked.path.lstrip("/").partition("/")
        number, _dot, kind = name.partition(".")
        if rung.isdecimal() and int(rung) < len(self._ladder.rungs):
            if name == "index.m3u8":
                return response(200, self._media().encode(), _PLAYLIST)
            if kind == "ts" and number.isdecimal():
                return self._segment(int(rung), int(number))
        return response(404, b"not here\n", "text/plain")

    def _master(self) -> str:
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-INDEPENDENT-SEGMENTS"]
        for number, rung in enumerate(self._ladder.rungs):
            rates = f"BANDWIDTH={rung.peak},AVERAGE-BANDWIDTH={self._ladder.average(rung)}"
            lines.append(f"#EXT-X-STREAM-INF:{rates},RESOLUTION={rung.width}x{rung.height}")
            lines.append(f"{number}/index.m3u8")
        return "\n".join([*lines, ""])

    def _media(self) -> str:
        with self._lock:
            first = max(0, self._announced + 1 - self._window)
            lines = ["#EXTM3U", "#EXT-X-VERSION:3"]
            lines.append(f"#EXT-X-TARGETDURATION:{self._ladder.segment_s}")
            lines.append(f"#EXT-X-MEDIA-SEQUENCE:{first}")
            for number in range(first, self._announced + 1):
                item = self._numbers[number]
                lines += [f"#EXTINF:{item.end_s - item.start_s:.6f},", f"{number}.ts"]
        return "\n".join([*lines, ""])

    def _segment(self, rung: int, number: int) -> Message:
        with self._lock:
            item = self._numbers.get(number) if number <= self._announced else None
        if item is None:
            return response(404, b"not there yet, or no more\n", "text/plain")
        return response(200, item.data[rung], _SEGMENT)
