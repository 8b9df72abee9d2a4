"""Goodput: bytes the receiving application took, per 100 ms of the one clock.

Intervals end at multiples of 100 ms of CLOCK_MONOTONIC, in every process alike, so series of
different nodes add up sample by sample.  An interval in which nothing came is a sample too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from traffic.emit import Emitter, clock

TICK_S = 0.1


class Meter:
    """Counts bytes from any number of threads; emits while someone is `active`."""

    def __init__(self, emit: Emitter, metric: str = "goodput") -> None:
        self._emit = emit
        self._metric = metric
        self._lock = threading.Lock()
        self._users = 0
        self._bin = 0  # number of the interval that is being filled
        self._bytes = 0
        self._change = threading.Event()

    def add(self, count: int) -> None:
        """`count` bytes were received, now; while nobody is active, they wait for who will be."""
        with self._lock:
            if self._users:
                self._advance(clock())
            self._bytes += count

    def _advance(self, now: float) -> None:
        current = int(now / TICK_S)
        while self._bin < current:
            self._flush()

    def _flush(self) -> None:
        self._bin += 1
        rate = self._bytes * 8 / TICK_S
        self._emit.sample(self._metric, rate, "bit/s", time_s=self._bin * TICK_S)
        self._bytes = 0

    @contextmanager
    def active(self) -> Iterator[Meter]:
        """Emit samples meanwhile, whether or not something comes.

        The first and the last interval are counted in full though only partly measured.
        """
        self._enter()
        try:
            yield self
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            self._bin = int(clock() / TICK_S)
            self._change = threading.Event()
        threading.Thread(target=self._tick, args=(self._change,), daemon=True).start()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._change.set()
                self._advance(clock())
                self._flush()

    def _tick(self, ended: threading.Event) -> None:
        while not ended.wait(TICK_S - clock() % TICK_S):
            with self._lock:
                if not ended.is_set():
                    self._advance(clock())
