"""A pipe in the world: the port it comes from, the one it leaves by, how late frames left."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from math import inf
from typing import Any

from testbed.links.engine import BACKLOG_SPELL_S
from testbed.links.fabric.pipe import Departure, Pipe
from testbed.links.histogram import Histogram
from testbed.links.offloads import carrier
from testbed.links.spec import LinkSpec

_GONE = {errno.ENETDOWN, errno.ENODEV, errno.ENXIO}
_NO_ROOM = {errno.ENOBUFS, errno.EAGAIN, errno.EMSGSIZE, errno.ENOMEM}
_FINE_LAG = 10_000  # microseconds below which a histogram's key is the number itself


class Lane:
    """One direction of a wire: frames from port `source` through a pipe to port `target`.

    `address` is the target's in the worker's `FrameBatch`.
    """

    def __init__(
        self, name: str, source: int, target: str, spec: LinkSpec, *, seed: str, address: int
    ) -> None:
        self.name = name
        self.source = source
        self.address = address
        self.pipe = Pipe(spec, seed=seed)
        self.scheduled_at = inf
        self.lag = Histogram()
        self._target = target
        self._last_due = self._last_sent = self._spell_due = self._spell_sent = 0.0
        self._backlogged_s = self._backlogged_ideal_s = 0.0
        self._backlogged_bytes = self._spell_bytes = self._undelivered_bytes = 0
        self.down_drops = self.outside_drops = 0

    def left(self, departures: Sequence[Departure], sent: float) -> None:
        """Note when frames left, which was by `sent` at the latest, against when they should."""
        counts = self.lag.counts
        for due, span, _frame in departures:
            key = int((sent - due) * 1e6)
            if key >= _FINE_LAG:
                key = Histogram.bucket(key)
            counts[key] += 1
            if span > 0:
                self._spell_bytes += span
            elif span == 0:
                self._end_spell(due, sent)
            else:
                continue
            self._last_due = due
            self._last_sent = sent

    def _end_spell(self, due: float, now: float) -> None:
        """The link had been idle: count the busy spell before, if it was long enough to judge."""
        ideal_s = self._last_due - self._spell_due
        if ideal_s >= BACKLOG_SPELL_S:
            self._backlogged_ideal_s += ideal_s
            self._backlogged_s += self._last_sent - self._spell_sent
            self._backlogged_bytes += self._spell_bytes
        self._spell_due, self._spell_sent, self._spell_bytes = due, now, 0

    def refused(self, number: int, size: int) -> None:
        """The kernel refused a frame of `size` bytes with this errno."""
        self._undelivered_bytes += size
        if number in _GONE or (number == errno.ENOBUFS and not carrier(self._target)):
            self.down_drops += 1
        elif number in _NO_ROOM:
            self.outside_drops += 1
        else:
            raise OSError(number, os.strerror(number), self._target)

    def facts(self) -> dict[str, Any]:
        """Counters so far, as plain values."""
        self._end_spell(self._last_due, self._last_sent)
        pipe = self.pipe
        return {
            "direction": self.name,
            "offered_packets": pipe.offered_packets,
            "offered_bytes": pipe.offered_bytes,
            "delivered_packets": pipe.delivered_packets - self.down_drops - self.outside_drops,
            "delivered_bytes": pipe.delivered_bytes - self._undelivered_bytes,
            "lost_packets": pipe.lost_packets,
            "queue_drops": pipe.queue_drops,
            "outside_drops": self.outside_drops,
            "down_drops": self.down_drops + pipe.flushed,
            "inside_packets": pipe.inside,
            "lag": self.lag.counts,
            "backlogged_s": self._backlogged_s,
            "backlogged_bytes": self._backlogged_bytes,
            "backlogged_ideal_s": self._backlogged_ideal_s,
        }
