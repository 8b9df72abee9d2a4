"""Counts of durations: exact to a microsecond while small, to three digits when large.

It answers what a fidelity certificate asks of an engine's lag (median, percentiles, worst)
and crosses process borders as a dictionary of plain numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

_FINE = 10_000  # microseconds up to which every one has a bucket of its own


class Histogram:
    """How often each duration was seen; `counts` maps microseconds to occurrences.

    A hot loop may add to `counts` itself, with keys made by `bucket`.
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: defaultdict[int, int] = defaultdict(int, counts or {})

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> Histogram:
        """From `counts` as JSON gives them back, with texts for keys."""
        return cls({int(key): times for key, times in counts.items()})

    @staticmethod
    def bucket(microseconds: int) -> int:
        """The key that counts a duration: itself, or from 10 ms on its first three digits."""
        if microseconds < _FINE:
            return microseconds
        step: int = 10 ** (len(str(microseconds)) - 3)
        return microseconds - microseconds % step

    def add(self, duration_s: float, times: int = 1) -> None:
        """Count a duration in seconds; a negative one counts as 0."""
        key = self.bucket(max(0, int(duration_s * 1e6)))
        self.counts[key] += times

    def merge(self, other: Histogram) -> Histogram:
        """A new histogram of what both saw."""
        both = Histogram(self.counts)
        for key, times in other.counts.items():
            both.counts[key] += times
        return both

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float:
        """The duration in seconds that `share` (0 to 1) of all do not exceed; 0 when empty."""
        rank = max(1, math.ceil(share * self.total))
        seen = 0
        for key in sorted(self.counts):
            seen += self.counts[key]
            if seen >= rank:
                return key / 1e6
        return 0.0

    @property
    def p50(self) -> float:
        """Median in seconds."""
        return self.quantile(0.5)

    @property
    def p99(self) -> float:
        """99th percentile in seconds."""
        return self.quantile(0.99)

    @property
    def p999(self) -> float:
        """99.9th percentile in seconds."""
        return self.quantile(0.999)

    @property
    def maximum(self) -> float:
        """Longest in seconds."""
        return max(self.counts, default=0) / 1e6

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Histogram({self.total} durations, p50 {self.p50:.6f} s, "
            f"p99 {self.p99:.6f} s, p99.9 {self.p999:.6f} s, max {self.maximum:.6f} s)"
        )
