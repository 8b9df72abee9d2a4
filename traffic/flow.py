"""What a receiver learns from numbered, stamped datagrams: loss, one-way delay, jitter; no I/O.

Datagrams of a constant-bit-rate flow (`traffic.cbr`) carry their number and when they were sent
by CLOCK_MONOTONIC, which all namespaces of a machine share: one-way delay needs no clock
synchronisation.  Jitter is RFC 3550's (6.4.1): the smoothed difference of successive transit
times.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from traffic.emit import Emitter
from traffic.meter import TICK_S

_FORMAT = struct.Struct("!4sIIQ")
_MAGIC = {b"LNc0": "data", b"LNh0": "hello", b"LNe0": "end"}
_CODES = {name: magic for magic, name in _MAGIC.items()}
HEADER = _FORMAT.size


class Datagram(NamedTuple):
    """The head of a datagram: kind, flow, number (of an "end": how many were sent), time (ns)."""

    kind: str
    flow: int
    number: int
    sent_ns: int = 0

    def build(self, size: int = HEADER) -> bytes:
        """The datagram, filled with zeros to `size` bytes of UDP payload."""
        head = _FORMAT.pack(_CODES[self.kind], self.flow, self.number, self.sent_ns)
        return head + bytes(size - HEADER)

    @classmethod
    def parse(cls, data: bytes) -> Datagram | None:
        """Read a datagram; None if it is not of such a flow."""
        if len(data) < HEADER:
            return None
        magic, flow, number, sent_ns = _FORMAT.unpack_from(data)
        return cls(_MAGIC[magic], flow, number, sent_ns) if magic in _MAGIC else None


class Flow:
    """A receiver's account of one flow, with samples per 100 ms of the one clock."""

    def __init__(self) -> None:
        self.received = self.duplicates = self.reordered = self.bytes = 0
        self.jitter_s = 0.0
        self.delay_min_s, self.delay_max_s, self._delay_sum = float("inf"), 0.0, 0.0
        self._missing: set[int] = set()  # numbers below the next that have not come
        self._next = 0  # the number expected next
        self._transit: float | None = None
        self._bin = -1
        self._bytes = 0
        self._delays: list[float] = []
        self._lost = 0

    def took(self, emit: Emitter, number: int, delay_s: float, arrived_s: float, size: int) -> None:
        """A datagram of `size` bytes of payload arrived."""
        self.advance(emit, arrived_s)
        if not self._is_new(number):
            self.duplicates += 1
            return
        self.received += 1
        self.bytes += size
        self._bytes += size
        self._delays.append(delay_s)
        self._delay_sum += delay_s
        self.delay_min_s = min(self.delay_min_s, delay_s)
        self.delay_max_s = max(self.delay_max_s, delay_s)
        if self._transit is not None:
            self.jitter_s += (abs(delay_s - self._transit) - self.jitter_s) / 16
        self._transit = delay_s

    def _is_new(self, number: int) -> bool:
        if number >= self._next:
            self._missing.update(range(self._next, number))
            self._lost += number - self._next
            self._next = number + 1
            return True
        if number not in self._missing:
            return False
        self._missing.discard(number)
        self.reordered += 1
        self._lost -= 1  # taken for lost when a later one came
        return True

    def advance(self, emit: Emitter, now: float) -> None:
        """Emit the samples of the intervals that ended before `now`."""
        current = int(now / TICK_S)
        if self._bin < 0:
            self._bin = current
        while self._bin < current:
            self._bin += 1
            self._emit(emit, self._bin * TICK_S)

    def _emit(self, emit: Emitter, end: float) -> None:
        emit.sample("goodput", self._bytes * 8 / TICK_S, "bit/s", time_s=end)
        emit.sample("lost", self._lost, "packets", time_s=end)
        if self._delays:
            delays = sorted(self._delays)
            emit.sample("delay", delays[len(delays) // 2], "s", time_s=end)
            emit.sample("delay_max", delays[-1], "s", time_s=end)
            emit.sample("jitter", self.jitter_s, "s", time_s=end)
        self._bytes, self._lost, self._delays = 0, 0, []

    def results(self, sent: int | None) -> dict[str, float | int | None]:
        """The flow as a whole; `sent` is what the sender says it sent, None if it did not say."""
        known = self._next if sent is None else sent
        lost = known - self.received
        return {
            "sent": sent,
            "received": self.received,
            "lost": lost,
            "loss": lost / known if known else 0.0,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "bytes_received": self.bytes,
            "delay_min": self.delay_min_s if self.received else None,
            "delay_mean": self._delay_sum / self.received if self.received else None,
            "delay_max": self.delay_max_s if self.received else None,
            "jitter": self.jitter_s if self.received else None,
        }
