"""What a stream sends, and when: in bulk, or in on/off bursts with heavy-tailed periods.

A source is told as fields of the stream's request, so that a server can be asked to be one.
On/off sources with Pareto periods are the textbook model of self-similar traffic: W. Willinger,
M. Taqqu, R. Sherman, D. Wilson, "Self-Similarity Through High-Variability", IEEE/ACM
Transactions on Networking 5(1), 1997, where 1 < alpha < 2 is what was measured.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from traffic.deframer import ProtocolError
from traffic.emit import clock
from traffic.pattern import FRAME, MARKS, NONE, sizes
from traffic.program import Life

_PACE_S = 0.01  # a burst is sent in pieces of this length
_LONGEST = 100  # a Pareto period is at most this many times its mean


class Source(NamedTuple):
    """A sender's programme: `bytes` or `duration_s` end it, `rate_bps` > 0 makes it bursty.

    Bursty: periods of `rate_bps` alternate with silence, their lengths Pareto-distributed with
    means `on_s` and `off_s` and shape `alpha` (above 1; the mean is infinite below).
    """

    bytes: int = 0
    duration_s: float = 0.0
    rate_bps: float = 0.0
    on_s: float = 1.0
    off_s: float = 1.0
    alpha: float = 1.5
    seed: int = 1
    mark: str = NONE

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Source:
        """Read a request's fields; raises `ProtocolError`."""
        try:
            source = cls(**fields)
            numbers = (source.bytes, source.duration_s, source.rate_bps, source.on_s, source.off_s)
            fine = min(numbers) >= 0 and source.alpha > 1 and source.mark in MARKS
        except TypeError:
            fine = False
        if not fine:
            raise ProtocolError(f"a stream cannot be sent as {fields!r}")
        return source

    @property
    def silent(self) -> bool:
        """Is there nothing to send?"""
        return not self.bytes and not self.duration_s

    def sizes(self, life: Life) -> Iterator[int]:
        """Sizes of the payload frames, each yielded when it is due; may raise `Stopped`."""
        if self.rate_bps:
            yield from self._bursts(life)
        elif self.bytes:
            yield from sizes(self.bytes)
        else:
            end = clock() + self.duration_s
            while clock() < end:
                yield FRAME

    def periods(self) -> Iterator[tuple[float, float]]:
        """Lengths (s) of the on and the off periods, the same for the same seed."""
        numbers = random.Random(self.seed)
        while True:
            yield self._period(numbers, self.on_s), self._period(numbers, self.off_s)

    def _period(self, numbers: random.Random, mean: float) -> float:
        scale = mean * (self.alpha - 1) / self.alpha
        return min(scale * numbers.paretovariate(self.alpha), _LONGEST * mean)

    def _bursts(self, life: Life) -> Iterator[int]:
        start = at = clock()
        left = self.bytes or float("inf")
        end = start + self.duration_s if self.duration_s else float("inf")
        for on, off in self.periods():
            for size in _paced(life, at, min(at + on, end), self.rate_bps):
                yield from sizes(int(min(size, left)))
                left -= size
                if left <= 0:
                    return
            at += on + off
            if at >= end:
                return
            life.sleep(at - clock())


def _paced(life: Life, start: float, end: float, rate_bps: float) -> Iterator[int]:
    """Bytes due at `rate_bps` from `start` to `end`, a piece at a time."""
    sent = 0
    at = start
    while at < end:
        at = min(at + _PACE_S, end)
        due = int((at - start) * rate_bps / 8)
        life.sleep(at - clock())
        if due > sent:
            yield due - sent
            sent = due
