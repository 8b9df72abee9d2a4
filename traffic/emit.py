"""What a traffic program says: JSON lines on standard output, read by `testbed.run.process`.

    {"kind": "ready", ...}                                        it listens, or is connected
    {"kind": "sample", "time": s, "metric": ..., "value": ..., "unit": ...}
    {"kind": "event", "time": s, "name": ..., ...}
    {"kind": "done", ...}                                         its results, as its last line

All times are CLOCK_MONOTONIC in seconds: every namespace of a machine shares that clock, so
times of different nodes compare without synchronisation.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

clock: Callable[[], float] = time.monotonic
"""The one clock of all traffic programs (CLOCK_MONOTONIC, seconds)."""


class Emitter:
    """Writes the protocol's lines, whole even when several threads write."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._lock = threading.Lock()

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n"
        with self._lock:
            self._stream.write(text)
            self._stream.flush()

    def sample(self, metric: str, value: float, unit: str, *, time_s: float | None = None) -> None:
        """A measured value; `time_s` defaults to now."""
        at = clock() if time_s is None else time_s
        self._write(
            {"kind": "sample", "time": round(at, 6), "metric": metric, "value": value, "unit": unit}
        )

    def event(self, name: str, /, *, time_s: float | None = None, **data: Any) -> None:
        """Something happened; `time_s` defaults to now."""
        at = clock() if time_s is None else time_s
        self._write({**data, "kind": "event", "time": round(at, 6), "name": name})

    def ready(self, **data: Any) -> None:
        """The program does from here on what it was started for."""
        self._write({**data, "kind": "ready", "time": round(clock(), 6)})

    def done(self, **results: Any) -> None:
        """The program's results; nothing follows."""
        self._write({**results, "kind": "done", "time": round(clock(), 6)})
