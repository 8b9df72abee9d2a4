"""What a live stream is made of: its bitrates, and ffmpeg's command line that makes them.

The picture is ffmpeg's test source, with a clock and a frame counter in it.  Each segment begins
with a key picture and refers to nothing outside it (closed groups of pictures as long as a
segment), at the same times in all bitrates, so that a viewer may change at every segment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from testbed.errors import ParameterError

_RUNG = re.compile(r"(\d+)x(\d+):(\d+(?:\.\d+)?)([kM]?)$")
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6}
_PEAK = 2.0  # a stream's first second takes up to twice the rate
_OVERSHOOT = 1.1  # what the encoder takes more, with the heads of transport packets
_PICTURE_BITS = 2000  # padding and tables of each picture


@dataclass(frozen=True)
class Rung:
    """One bitrate: size in pixels (both even), and bit/s of the coded pictures."""

    width: int
    height: int
    rate: float

    @property
    def peak(self) -> int:
        """bit/s that a segment takes at most."""
        return round(self.rate * _PEAK)


@dataclass(frozen=True)
class Ladder:
    """A stream: its bitrates from low to high, pictures a second, and a segment's seconds.

    Raises `ParameterError` for what cannot be coded.
    """

    rungs: tuple[Rung, ...] = (
        Rung(160, 90, 80e3),
        Rung(320, 180, 250e3),
        Rung(480, 270, 600e3),
    )
    frame_rate: int = 12
    segment_s: int = 1

    def __post_init__(self) -> None:
        for lower, higher in zip(self.rungs, self.rungs[1:], strict=False):
            if lower.rate >= higher.rate:
                raise ParameterError("bitrates must ascend", remedy="name the lowest first")
        odd = [rung for rung in self.rungs if rung.width % 2 or rung.height % 2]
        if odd or not self.rungs:
            what = f"{odd[0].width}x{odd[0].height}" if odd else "no bitrate"
            raise ParameterError(f"{what} cannot be coded", remedy="both sizes must be even")

    @classmethod
    def parse(cls, text: str, frame_rate: int = 12, segment_s: int = 1) -> Ladder:
        """From words like "160x90:80k,480x270:600k"; raises `ParameterError`."""
        rungs = []
        for word in text.split(","):
            found = _RUNG.match(word.strip())
            if found is None or not float(found[3]):
                raise ParameterError(f"bitrate {word!r}", remedy="write it like 320x180:250k")
            rungs.append(Rung(int(found[1]), int(found[2]), float(found[3]) * _UNITS[found[4]]))
        return cls(tuple(rungs), frame_rate, segment_s)

    def average(self, rung: Rung) -> int:
        """bit/s that segments of a bitrate take, all in all."""
        return round(rung.rate * _OVERSHOOT + self.frame_rate * _PICTURE_BITS)

    def __str__(self) -> str:
        return ",".join(f"{r.width}x{r.height}:{r.rate / 1e3:g}k" for r in self.rungs)


def command_line(ladder: Ladder) -> list[str]:
    """ffmpeg, writing segments RUNG-NUMBER.ts here, in real time.

    It tells of each segment that is complete by a line on standard output: file, start, end (s).
    """
    top = ladder.rungs[-1]
    source = f"testsrc2=size={top.width}x{top.height}:rate={ladder.frame_rate}"
    words = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin"]
    words += ["-re", "-f", "lavfi", "-i", source, "-filter_complex", _scaled(ladder)]
    for number, rung in enumerate(ladder.rungs):
        words += ["-map", f"[v{number}]", *_codec(ladder, rung), *_segments(ladder, number)]
    return words


def _scaled(ladder: Ladder) -> str:
    count = len(ladder.rungs)
    split = "".join(f"[s{number}]" for number in range(count))
    parts = [f"[0:v]format=yuv420p,split={count}{split}"]
    for number, rung in enumerate(ladder.rungs):
        parts.append(f"[s{number}]scale={rung.width}:{rung.height}[v{number}]")
    return ";".join(parts)


def _codec(ladder: Ladder, rung: Rung) -> list[str]:
    pictures, rate = str(ladder.frame_rate * ladder.segment_s), str(round(rung.rate))
    return [
        *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-threads", "1"),
        *("-profile:v", "baseline", "-sc_threshold", "0"),
        *("-g", pictures, "-keyint_min", pictures),
        *("-b:v", rate, "-maxrate", rate, "-bufsize", rate),
    ]


def _segments(ladder: Ladder, number: int) -> list[str]:
    return [
        *("-f", "segment", "-segment_time", str(ladder.segment_s), "-segment_format", "mpegts"),
        # else the first picture's time would be 1.4 s
        *("-segment_format_options", "mpegts_copyts=1"),
        *("-segment_list", "pipe:1", "-segment_list_type", "csv", f"{number}-%d.ts"),
    ]
