"""Playlists of HTTP Live Streaming (RFC 8216): text to what can be fetched; no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin

from testbed.errors import ExperimentError

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')


class PlaylistError(ExperimentError):
    """A text that is no playlist of the kind that was asked for."""


@dataclass(frozen=True)
class Variant:
    """One bitrate of a stream (bit/s: the average, if it is told, else the peak), its playlist."""

    rate: float
    path: str


@dataclass(frozen=True)
class Segment:
    """A piece of the stream: its number, how long it plays, where it is."""

    number: int
    seconds: float
    path: str


@dataclass(frozen=True)
class MediaPlaylist:
    """What of one variant can be had at a moment; never empty."""

    target_s: float
    segments: tuple[Segment, ...]
    ended: bool = False

    @property
    def first(self) -> int:
        """Number of the oldest segment."""
        return self.segments[0].number

    @property
    def last(self) -> int:
        """Number of the newest segment."""
        return self.segments[-1].number

    def segment(self, number: int) -> Segment:
        """That segment, which must be listed."""
        return self.segments[number - self.first]

    def seconds_from(self, number: int) -> float:
        """How much is listed from that segment on."""
        return sum(each.seconds for each in self.segments[max(0, number - self.first) :])

    def behind_end(self, seconds: float) -> int:
        """Number of the newest segment from which on `seconds` are listed, else the oldest's."""
        for each in reversed(self.segments):
            if self.seconds_from(each.number) >= seconds - 1e-6:
                return each.number
        return self.first


def parse_master(text: str, path: str) -> tuple[Variant, ...]:
    """The variants of the master playlist at `path`, the lowest bitrate first."""
    variants = []
    lines = _lines(text)
    for line, following in zip(lines, [*lines[1:], "#"], strict=True):
        if line.startswith("#EXT-X-STREAM-INF:"):
            attributes = dict(_ATTRIBUTE.findall(line))
            rate = attributes.get("AVERAGE-BANDWIDTH") or attributes.get("BANDWIDTH", "")
            if not rate.isdecimal() or following.startswith("#"):
                raise PlaylistError(f"{path}: a variant without bandwidth or address")
            variants.append(Variant(float(rate), urljoin(path, following)))
    if not variants:
        raise PlaylistError(f"{path}: no variants")
    return tuple(sorted(variants, key=lambda variant: variant.rate))


def parse_media(text: str, path: str) -> MediaPlaylist:
    """The media playlist at `path`."""
    target, number, seconds = 0.0, 0, 0.0
    segments: list[Segment] = []
    lines = _lines(text)
    for line in lines:
        tag, _colon, value = line.partition(":")
        if tag == "#EXT-X-TARGETDURATION":
            target = _number(value, path)
        elif tag == "#EXT-X-MEDIA-SEQUENCE":
            number = int(_number(value, path))
        elif tag == "#EXTINF":
            seconds = _number(value.partition(",")[0], path)
        elif not line.startswith("#"):
            segments.append(Segment(number + len(segments), seconds, urljoin(path, line)))
    if not segments or target <= 0:
        raise PlaylistError(f"{path}: no segments")
    return MediaPlaylist(target, tuple(segments), "#EXT-X-ENDLIST" in lines)


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines[:1] != ["#EXTM3U"]:
        raise PlaylistError(f"{text[:40]!r} is no playlist")
    return lines


def _number(text: str, path: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise PlaylistError(f"{path}: {text[:20]!r} is no number of a playlist")
    return value
