"""A live stream of made-up pictures, and a viewer of it, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from traffic.live.ladder import Ladder, Rung
from traffic.live.player.session import Session, Settings
from traffic.live.stream import MASTER, Stream
from traffic.web.http import request

KEY = b"\0\0\0\1\x67param\0\0\0\1\x68param\0\0\0\1\x65"
OTHER = b"\0\0\0\1\x41"
LADDER = Ladder((Rung(160, 90, 100e3), Rung(320, 180, 400e3), Rung(640, 360, 1600e3)), 4, 1)
_STEP_S = 0.05


def transport_stream(units: Iterable[tuple[float, bytes]], pid: int = 0x100) -> bytes:
    """A segment with those access units (time in s, bytes), as ISO/IEC 13818-1 has it."""
    pat = bytes([0, 0xB0, 13, 0, 1, 0xC1, 0, 0, 0, 1, 0xF0, 0x00, 0, 0, 0, 0])
    audio = bytes([0x0F, 0xE1, 0x01, 0xF0, 0])
    video = bytes([0x1B, 0xE0 | pid >> 8, pid & 255, 0xF0, 0])
    body = bytes([0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 0]) + audio + video + bytes(4)
    pmt = bytes([2, 0xB0, len(body)]) + body
    packets = [_packet(0, b"\0" + pat, 0, start=True), _packet(0x1000, b"\0" + pmt, 0, start=True)]
    counter = 0
    for time_s, data in units:
        pes = _pes(round(time_s * 90_000), data)
        for at in range(0, len(pes), 184):
            packets.append(_packet(pid, pes[at : at + 184], counter, start=at == 0))
            counter += 1
    return b"".join(packets)


def _packet(pid: int, payload: bytes, counter: int, *, start: bool) -> bytes:
    stuffing = 184 - len(payload)
    head = [0x47, (0x40 if start else 0) | pid >> 8, pid & 255, 0x10 | counter & 15]
    if not stuffing:
        return bytes(head) + payload
    head[3] |= 0x20
    field = bytes([stuffing - 1]) + (b"\0" + b"\xff" * (stuffing - 2) if stuffing > 1 else b"")
    return bytes(head) + field + payload


def _pes(stamp: int, data: bytes) -> bytes:
    parts = (stamp >> 29 & 14 | 0x21, stamp >> 22 & 255, stamp >> 14 & 254 | 1,
             stamp >> 7 & 255, stamp << 1 & 254 | 1)  # fmt: skip
    return b"\0\0\1\xe0\0\0\x80\x80\x05" + bytes(parts) + data


def segment(number: int, rung: int) -> bytes:
    """A second of the stream, of about the size that its bitrate says."""
    count = LADDER.frame_rate
    size = round(LADDER.rungs[rung].rate / 8 / count)
    heads = [KEY] + [OTHER] * (count - 1)
    return transport_stream(
        (number + index / count, head + b"\x5a" * size) for index, head in enumerate(heads)
    )


@dataclass(frozen=True)
class Seen:
    """What a viewer had at one moment of the real time."""

    time_s: float
    position_s: float | None
    buffer_s: float
    state: str


class Playbook:
    """A stream that began at 0, `age_s` old now, and a viewer over a link of `rate` (bit/s).

    `now` is real time.  The viewer's clock is behind it by what it was paused for.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        age_s: float = 20,
        window_s: float = 60,
        rate: float = 10e6,
    ) -> None:
        self.stream = Stream(LADDER, window_s)
        self.now, self.paused_s, self.rate = 0.0, 0.0, rate
        self._number = 0
        self._left: float | None = None  # bits of the answer that is on its way
        self._answer = b""
        self._status = 0
        self.asked: list[str] = []
        self.bitrates: list[float | None] = []
        self.seen: list[Seen] = []
        self._publish(age_s)
        self.now = age_s
        self.session = Session(MASTER, settings)

    @property
    def clock(self) -> float:
        """The viewer's."""
        return self.now - self.paused_s

    def run(self, seconds: float, *, rate: float | None = None, paused: bool = False) -> None:
        """Let time pass, over a link of that rate (0: an outage), or with the viewer paused."""
        for _ in range(round(seconds / _STEP_S)):
            self.now += _STEP_S
            self._publish(self.now)
            if paused:
                self.paused_s += _STEP_S
                continue
            self._carry((self.rate if rate is None else rate) * _STEP_S)
            self._look()

    def _publish(self, until_s: float) -> None:
        while self._number + 1 <= until_s + 1e-9:
            for rung in range(len(LADDER.rungs)):
                data = segment(self._number, rung)
                self.stream.add(rung, self._number, self._number, self._number + 1, data)
            self._number += 1

    def _carry(self, bits: float) -> None:
        while True:
            if self._left is None and not self._ask():
                return
            assert self._left is not None
            self._left, bits = self._left - bits, bits - self._left
            if self._left > 0:
                return
            self._left = None
            self.session.arrived(self.clock, self._status, self._answer)

    def _ask(self) -> bool:
        path = self.session.wanted(self.clock)
        if path is None:
            return False
        self.asked.append(path)
        answer = self.stream.answer(request("GET", path, "x"))
        self._status, self._answer = answer.status, answer.body
        self._left = len(answer.body) * 8.0
        return True

    def _look(self) -> None:
        session, clock = self.session, self.clock
        while session.frames.take(session.played_s(clock)):
            pass
        self.bitrates.append(session.bitrate)
        self.seen.append(
            Seen(self.now, session.position_s(clock), session.buffer_s(clock), session.state(clock))
        )
