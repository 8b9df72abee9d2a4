"""One viewer's session: what to fetch next, what is buffered, where the picture is; no I/O.

The caller asks `wanted` for the next path to request, one at a time, and hands over what came
(`arrived`); it decodes what `frames` says is due.  Times are the caller's clock (s); media time
is that of the stream's own time stamps.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from testbed.errors import ExperimentError
from traffic.live.player.adaptation import BufferBased
from traffic.live.player.frames import Frames
from traffic.live.player.mpegts import access_units
from traffic.live.player.playlist import (
    MediaPlaylist,
    Segment,
    Variant,
    parse_master,
    parse_media,
)
from traffic.playout import Playout

_ROUNDING_S = 1e-3  # durations in playlists are rounded
State = Literal["starting", "playing", "stalled", "ended"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a viewer watches.  All are seconds; `position_s` is media time to begin at, if it is
    still served, rather than `behind_s` before the live edge.
    """

    behind_s: float = 6.0
    start_s: float = 2.0
    resume_s: float = 1.0
    most_s: float = 30.0
    position_s: float | None = None


class UnexpectedAnswer(ExperimentError):
    """The server answered something else than what was asked for."""


@dataclass(frozen=True)
class _Ask:
    path: str
    variant: int | None = None  # of a playlist or a segment
    segment: Segment | None = None


@dataclass(frozen=True)
class _Known:
    """A variant's playlist, when it came, and when to look again (RFC 8216 6.3.4)."""

    playlist: MediaPlaylist
    at_s: float
    look_again_s: float


@dataclass(frozen=True)
class _Span:
    """A segment that came: where it begins, in seconds of playout and in media time."""

    played_s: float
    media_s: float
    seconds: float


class Session:
    """A viewer of the stream whose master playlist is at `path`."""

    def __init__(self, path: str, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.frames = Frames()
        self.missed_s = 0.0
        """Of the stream, left out because it was no longer served."""
        self.segments = 0
        self.throughput: float | None = None
        """bit/s of the last segment, from asking to its last byte."""
        self.bitrate: float | None = None
        """bit/s of the variant that came last, by the master playlist."""
        self._path = path
        self._variants: tuple[Variant, ...] = ()
        self._known: dict[int, _Known] = {}
        self._adaptation: BufferBased | None = None
        self._playout = Playout(self.settings.start_s, self.settings.resume_s)
        self._spans: deque[_Span] = deque()
        self._fetched_s = 0.0
        self._next: int | None = None
        self._choice: int | None = None  # variant for the next segment
        self._seek = self.settings.position_s
        self._sought = False
        self._edge_ahead_s = -math.inf  # of the clock; at first nothing is known
        self._asked: _Ask | None = None
        self._asked_at = 0.0
        self._wake_s = 0.0

    # -- fetching --------------------------------------------------------------------------------

    def wanted(self, now: float) -> str | None:
        """The path to ask for now; None: nothing before `wake_s` (or before an answer)."""
        if self._asked is None:
            self._asked = self._choose(now)
            self._asked_at = now
            return self._asked.path if self._asked else None
        return None

    @property
    def wake_s(self) -> float:
        """When to call `wanted` again, if nothing else happens."""
        return self._wake_s

    def lost(self) -> None:
        """No answer will come to what was asked for: it will be wanted again."""
        self._asked = None

    def arrived(self, now: float, status: int, body: bytes) -> None:
        """The answer to what was wanted; raises `UnexpectedAnswer` and the parsers' errors."""
        asked, self._asked = self._asked, None
        if asked is None:
            raise UnexpectedAnswer("an answer to nothing")
        if status == 404 and asked.segment is not None:
            self._known.clear()  # it has just gone from the window: look what there is now
        elif status != 200:
            raise UnexpectedAnswer(f"{asked.path}: status {status}")
        elif asked.variant is None:
            self._take_master(parse_master(_text(body), asked.path))
        elif asked.segment is None:
            self._take_playlist(now, asked.variant, parse_media(_text(body), asked.path))
        else:
            self.throughput = len(body) * 8 / max(1e-6, now - self._asked_at)
            self._take_segment(now, asked.variant, asked.segment, body)

    def _choose(self, now: float) -> _Ask | None:
        if self._adaptation is None:
            return _Ask(self._path)
        if self._choice is None:
            self._choice = self._adaptation.choose(
                self.buffer_s(now),
                segment_s=self._spans[-1].seconds if self._spans else 1.0,
                throughput=math.inf if self.throughput is None else self.throughput,
            )
        known = self._known.get(self._choice)
        if known is None:
            return self._playlist_of(self._choice)
        number = self._number(known.playlist)
        if number is None or number > known.playlist.last:
            return self._more_of(known, now)
        segment = known.playlist.segment(number)
        if (at := self._playout.room_at(now, self.settings.most_s - segment.seconds)) > now:
            self._wake_s = at
            return None
        return _Ask(segment.path, self._choice, segment)

    def _playlist_of(self, variant: int) -> _Ask:
        return _Ask(self._variants[variant].path, variant)

    def _more_of(self, known: _Known, now: float) -> _Ask | None:
        """Look into the playlist again, when it is time to."""
        self._wake_s = math.inf if known.playlist.ended else known.look_again_s
        if now < self._wake_s or self._choice is None:
            return None
        return self._playlist_of(self._choice)

    def _number(self, playlist: MediaPlaylist) -> int | None:
        """The segment to fetch next, which the playlist may not have yet.

        None while the stream is younger than the viewer wants to be behind it.
        """
        if self._next is None:
            if self._seek is None:
                young = playlist.first == 0 and not playlist.ended
                if young and playlist.seconds_from(0) < self.settings.behind_s - _ROUNDING_S:
                    return None
                self._next = playlist.behind_end(self.settings.behind_s)
            else:  # where it would be if numbers counted from 0; its time stamps will tell
                guess = int(self._seek / playlist.target_s)
                self._next = min(max(guess, playlist.first), playlist.last)
        self._next = max(self._next, playlist.first)
        return self._next

    def _take_master(self, variants: tuple[Variant, ...]) -> None:
        self._variants = variants
        most = self.settings.behind_s  # that the buffer comes to: the live edge is no further
        self._adaptation = BufferBased(
            [variant.rate for variant in variants],
            reservoir_s=most / 4,
            cushion_s=most / 2,
        )

    def _take_playlist(self, now: float, variant: int, playlist: MediaPlaylist) -> None:
        before = self._known.get(variant)
        changed = before is None or before.playlist.last != playlist.last
        wait = playlist.target_s if changed else playlist.target_s / 2
        self._known[variant] = _Known(playlist, now, now + wait)
        self._note_edge(self._known[variant])

    def _take_segment(self, now: float, variant: int, segment: Segment, body: bytes) -> None:
        units = access_units(body)
        if not units:
            raise UnexpectedAnswer(f"{segment.path}: no pictures")
        known = self._known[variant]
        start = units[0].time_s
        if self._sought_elsewhere(known.playlist, segment, start):
            return
        self._count_gap(start)
        for unit in units:
            self.frames.push(self._fetched_s + unit.time_s - start, unit)
        self._spans.append(_Span(self._fetched_s, start, segment.seconds))
        self._fetched_s += segment.seconds
        self.segments += 1
        self._next = segment.number + 1
        self._choice = None
        self.bitrate = self._variants[variant].rate
        ended = known.playlist.ended and segment.number == known.playlist.last
        self._playout.segment(now, segment.seconds, last=ended)
        self._note_edge(known)

    def _sought_elsewhere(self, playlist: MediaPlaylist, segment: Segment, start: float) -> bool:
        """Does the position to begin at lie in another segment that is served?  Looked at once."""
        if self._seek is None or self._sought:
            return False
        self._sought = True
        wanted = segment.number + math.floor((self._seek - start) / segment.seconds + 1e-6)
        self._next = min(max(wanted, playlist.first), playlist.last)
        return self._next != segment.number

    def _count_gap(self, start: float) -> None:
        """Note what lies between the end of what is there and the start of what follows it."""
        end = self._seek if self._media_end is None else self._media_end
        if end is not None and start - end > _ROUNDING_S:
            self.missed_s += start - end

    def _note_edge(self, known: _Known) -> None:
        """Learn where the live edge is from where a playlist ends."""
        if self._media_end is None or self._next is None:
            return
        end = self._media_end + known.playlist.seconds_from(self._next)
        self._edge_ahead_s = max(self._edge_ahead_s, end - known.at_s)

    # -- watching --------------------------------------------------------------------------------

    @property
    def _media_end(self) -> float | None:
        """Media time up to which segments have come."""
        return self._spans[-1].media_s + self._spans[-1].seconds if self._spans else None

    def played_s(self, now: float) -> float:
        """Seconds of playout so far: the scale on which `frames` are due."""
        self._playout.advance(now)
        return self._fetched_s - self._playout.buffered

    def position_s(self, now: float) -> float | None:
        """Media time of the picture that is shown; None before there is one."""
        played = self.played_s(now)
        while len(self._spans) > 1 and self._spans[1].played_s <= played:
            self._spans.popleft()
        if not self._spans:
            return None
        return self._spans[0].media_s + played - self._spans[0].played_s

    def live_edge_s(self, now: float) -> float | None:
        """Media time up to which the stream is served by now, as far as it is known."""
        return now + self._edge_ahead_s if math.isfinite(self._edge_ahead_s) else None

    def buffer_s(self, now: float) -> float:
        """Seconds that can be played without another segment."""
        self._playout.advance(now)
        return self._playout.buffered

    def state(self, now: float) -> State:
        """What the viewer sees."""
        self._playout.advance(now)
        if self._playout.finished:
            return "ended"
        if self._playout.playing:
            return "playing"
        return "starting" if self._playout.began is None else "stalled"

    def stalls(self, now: float) -> tuple[int, float]:
        """How many stalls there were, one that lasts included, and their seconds."""
        self._playout.advance(now)
        return len(self._playout.stalls) + self._playout.stalled, self._playout.stalled_s(now)

    def next_frame_at(self, now: float) -> float:
        """When the next picture is due (infinity while it stands still)."""
        due = self.frames.next_s
        if due is None or not self._playout.playing:
            return math.inf
        return now + max(0.0, due - self.played_s(now))


def _text(body: bytes) -> str:
    return body.decode(errors="replace")  # what is no playlist is said by who reads it
