"""What the bundles of one use case hold, as pandas tables and estimates, for claims and figures.

Only trials that came to their end count.  Every accessor raises `MissingData` when there is
nothing to return: a claim is then not judged and a figure not drawn, and both say why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from testbed.errors import UserError
from testbed.report.style import Look, look
from testbed.run.bundle import COMPLETE, Bundle
from testbed.run.statistics import Estimate, estimate
from testbed.run.usecase import Claim, Figure, MissingData, UseCase

if TYPE_CHECKING:
    import pandas

_TRIAL = ["bundle", "variant", "repeat"]


class Results:
    """The records of one or more bundles of `use_case`.

    With several bundles (other parameters, other machines) every table has a column `bundle`,
    the bundle's place in `bundles`, and `parameter_of` tells them apart.
    """

    def __init__(self, use_case: UseCase[Any], bundles: Sequence[Bundle]) -> None:
        other = next((each for each in bundles if each.use_case != use_case.name), None)
        if other is not None:
            raise UserError(
                f"{other.path} is of use case {other.use_case}, not {use_case.name}",
                remedy="report bundles of one use case at a time",
            )
        self.use_case = use_case
        self.bundles = tuple(bundles)

    # -- what was tried --------------------------------------------------------------------------

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """Variants that have at least one complete trial, in the use case's order."""
        done = set(self.trials.variant)
        return tuple(name for name in self.use_case.variants if name in done)

    def about(self, item: Claim | Figure) -> bool:
        """Whether a claim or a figure is about a variant that was tried, successfully or not."""
        tried = {name for bundle in self.bundles for name in bundle.run["variants"]}
        return not item.variants or not tried.isdisjoint(item.variants)

    @cached_property
    def trials(self) -> pandas.DataFrame:
        """Complete trials: bundle, variant, repeat, seed, seconds."""
        import pandas

        rows = [
            (place, each["variant"], each["repeat"], each["seed"], each["seconds"])
            for place, bundle in enumerate(self.bundles)
            for each in bundle.run["trials"]
            if each["status"] == COMPLETE
        ]
        return pandas.DataFrame(rows, columns=[*_TRIAL, "seed", "seconds"])

    def parameter(self, key: str) -> Any:
        """The value of parameter `key`, which must be the same in all bundles."""
        values = list(dict.fromkeys(self.parameter_of(key).values()))
        if len(values) != 1:
            raise MissingData(f"the bundles differ in {key}: {', '.join(map(str, values))}")
        return values[0]

    def parameter_of(self, key: str) -> dict[int, Any]:
        """Bundle (its place) -> value of parameter `key`."""
        name = key.replace("-", "_")
        lacking = [each.path for each in self.bundles if name not in each.run["parameters"]]
        if lacking:
            raise MissingData(f"{lacking[0].name} has no parameter {key}")
        return {place: each.run["parameters"][name] for place, each in enumerate(self.bundles)}

    # -- what was measured -----------------------------------------------------------------------

    @cached_property
    def table(self) -> pandas.DataFrame:
        """All records: bundle, variant, repeat, time_s (none for results), source, metric, ..."""
        import pandas
        from pyarrow import concat_tables, parquet

        frames = []
        for place, bundle in enumerate(self.bundles):
            tables = [parquet.read_table(path) for path in bundle.series()]
            if tables:
                frame = concat_tables(tables).unify_dictionaries().to_pandas()
                frame.insert(0, "bundle", place)
                frames.append(frame)
        if not frames:
            raise MissingData("there are no records")
        words = ("variant", "source", "metric", "unit")
        table = pandas.concat(frames).astype(dict.fromkeys(words, "object"))
        return table.merge(self.trials[_TRIAL], on=_TRIAL)

    def samples(
        self, metric: str, *, variant: str | None = None, source: str | None = None
    ) -> pandas.DataFrame:
        """Values of `metric` over time, in order: bundle, variant, repeat, time_s, source, ..."""
        found = self._select(metric, variant, source)
        found = found[found.time_s.notna()]
        _require(found, metric, variant, source, "samples")
        return found.sort_values([*_TRIAL, "time_s"], kind="stable")

    def frame(
        self, metric: str, *, variant: str | None = None, source: str | None = None
    ) -> pandas.DataFrame:
        """Values of `metric` of whole trials (`Recorder.result`), one row each."""
        found = self._select(metric, variant, source)
        found = found[found.time_s.isna()]
        _require(found, metric, variant, source, "results")
        return found

    def values(
        self, metric: str, *, variant: str | None = None, source: str | None = None
    ) -> pandas.Series[Any]:
        """`frame`'s values, indexed by bundle, variant and repeat."""
        values: pandas.Series[Any] = self.frame(metric, variant=variant, source=source).set_index(
            _TRIAL
        )["value"]
        return values

    def mean(
        self, metric: str, *, variant: str | None = None, source: str | None = None
    ) -> Estimate:
        """Mean of a trial's `metric` over repeats, with its 95% confidence interval."""
        return estimate(list(self.values(metric, variant=variant, source=source)))

    def ratio(
        self, metric: str, *, variant: str, baseline: str, source: str | None = None
    ) -> Estimate:
        """`variant` over `baseline`, repeat by repeat (they share seeds), as an estimate."""
        above = self.values(metric, variant=variant, source=source).droplevel("variant")
        below = self.values(metric, variant=baseline, source=source).droplevel("variant")
        pairs = (above / below).dropna()
        if pairs.empty:
            raise MissingData(f"no repeat has {metric!r} of both {variant} and {baseline}")
        return estimate(list(pairs))

    def unit(self, metric: str) -> str:
        """The unit of `metric`."""
        return str(self._select(metric, None, None).unit.iloc[0])

    def events(self, kind: str, *, variant: str | None = None) -> pandas.DataFrame:
        """Events of a kind: bundle, variant, repeat, time_s, and what was recorded with them."""
        found = self._events(lambda event: event["kind"] == kind, variant)
        if found.empty:
            raise MissingData(f"no event {kind!r}" + (f" of variant {variant}" if variant else ""))
        return found

    def marks(self, *, variant: str | None = None) -> pandas.DataFrame:
        """Events that have a `mark`, the text for figures, in order; empty where none has."""
        found = self._events(lambda event: bool(event.get("mark")), variant)
        return found.sort_values("time_s", kind="stable")

    def _events(
        self, wanted: Callable[[Mapping[str, Any]], bool], variant: str | None
    ) -> pandas.DataFrame:
        import pandas

        rows = [
            {"bundle": place, **event}
            for place, bundle in enumerate(self.bundles)
            for event in bundle.events()
            if wanted(event) and variant in (None, event["variant"])
        ]
        found = pandas.DataFrame(rows, columns=None if rows else [*_TRIAL, "time_s", "kind"])
        return found.merge(self.trials[_TRIAL], on=_TRIAL)

    def _select(self, metric: str, variant: str | None, source: str | None) -> pandas.DataFrame:
        table = self.table
        chosen = table.metric == metric
        if variant is not None:
            chosen &= table.variant == variant
        if source is not None:
            chosen &= table.source == source
        found = table[chosen]
        _require(found, metric, variant, source, "values")
        return found

    # -- how it is shown -------------------------------------------------------------------------

    def look(self, variant: str) -> Look:
        """Colour, line and marker of a variant, the same in every figure."""
        return look(list(self.use_case.variants).index(variant))

    @cached_property
    def certificates(self) -> list[Mapping[str, Any]]:
        """The bundles' certificates."""
        return [bundle.certificate() for bundle in self.bundles]

    @property
    def certified(self) -> bool:
        """Are all bundles certified?"""
        return not self.why_not_certified

    @property
    def why_not_certified(self) -> str:
        """Why not; "" when they are."""
        return next((str(each["why"]) for each in self.certificates if each["why"]), "")

    @property
    def why_incomplete(self) -> str:
        """Why a bundle is not complete; "" when all are."""
        return next((each.why_incomplete for each in self.bundles if each.why_incomplete), "")


def _require(
    found: pandas.DataFrame, metric: str, variant: str | None, source: str | None, what: str
) -> None:
    if found.empty:
        where = f" of variant {variant}" if variant else ""
        where += f" from {source}" if source else ""
        raise MissingData(f"no complete trial{where} has {what} of {metric!r}")
