"""Sets of byte ranges: which bytes of a stream, each counted once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """A set of whole numbers, kept as sorted, disjoint, half-open ranges [start, end)."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Put start, start + 1, ..., end - 1 into the set."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)  # ranges that touch the new one become one with it
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def overlap(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of [start, end) that are in the set, in order."""
        for index in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                return
            low, high = max(start, self._starts[index]), min(end, self._ends[index])
            if low < high:
                yield low, high

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        """How many numbers are in the set (not how many ranges)."""
        return sum(end - start for start, end in self)

    def __bool__(self) -> bool:
        return bool(self._starts)
