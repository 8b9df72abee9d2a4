"""Which samples become rows: those from which every sample can be told again.

Between two rows of a series its value at each sampling instant lies on the straight line between
them.  Where a value stays what it was nothing is written; when it changes, the instant before is
written first.  The first and the last sample are always there.  A counter of something that did
not exist an instant ago was 0 then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Row = tuple[float, str, str, float, str]
"""CLOCK_MONOTONIC time (s), source, metric, value, unit."""
Values = tuple[float | None, ...]
"""One value a metric; None where the kernel has none."""


class Metric(NamedTuple):
    """A quantity: its name, its SI unit, and whether it counts up from 0."""

    name: str
    unit: str
    counter: bool = False


class Changes:
    """All series of one source; `rows` is where they are written to."""

    __slots__ = ("_first", "_metrics", "_rows", "_written", "previous", "source", "values")

    def __init__(self, source: str, metrics: Sequence[Metric], rows: list[Row]) -> None:
        self.source = source
        self.values: Values = ()
        self.previous = 0.0
        self._first: Values = ()
        self._metrics = metrics
        self._rows = rows
        self._written = [0.0] * len(metrics)

    def begin(self, now: float, values: Values, *, born_after: float = 0.0) -> None:
        """The first sample; of something new, `born_after` is when it was not there yet."""
        for place, metric in enumerate(self._metrics):
            if born_after and metric.counter and values[place]:
                self._write(place, born_after, 0)
            self._write(place, now, values[place])
        self.values, self.previous = values, now
        self._first = (0,) * len(values) if born_after else values

    def update(self, now: float, values: Values) -> None:
        """Another sample."""
        before, previous, written = self.values, self.previous, self._written
        for place, value in enumerate(values):
            if value != before[place]:
                if written[place] != previous:
                    self._write(place, previous, before[place])
                self._write(place, now, value)
        self.values, self.previous = values, now

    def same(self, now: float) -> None:
        """Another sample, nothing changed."""
        self.previous = now

    def sample(self, now: float, values: Values) -> None:
        """The first sample or another one, changed or not."""
        if not self.values:
            self.begin(now, values)
        elif values == self.values:
            self.previous = now
        else:
            self.update(now, values)

    def end(self) -> None:
        """No further sample: write the last one where it is not written yet."""
        for place, value in enumerate(self.values):
            if self._written[place] != self.previous:
                self._write(place, self.previous, value)

    def grown(self) -> dict[str, float]:
        """By how much each counter grew from the first sample to the last."""
        found = {}
        for metric, last, first in zip(self._metrics, self.values, self._first, strict=True):
            if metric.counter and last is not None:
                found[metric.name] = last - (first or 0)
        return found

    def _write(self, place: int, when: float, value: float | None) -> None:
        self._written[place] = when
        if value is not None:
            metric = self._metrics[place]
            self._rows.append((when, self.source, metric.name, value, metric.unit))
