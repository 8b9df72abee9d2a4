"""What a receiver's record of arrivals says: bytes in a stretch of time, and silences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from traffic.arrivals import Burst


class Arrived:
    """When one connection's bytes arrived (bursts as in `traffic.arrivals`; monotonic times)."""

    def __init__(self, bursts: Sequence[Burst]) -> None:
        self._bursts = [(first, last, count) for first, last, count in bursts]

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(count for _first, _last, count in self._bursts)

    def within(self, start: float, end: float) -> float:
        """Bytes from `start` to `end`; a burst's are spread evenly over its length."""
        return sum(count * _share(first, last, start, end) for first, last, count in self._bursts)

    def goodput(self, start: float, end: float) -> float:
        """Bits a second from `start` to `end`."""
        return self.within(start, end) * 8 / (end - start)

    def silences(self, start: float, end: float) -> list[float]:
        """Lengths (s) of the silences between bursts that overlap the stretch of time."""
        return [
            later[0] - earlier[1]
            for earlier, later in pairwise(self._bursts)
            if later[0] > start and earlier[1] < end
        ]

    def longest_silence(self, start: float, end: float) -> float:
        """The longest of them; 0 where there is none."""
        return max(self.silences(start, end), default=0.0)


def _share(first: float, last: float, start: float, end: float) -> float:
    """The share of a burst that lies in a stretch of time."""
    if last == first:
        return 1.0 if start <= first < end else 0.0
    return max(0.0, min(last, end) - max(first, start)) / (last - first)
