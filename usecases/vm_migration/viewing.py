"""What the viewer saw, from the player's reports: where the picture stood still, what was missed.

A report tells the position in the programme (seconds of media time, the same for every player of
one stream) and when it was told.  While a machine is stopped it reports nothing: the picture
stands still then too, and that counts.  A player that is started anew begins another *session*.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SHOWN = ("playing", "stalled")  # states in which a position is on the screen
JUMP_S = (
    0.5  # a position that has gained more than this on the player's clock has skipped something
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """One report: `time_s` is when it arrived, by the trial's clock; `clock_s` when the player made
    it, by the machine's own, which stands still with the machine.

    `opened` counts the connections the player has opened, `bytes` what it has read from them,
    `frames` the pictures it has decoded; `session` counts players.
    """

    time_s: float
    clock_s: float
    state: str
    position_s: float
    buffer_s: float = 0.0
    latency_s: float = 0.0
    bitrate_bps: float = 0.0
    frames: int = 0
    bytes: int = 0
    opened: int = 1
    display: str = ""
    session: int = 0

    @classmethod
    def of(cls, line: Mapping[str, Any], time_s: float, session: int) -> Report:
        """From a line that the player wrote."""
        return cls(
            time_s=time_s,
            clock_s=line["time"],
            session=session,
            state=line["state"],
            position_s=line["position_s"] or 0.0,
            buffer_s=line["buffer_s"],
            latency_s=line["latency_s"] or 0.0,
            bitrate_bps=line["bitrate"] or 0.0,
            frames=line["frames"],
            bytes=line["bytes"],
            opened=line["connections"],
            display=line["display"] or "",
        )

    @property
    def shown(self) -> bool:
        """Is there a picture on the screen?"""
        return self.state in SHOWN


class Viewing:
    """All that was seen, in order of time."""

    def __init__(self, reports: Iterable[Report]) -> None:
        self.reports = list(reports)
        self.shown = [report for report in self.reports if report.shown]
        self._times = [report.time_s for report in self.shown]

    def within(self, start: float, end: float) -> list[Report]:
        """Reports with a picture from the last before `start` to the first after `end`."""
        first = max(0, bisect.bisect_right(self._times, start) - 1)
        return self.shown[first : bisect.bisect_left(self._times, end) + 1]

    def stall_s(self, start: float, end: float) -> float:
        """How long the picture stood still (s)."""
        return max(0.0, sum(still for still, _missed in _steps(self.within(start, end))))

    def missed_s(self, start: float, end: float) -> float:
        """How much of the programme was never shown (s of media time)."""
        return sum(missed for _still, missed in _steps(self.within(start, end)))

    def freeze_s(self, start: float, end: float) -> float:
        """The longest that the picture stood still without a break (s)."""
        longest, since = 0.0, None
        for earlier, later in pairwise(self.within(start, end)):
            if since is None or _moved(since, later):
                longest = max(longest, _still(earlier, later))
                since = later
            else:
                longest = max(longest, later.time_s - since.time_s)
        return longest

    def backwards_s(self, start: float, end: float) -> float:
        """How far the position went back at most (s); 0 where it never did."""
        pairs = pairwise(self.within(start, end))
        return max((max(0.0, a.position_s - b.position_s) for a, b in pairs), default=0.0)

    def rate(self, what: str, start: float, end: float) -> float:
        """A counter's ("frames", "bytes") increase a second, within one session."""
        reports = self.within(start, end)
        spent = reports[-1].time_s - reports[0].time_s if reports else 0.0
        if spent <= 0 or reports[0].session != reports[-1].session:
            return 0.0
        return float(getattr(reports[-1], what) - getattr(reports[0], what)) / spent

    def mean(self, what: str, start: float, end: float) -> float:
        """Mean of something reported ("bitrate_bps", "latency_s"), report by report."""
        values = [float(getattr(report, what)) for report in self.within(start, end)]
        return sum(values) / len(values) if values else 0.0

    def survived(self, stopped: float, end: float) -> bool:
        """Has the connection of before the stop brought new bytes since, and is it the only one?"""
        before, after = self._at(stopped), self._at(end)
        same = (before.session, before.opened) == (after.session, after.opened)
        return same and after.bytes > before.bytes

    def playing(self, time_s: float) -> bool:
        """Does the picture move?"""
        return self._at(time_s).state == "playing"

    def _at(self, time_s: float) -> Report:
        """The last report before a moment, with a picture or without; the first if none is."""
        place = bisect.bisect_right(self.reports, time_s, key=lambda report: report.time_s)
        return self.reports[max(0, place - 1)]


def _steps(reports: list[Report]) -> Iterator[tuple[float, float]]:
    """For each two reports: how long the picture stood still, how much was skipped (s).

    The first is negative where a report came late; the sum over all is what counts.
    """
    for earlier, later in pairwise(reports):
        passed = later.time_s - earlier.time_s
        played = later.position_s - earlier.position_s
        if later.session != earlier.session:
            yield passed, max(0.0, played)
        elif (skipped := played - (later.clock_s - earlier.clock_s)) > JUMP_S:
            yield passed - played + skipped, skipped
        else:
            yield passed - played, 0.0


def _moved(since: Report, later: Report) -> bool:
    return later.session != since.session or later.position_s != since.position_s


def _still(earlier: Report, later: Report) -> float:
    """How long it stood still between two reports of which the second shows another picture."""
    passed = later.time_s - earlier.time_s
    if later.session != earlier.session:
        return passed
    return passed - min(passed, max(0.0, later.position_s - earlier.position_s))
