"""What an observation recorded, read back from bundles: series, rates, which were busy, its cost.

A series is exact at every sampling instant and straight between (see `changes`), so that the mean
rate over any interval is what a counter grew from its beginning to its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from testbed.run.usecase import MissingData

if TYPE_CHECKING:
    import numpy
    import pandas
    from numpy.typing import NDArray

    from testbed.report.results import Results

    Numbers = NDArray[numpy.float64]

_BINS, _FEWEST_BINS = 120, 15  # points that a curve of rates has
_NOTABLE = 0.01  # of what the busiest carried


@dataclass(frozen=True)
class Series:
    """One metric of one source: times (s) and values."""

    times: Numbers
    values: Numbers

    @property
    def growth(self) -> float:
        """The last value less the first."""
        return float(self.values[-1] - self.values[0])

    def at(self, times: Numbers) -> Numbers:
        """Values at `times`; before the first sample and after the last what these were."""
        import numpy

        return numpy.interp(times, self.times, self.values)


class Observed:
    """The observation of one trial: the first repeat of `variant` in the first bundle."""

    def __init__(self, results: Results, variant: str) -> None:
        self.results, self.variant = results, variant
        trials = results.trials[results.trials.variant == variant]
        first = trials.iloc[0]
        self._place = int(first["bundle"]), int(first["repeat"])

    @cached_property
    def _table(self) -> pandas.DataFrame:
        table, (bundle, repeat) = self.results.table, self._place
        chosen = (table.variant == self.variant) & (table.bundle == bundle)
        found = table[chosen & (table["repeat"] == repeat) & table.time_s.notna()]
        return found.sort_values("time_s", kind="stable")

    def all(self, metric: str) -> dict[str, Series]:
        """The series of `metric` by source."""
        found = self._table[self._table.metric == metric]
        return {
            str(source): Series(group.time_s.to_numpy(), group.value.to_numpy())
            for source, group in found.groupby("source", sort=False)
        }

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What was told of this trial, in order."""
        bundle, repeat = self._place
        trial = (self.variant, repeat)
        return [
            event
            for event in self.results.bundles[bundle].events()
            if event["kind"] == kind and (event["variant"], event["repeat"]) == trial
        ]

    @cached_property
    def about(self) -> dict[str, Any]:
        """The interval and the links; raises `MissingData` where nothing was observed."""
        found = self.events("observation")
        if not found:
            raise MissingData(f"variant {self.variant} was not observed")
        return found[0]

    @cached_property
    def end_s(self) -> float:
        """The time of the last sample."""
        return float(self._table.time_s.max())

    def edges(self, least_s: float) -> Numbers:
        """Where the bins of curves of rates begin and end: from 0 on, whole intervals wide."""
        import numpy

        interval: float = self.about["interval_s"]
        wanted = max(self.end_s / _BINS, min(least_s, self.end_s / _FEWEST_BINS))
        width = interval * max(1, round(wanted / interval))
        return numpy.arange(0, self.end_s + width, width)[: int(self.end_s // width) + 1]

    def rate(self, counter: Series, *, least_s: float = 0.0) -> tuple[Numbers, Numbers]:
        """Middles of the bins (s) and the mean growth per second in each; nan where it was not.

        Bins are at least `least_s` wide where that leaves a curve.
        """
        import numpy

        edges = self.edges(least_s)
        there = (edges[1:] > counter.times[0]) & (edges[:-1] < counter.times[-1])
        rates = numpy.diff(counter.at(edges)) / numpy.diff(edges)
        return (edges[1:] + edges[:-1]) / 2, numpy.where(there, rates, numpy.nan)


def busiest(growth: dict[str, float], most: int) -> tuple[list[str], int]:
    """The sources that grew notably, the busiest first, `most` of them, and how many are left."""
    largest = max(growth.values(), default=0.0)
    names = [name for name, value in growth.items() if value > 0 and value >= _NOTABLE * largest]
    names.sort(key=lambda name: -growth[name])
    return names[:most], max(0, len(names) - most)


def is_observed(results: Results) -> bool:
    """Was anything of these bundles sampled?"""
    return any((each.run.get("observe") or {}).get("interval_s") for each in results.bundles)


def cost_in_words(results: Results) -> str:
    """What observing cost, over all trials: "1.8% of one processor, ..."; "" where none was."""
    if not is_observed(results):
        return ""
    try:
        share, samples, late, missed = (
            results.frame(f"observation.{name}").value
            for name in ("processor_share", "samples", "late", "missed")
        )
    except MissingData:
        return ""
    total = int(samples.sum() + missed.sum())
    text = f"{share.mean():.1%} of one processor; of {total} sampling instants"
    return f"{text} {int(late.sum())} were late and {int(missed.sum())} missed"
