"""Where packets wait for the link: drop-tail, and CoDel (RFC 8289).

A queue counts what waits, not the frame that is being serialised, as Linux's do.
"""

from __future__ import annotations

from collections import deque
from math import inf, sqrt

from testbed.links.spec import FULL_FRAME, LinkSpec

Waiting = tuple[float, bytes]
"""A packet that waits: when it arrived, and its bytes."""


class DropTail:
    """First in, first out; what does not fit is dropped on arrival.

    What waits is in `waiting`, which outlives a change of the queue's kind.
    """

    def __init__(self, waiting: deque[Waiting], *, max_bytes: float, max_packets: float) -> None:
        self.waiting = waiting
        self._max_bytes, self._max_packets = max_bytes, max_packets
        self.bytes = sum(len(frame) for _arrival, frame in waiting)
        self.drops = 0

    def push(self, now: float, frame: bytes) -> None:
        """Let a packet wait, or drop it."""
        size = self.bytes + len(frame)
        if size > self._max_bytes or len(self.waiting) >= self._max_packets:
            self.drops += 1
            return
        self.bytes = size
        self.waiting.append((now, frame))

    def pop(self, _now: float) -> bytes | None:
        """The packet to serialise at `now`; None when nothing waits."""
        if not self.waiting:
            return None
        frame = self.waiting.popleft()[1]
        self.bytes -= len(frame)
        return frame

    def clear(self) -> None:
        """Forget what waits; these are no drops of the queue's."""
        self.waiting.clear()
        self.bytes = 0

    def become(self, spec: LinkSpec) -> DropTail:
        """The queue of `spec` with everything that waits here, be it over the new limit."""
        queue = make(spec, self.waiting)
        queue.drops = self.drops
        if type(queue) is not type(self):
            return queue
        self._max_bytes, self._max_packets = queue._max_bytes, queue._max_packets
        return self  # CoDel keeps what it has learned about the queue


class CoDel(DropTail):
    """Drops at the head while packets have waited longer than 5 ms for 100 ms (RFC 8289, 5)."""

    TARGET_S = 0.005
    INTERVAL_S = 0.1

    def __init__(self, waiting: deque[Waiting], *, max_bytes: float, max_packets: float) -> None:
        super().__init__(waiting, max_bytes=max_bytes, max_packets=max_packets)
        self._first_above: float | None = None
        self._dropping = False
        self._drop_next = 0.0
        self._count = self._last_count = 0

    def pop(self, now: float) -> bytes | None:
        """The packet to serialise at `now`, after dropping those that CoDel takes before it."""
        frame, may_drop = self._head(now)
        if self._dropping:
            self._dropping = may_drop
            while self._dropping and now >= self._drop_next:
                self.drops += 1
                self._count += 1
                frame, self._dropping = self._head(now)
                if self._dropping:
                    self._drop_next += self.INTERVAL_S / sqrt(self._count)
        elif may_drop:
            self.drops += 1
            frame, _may_drop = self._head(now)
            self._begin(now)
        return frame

    def _begin(self, now: float) -> None:
        """Enter the dropping state, near the rate that held the queue last time."""
        self._dropping = True
        since = self._count - self._last_count
        recent = now - self._drop_next < 16 * self.INTERVAL_S
        self._count = self._last_count = since if recent and since > 1 else 1
        self._drop_next = now + self.INTERVAL_S / sqrt(self._count)

    def _head(self, now: float) -> tuple[bytes | None, bool]:
        """Take the head; may it be dropped? (RFC 8289, 5.7: dodequeue)."""
        if not self.waiting:
            self._first_above = None
            return None, False
        arrival, frame = self.waiting.popleft()
        self.bytes -= len(frame)
        if now - arrival < self.TARGET_S or self.bytes <= FULL_FRAME:
            self._first_above = None
            return frame, False
        if self._first_above is None:
            self._first_above = now + self.INTERVAL_S
        return frame, now >= self._first_above


def make(spec: LinkSpec, waiting: deque[Waiting] | None = None) -> DropTail:
    """The queue that `spec` asks for."""
    kind = CoDel if spec.codel else DropTail
    return kind(
        deque() if waiting is None else waiting,
        max_bytes=inf if spec.queue_bytes is None else spec.queue_bytes,
        max_packets=inf if spec.queue_packets is None else spec.queue_packets,
    )
