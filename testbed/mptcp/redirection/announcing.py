"""How a client is told of an address, so that it hears: a part of `machine`.

A signed ADD_ADDR in a pure ACK that continues what passed last.  Later segments may overtake it
on the way through this program, and then the client drops it as old, without a word (PAWS); or a
link loses it, or its echo.  So it is repeated with fresh numbers until the echo passes.

Every other one goes without timestamps: the standard lets a receiver drop it (RFC 7323 3.2), but
Linux judges it by its sequence number alone, which is old less easily.
"""

from __future__ import annotations

from testbed.mptcp.options import AddAddr
from testbed.mptcp.redirection.messages import (
    Announcement,
    Command,
    Direction,
    Keys,
    Outcome,
    Sampled,
)
from testbed.mptcp.redirection.tracking import Tracking

_MOST_ATTEMPTS = 12
_FIRST_RETRY_S = 0.1  # while the round trip time is not known
_SHORTEST_RETRY_S, _LONGEST_RETRY_S, _BACK_OFF = 0.02, 1.0, 1.5


class Announcing:
    """The announcement of one address to one client; `deadline` is when to announce it again."""

    def __init__(self, keys: Keys, announcement: Announcement, tracking: Tracking) -> None:
        self.attempts = 0
        self.deadline = 0.0
        self._announcement, self._tracking = announcement, tracking
        self._option = announcement.option(keys)
        self._failures: list[str] = []

    @property
    def possible(self) -> bool:
        """Has a segment passed that announcements can continue?"""
        return self._tracking.ready(Direction.TO_CLIENT)

    @property
    def exhausted(self) -> bool:
        """Has it been tried often enough?"""
        return self.attempts >= _MOST_ATTEMPTS

    def announce(self, now_s: float) -> list[Command]:
        """Once more, with the numbers of now."""
        self.attempts += 1
        self.deadline = now_s + self._retry_s()
        stamped = self.attempts % 2 == 1
        where = Direction.TO_CLIENT
        return [self._tracking.acknowledgement(where, [self._option], stamped=stamped)]

    def echoed_by(self, event: Sampled) -> bool:
        """Does this segment of the client's echo the address?"""
        if event.direction is not Direction.TO_SERVER:
            return False
        if all(subtype != AddAddr.subtype for subtype, _ in event.segment.subtypes()):
            return False
        options = (each for each in event.segment.mptcp if isinstance(each, AddAddr))
        return any(self._announcement.echoed_by(option) for option in options)

    def failed(self, reason: str) -> None:
        """An announcement could not be sent."""
        self._failures.append(reason)

    def verdict(self) -> tuple[Outcome, str]:
        """What it means that no echo came."""
        if len(self._failures) >= self.attempts:
            return Outcome.FAILED, self._failures[-1]
        return Outcome.NO_ECHO, Outcome.NO_ECHO.value

    def _retry_s(self) -> float:
        round_trip_s = self._tracking.round_trip_s(Direction.TO_CLIENT)
        first_s = _FIRST_RETRY_S if round_trip_s is None else 2 * round_trip_s + _SHORTEST_RETRY_S
        return float(min(first_s * _BACK_OFF ** (self.attempts - 1), _LONGEST_RETRY_S))
