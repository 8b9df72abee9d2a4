"""Where the two directions of a subflow stand, from the segments that pass, and what follows.

Forged segments continue what was last forwarded: an acknowledgement whose numbers or timestamps
are behind is dropped unread (PAWS, RFC 7323 5), a reset must hit the next sequence number that
its receiver expects (RFC 5961 3.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from testbed.mptcp.options import Option
from testbed.mptcp.redirection.messages import Direction, Inject
from testbed.mptcp.redirection.segment import Flags, Segment, distance, later, pure_ack, reset

_KEPT_SAMPLES = 8


class _Way:
    """One direction: its last segment, the end of what was forwarded, what it acknowledged."""

    def __init__(self) -> None:
        self.last: Segment | None = None
        self.end = self.ack = 0
        self.acknowledges = False
        self.round_trip = _RoundTrip()

    def see(self, segment: Segment) -> None:
        if self.last is None:
            self.last, self.end = segment, segment.end
        else:
            self.end = later(self.end, segment.end)
            if not _stale(self.last, segment):
                self.last = segment
        if segment.flags & Flags.ACK:
            self.ack = later(self.ack, segment.ack) if self.acknowledges else segment.ack
            self.acknowledges = True


class Tracking:
    """What has been seen of one subflow at one place, times in seconds of any clock."""

    def __init__(self) -> None:
        self._to_client, self._to_server = _Way(), _Way()
        self.last_payload_s: float | None = None

    def _way(self, direction: Direction) -> _Way:
        return self._to_client if direction is Direction.TO_CLIENT else self._to_server

    def see(self, direction: Direction, segment: Segment, now_s: float) -> None:
        """Take in a segment that was forwarded."""
        if segment.flags & Flags.RST:
            return  # its numbers may be anything
        way = self._way(direction)
        way.see(segment)
        if segment.length:
            self.last_payload_s = now_s
        way.round_trip.left(segment, now_s)
        self._way(direction.opposite).round_trip.answered(segment, now_s)

    def ready(self, *directions: Direction) -> bool:
        """Has enough passed to forge segments in these directions?"""
        return all(self._way(each).acknowledges for each in directions)

    @property
    def drained(self) -> bool:
        """Has everything that was forwarded been acknowledged?"""
        client, server = self._to_client, self._to_server
        return self.ready(*Direction) and (
            distance(client.end, server.ack) >= 0 and distance(server.end, client.ack) >= 0
        )

    def round_trip_s(self, *directions: Direction) -> float | None:
        """From here to the ends in these directions and back; None while one is not known."""
        times = [self._way(each).round_trip.shortest_s for each in directions]
        known = [each for each in times if each is not None]
        return sum(known) if len(known) == len(times) else None

    def acknowledgement(
        self, direction: Direction, mptcp: Iterable[Option], *, stamped: bool = True
    ) -> Inject:
        """A pure ACK with these options, as fresh as what has passed."""
        way = self._way(direction)
        assert way.last is not None
        stamps = way.last.timestamps if stamped else None
        segment = pure_ack(way.last, seq=way.end, ack=way.ack, timestamps=stamps, mptcp=mptcp)
        return Inject(direction, segment)

    def expected(self, direction: Direction) -> list[int]:
        """The sequence numbers that the receiver in this direction may expect next.

        The end of what was forwarded, if all of it arrived, and what the receiver acknowledged
        last, if none of the rest did.
        """
        way, back = self._way(direction), self._way(direction.opposite)
        if not way.acknowledges:
            return []
        return list(dict.fromkeys([way.end, back.ack] if back.acknowledges else [way.end]))

    def reset(self, direction: Direction, seq: int) -> Inject:
        """An RST with this sequence number."""
        way, back = self._way(direction), self._way(direction.opposite)
        assert way.last is not None
        ack = back.end if back.last is not None else way.ack
        return Inject(direction, reset(way.last, seq=seq, ack=ack))


def _stale(last: Segment, segment: Segment) -> bool:
    """Was `segment` sent before `last`, which it passes after?"""
    if last.timestamps is None or segment.timestamps is None:
        return False
    return distance(last.timestamps[0], segment.timestamps[0]) < 0


class _RoundTrip:
    """The time from this place to one end and back: the shortest of the last few measured.

    One segment at a time is followed until the other direction acknowledges it, or echoes its
    timestamp where there is no payload to acknowledge.  Only one that is the first with its
    numbers will do: an answer to an earlier one may be under way.
    """

    def __init__(self) -> None:
        self._followed: tuple[Segment, float] | None = None
        self._samples: deque[float] = deque(maxlen=_KEPT_SAMPLES)
        self._end: int | None = None
        self._stamp: int | None = None

    @property
    def shortest_s(self) -> float | None:
        return min(self._samples, default=None)

    def left(self, segment: Segment, now_s: float) -> None:
        stamp = segment.timestamps[0] if segment.timestamps else None
        if self._followed is None and (
            _newer(self._end, segment.end) if segment.length else _newer(self._stamp, stamp)
        ):
            self._followed = (segment, now_s)
        self._end = later(self._end, segment.end)
        self._stamp = self._stamp if stamp is None else later(self._stamp, stamp)

    def answered(self, segment: Segment, now_s: float) -> None:
        if self._followed is not None and _answers(segment, self._followed[0]):
            self._samples.append(now_s - self._followed[1])
            self._followed = None


def _newer(newest: int | None, number: int | None) -> bool:
    return newest is not None and number is not None and distance(newest, number) > 0


def _answers(segment: Segment, followed: Segment) -> bool:
    if followed.length:
        return distance(followed.end, segment.ack) >= 0
    if followed.timestamps is None or segment.timestamps is None:
        return False
    return distance(followed.timestamps[0], segment.timestamps[1]) >= 0
