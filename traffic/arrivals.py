"""When the bytes of one stream arrived: finer than goodput per 100 ms, and for one connection.

Reads that follow each other closely are one *burst*, so that the record stays short: what lies
between two bursts is a silence of at least `SILENCE_S`, exactly timed.
"""

from __future__ import annotations

SILENCE_S = 0.005
_LONGEST_S = 0.05  # of a burst: within one, bytes are taken as spread evenly

Burst = tuple[float, float, int]
"""First and last read (s, CLOCK_MONOTONIC) and the bytes of all reads."""


class Arrivals:
    """Collects the reads of one receiver."""

    def __init__(self) -> None:
        self._bursts: list[list[float]] = []

    def took(self, now: float, count: int) -> None:
        """`count` bytes were read at `now`."""
        last = self._bursts[-1] if self._bursts else None
        if last and now - last[1] < SILENCE_S and now - last[0] < _LONGEST_S:
            last[1], last[2] = now, last[2] + count
        else:
            self._bursts.append([now, now, count])

    @property
    def bursts(self) -> list[Burst]:
        """What has been collected, times to a tenth of a millisecond."""
        return [(round(a, 4), round(b, 4), int(count)) for a, b, count in self._bursts]
