"""A pipe in the world: the port it comes from, the socket it leaves by, how late frames left."""

from __future__ import annotations

import errno
import time
from math import inf
from typing import Any

from testbed.kernel.packet_ring import FrameSender
from testbed.links.engine import BACKLOG_SPELL_S
from testbed.links.fabric.pipe import Pipe
from testbed.links.histogram import Histogram
from testbed.links.offloads import carrier
from testbed.links.spec import LinkSpec

_GONE = {errno.ENETDOWN, errno.ENODEV, errno.ENXIO}
_NO_ROOM = {errno.ENOBUFS, errno.EAGAIN, errno.EMSGSIZE, errno.ENOMEM}
_FINE_LAG = 10_000  # microseconds below which a histogram's key is the number itself


class Lane:
    """One direction of a wire: frames from port `source` through a pipe to `target`."""

    def __init__(
        self, name: str, source: int, target: str, spec: LinkSpec, *, seed: str, sender: FrameSender
    ) -> None:
        self.name = name
        self.source = source
        self.pipe = Pipe(spec, seed=seed)
        self.scheduled_at = inf
        self.lag = Histogram()
        self._target = target
        self._sender = sender
        self._last_due = self._last_sent = self._spell_due = self._spell_sent = 0.0
        self._backlogged_s = self._backlogged_ideal_s = 0.0
        self._backlogged_bytes = self._spell_bytes = self._undelivered_bytes = 0
        self.down_drops = self.outside_drops = 0

    def deliver(self, now: float) -> None:
        """Send the frames that are due, and note when each one left against when it should."""
        send, clock, counts = self._sender.send, time.monotonic, self.lag.counts
        for due, span, frame in self.pipe.due(now):
            key = int((now - due) * 1e6)
            if key >= _FINE_LAG:
                key = Histogram.bucket(key)
            counts[key] = counts.get(key, 0) + 1
            if span >= 0:
                if span:
                    self._spell_bytes += span
                else:
                    self._end_spell(due, now)
                self._last_due, self._last_sent = due, now
            try:
                send(frame)
            except OSError as error:
                self._refused(error, len(frame))
            now = clock()

    def _end_spell(self, due: float, now: float) -> None:
        """The link had been idle: count the busy spell before, if it was long enough to judge."""
        ideal_s = self._last_due - self._spell_due
        if ideal_s >= BACKLOG_SPELL_S:
            self._backlogged_ideal_s += ideal_s
            self._backlogged_s += self._last_sent - self._spell_sent
            self._backlogged_bytes += self._spell_bytes
        self._spell_due, self._spell_sent, self._spell_bytes = due, now, 0

    def _refused(self, error: OSError, size: int) -> None:
        self._undelivered_bytes += size
        if error.errno in _GONE or (error.errno == errno.ENOBUFS and not carrier(self._target)):
            self.down_drops += 1
        elif error.errno in _NO_ROOM:
            self.outside_drops += 1
        else:
            raise error

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

    def close(self) -> None:
        """Close the socket; what is inside is gone."""
        self.scheduled_at = inf
        self._sender.close()
