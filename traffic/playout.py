"""A video player's buffer: when it starts, when it stalls; no I/O, no clock of its own.

The player starts when `start_s` of video are buffered, plays in real time, stalls when the
buffer is empty, and goes on when `resume_s` are there again or the video's end is.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stall:
    """The picture stood still from `start_s` for `seconds`."""

    start_s: float
    seconds: float


@dataclass
class Playout:
    """The state of a player.  All times are those of the caller's clock (s)."""

    start_s: float = 4.0
    resume_s: float = 2.0
    playing: bool = False
    finished: bool = False
    buffered: float = 0.0
    began: float | None = None
    stalls: list[Stall] = field(default_factory=list)
    _now: float | None = None
    _since: float = 0.0
    _all_here: bool = False

    def advance(self, now: float) -> None:
        """Play until `now`."""
        before = now if self._now is None else self._now
        elapsed, self._now = max(0.0, now - before), max(now, before)
        if not self.playing:
            return
        self.buffered -= elapsed
        if self.buffered > 1e-9:
            return
        empty_at = now + min(0.0, self.buffered)
        self.buffered = 0.0
        self.playing = False
        if self._all_here:
            self.finished = True
        else:
            self._since = empty_at

    def segment(self, now: float, seconds: float, *, last: bool = False) -> None:
        """`seconds` of video have arrived; `last`: the video's end is among them."""
        self.advance(now)
        self.buffered += seconds
        self._all_here = self._all_here or last
        if not self.playing and self.buffered >= self._needed():
            self._play(now)

    def _needed(self) -> float:
        if self._all_here:
            return 0.0
        return self.start_s if self.began is None else self.resume_s

    def _play(self, now: float) -> None:
        self.playing = True
        if self.began is None:
            self.began = now
        else:
            self.stalls.append(Stall(self._since, now - self._since))

    @property
    def stalled(self) -> bool:
        """Does the picture stand still in the middle of the video?"""
        return self.began is not None and not self.playing and not self.finished

    def stalled_s(self, now: float) -> float:
        """Seconds of all stalls, with one that lasts."""
        lasting = now - self._since if self.stalled else 0.0
        return sum(stall.seconds for stall in self.stalls) + lasting

    def room_at(self, now: float, most: float) -> float:
        """When the buffer will have fallen below `most` seconds of video."""
        return now + max(0.0, self.buffered - most) if self.playing else now
