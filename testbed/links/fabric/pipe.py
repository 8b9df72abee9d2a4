"""One direction of a link as a machine without input or output: frames and times in, frames out.

It lives in virtual time.  A frame's fate is computed from the moment the kernel saw it arrive
and from what went before it, not from the moment this process got round to it, so a late
wake-up shifts no queue, drops nothing and does not add up.  What is late is only the sending,
and that is measured (see `lane`).

    offer -> [queue] -> serialise -> loss -> flight (delay, jitter) or express (reorder) -> due
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from testbed.links.fabric import queues
from testbed.links.fabric.loss import Loss, stream
from testbed.links.fabric.queues import Waiting
from testbed.links.spec import LinkSpec

Departure = tuple[float, int, bytes]
"""A frame on its way: when it is due (s), its span, its bytes.

The span counts the bytes that the link carried without a pause since the frame before it left:
this frame's and those of frames lost in between; 0 where the link had been idle, -1 for a frame
that was reordered (it is counted with the next one that is not).
"""


class Pipe:
    """One direction; `seed` (any printable value) fixes losses, jitter and reordering.

    Times are seconds on one monotonic clock.  Counters hold at every moment:
    offered = delivered + lost + queue drops + flushed + inside, in packets.
    """

    def __init__(self, spec: LinkSpec, *, seed: object = 0) -> None:
        self.offered_packets = self.offered_bytes = 0
        self.delivered_packets = self.delivered_bytes = 0
        self.lost_packets = self.flushed = 0
        self.loss = Loss(stream(seed, "loss"), *spec.gilbert_elliott)
        self._jitter_random = stream(seed, "jitter").random
        self._reorder_random = stream(seed, "reorder").random
        self._queue = queues.make(spec)
        self._waiting = self._queue.waiting
        self._flight: deque[Departure] = deque()
        self._express: deque[Departure] = deque()
        self._free_at = -inf  # when the link can begin to serialise the next frame
        self._last_due = -inf
        self._scheduled: deque[tuple[float, LinkSpec]] = deque()
        self._skipped = 0  # bytes since the last frame put in flight; -1: the link has paused
        self._take(spec)

    def _take(self, spec: LinkSpec) -> None:
        self.spec = spec
        self._byte_s = 8 / spec.rate_bps if spec.rate_bps else 0.0
        self._delay, self._jitter = spec.delay_s, spec.jitter_s
        self.reorders = spec.reorder_ratio
        self.loss.set(*spec.gilbert_elliott)
        self._loses = self.loss.active

    # -- what happens to frames ------------------------------------------------------------------

    def offer(self, now: float, frame: bytes) -> None:
        """A frame arrives at `now`; times of successive calls do not decrease."""
        self.offer_all([(now, frame)])

    def offer_all(self, arrivals: Sequence[Waiting]) -> None:
        """Frames arrive, each at its time; no time is before one of an earlier call."""
        while self._scheduled and arrivals and self._scheduled[0][0] <= arrivals[-1][0]:
            at = self._scheduled[0][0]
            before = bisect_left(arrivals, (at,))
            self._take_in(arrivals[:before])
            self._keep_schedule(at)
            arrivals = arrivals[before:]
        self._take_in(arrivals)

    def _take_in(self, arrivals: Sequence[Waiting]) -> None:
        self.offered_packets += len(arrivals)
        size = 0
        waiting, serve, push = self._waiting, self._serve, self._queue.push
        for now, frame in arrivals:
            size += len(frame)
            if self._free_at > now:
                push(now, frame)
                continue
            if waiting:
                self._advance(now)
                if self._free_at > now:
                    push(now, frame)
                    continue
            serve(now, frame, False)
        self.offered_bytes += size

    def _advance(self, now: float) -> None:
        """Serialise what waits and whose turn comes by `now`."""
        pop, serve = self._queue.pop, self._serve
        while (free_at := self._free_at) <= now:
            frame = pop(free_at)
            if frame is None:
                return
            serve(free_at, frame, True)

    def _serve(self, start: float, frame: bytes, waited: bool) -> None:
        size = len(frame)
        end = self._free_at = start + size * self._byte_s
        span = size + self._skipped if waited and self._skipped >= 0 else 0
        if self._loses and self.loss.lost():
            self.lost_packets += 1
            self._skipped = span or -1
            return
        if self.reorders and self._reorder_random() < self.reorders:
            self._express.append((end, -1, frame))
            self._skipped = span or -1
            return
        due = end + self._delay
        if self._jitter:
            due += self._jitter * (2 * self._jitter_random() - 1)
        if due < self._last_due:
            due = self._last_due
        self._last_due = due
        self._skipped = 0
        self._flight.append((due, span, frame))

    def due(self, now: float, limit: int = sys.maxsize) -> list[Departure]:
        """Take at most `limit` frames that leave by `now`, in the order in which they leave."""
        if self._scheduled:
            self._keep_schedule(now)
        if self._waiting and self._free_at <= now:
            self._advance(now)
        departures: list[Departure] = []
        flight, express = self._flight, self._express
        size = 0
        while len(departures) < limit:
            lane = express if express and (not flight or express[0][0] < flight[0][0]) else flight
            if not lane or lane[0][0] > now:
                break
            departure = lane.popleft()
            size += len(departure[2])
            departures.append(departure)
        self.delivered_packets += len(departures)
        self.delivered_bytes += size
        return departures

    def next_event(self) -> float:
        """The earliest time at which `due` may have something to give or to do; inf for never."""
        event = self._flight[0][0] if self._flight else inf
        if self._express:
            event = min(event, self._express[0][0])
        if self._waiting and (self.reorders or not self._flight):
            event = min(event, self._free_at)
        if self._scheduled:
            event = min(event, self._scheduled[0][0])
        return event

    # -- change while live -----------------------------------------------------------------------

    def update(self, now: float, spec: LinkSpec) -> None:
        """Change the specification; nothing inside is lost or reordered.

        What is in flight keeps its arrival time; the rest of the frame that is being serialised
        takes the new rate; what waits meets the new specification when its turn comes, also
        where the queue's new limit would not have let it in.
        """
        self._keep_schedule(now)
        self._change(now, spec)

    def schedule(self, at: float, fields: Mapping[str, Any]) -> LinkSpec:
        """Change fields of the specification at exactly `at`, which no frame has passed yet.

        Returns what it will be then; raises `ParameterError` where that makes no sense.  Later
        calls are for later times.
        """
        planned = self._scheduled[-1][1] if self._scheduled else self.spec
        self._scheduled.append((at, planned.replace(**fields)))
        return self._scheduled[-1][1]

    def unschedule(self) -> None:
        """Forget the changes that have not come yet."""
        self._scheduled.clear()

    def _keep_schedule(self, now: float) -> None:
        while self._scheduled and self._scheduled[0][0] <= now:
            self._change(*self._scheduled.popleft())

    def _change(self, now: float, spec: LinkSpec) -> None:
        self._advance(now)
        old_byte_s = self._byte_s
        self._take(spec)
        if self._free_at > now and old_byte_s:
            self._retime(now, self._byte_s / old_byte_s)
        self._queue = self._queue.become(spec)
        self._advance(now)

    def _retime(self, now: float, stretch: float) -> None:
        """The frame on the wire takes `stretch` times what it still had to go."""
        shift = (self._free_at - now) * (stretch - 1)
        self._free_at += shift
        if self._skipped:  # it was lost, or left in front: nothing in flight to move
            return
        due, span, frame = self._flight.pop()
        earliest = self._flight[-1][0] if self._flight else now
        self._last_due = max(due + shift, earliest)
        self._flight.append((self._last_due, span, frame))

    def flush(self) -> None:
        """The link goes down: whatever is inside is gone, and the link is idle."""
        self.flushed += self.inside
        self._queue.clear()
        self._flight.clear()
        self._express.clear()
        self._free_at = self._last_due = -inf
        self._skipped = -1

    # -- what is known about it ------------------------------------------------------------------

    @property
    def queue_drops(self) -> int:
        """Packets dropped by the queue's limit or its management."""
        return self._queue.drops

    @property
    def queue(self) -> tuple[int, int, int]:
        """What waits in packets and in bytes, and how many packets the queue has dropped."""
        return len(self._queue.waiting), self._queue.bytes, self._queue.drops

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait."""
        return self._queue.bytes

    @property
    def inside(self) -> int:
        """Packets that wait or are on their way."""
        return len(self._waiting) + len(self._flight) + len(self._express)

    @property
    def least_latency_s(self) -> float:
        """No frame is due sooner than this after it arrives."""
        return 0.0 if self.reorders else self._delay - self._jitter
