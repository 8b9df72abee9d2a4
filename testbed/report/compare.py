"""Two bundles of a use case side by side: what was changed, and what it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from testbed.report.results import Results
from testbed.run.statistics import Estimate, estimate


@dataclass(frozen=True, kw_only=True)
class Row:
    """A metric of one variant in both bundles; None where a bundle lacks it."""

    variant: str
    source: str
    metric: str
    unit: str
    first: Estimate | None
    second: Estimate | None

    @property
    def change(self) -> float | None:
        """Second over first, minus one."""
        if self.first is None or self.second is None or not self.first.mean:
            return None
        return self.second.mean / self.first.mean - 1

    @property
    def clear(self) -> bool:
        """Do the 95% intervals not overlap?  (Never with a single trial, which has none.)"""
        one, two = self.first, self.second
        if one is None or two is None or one.count < 2 or two.count < 2:
            return False
        return one.low > two.high or two.low > one.high

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        sides = {
            name: None if each is None else [each.mean, each.low, each.high, each.count]
            for name, each in (("first", self.first), ("second", self.second))
        }
        what = {key: getattr(self, key) for key in ("variant", "source", "metric", "unit")}
        return {**what, **sides, "change": self.change, "clear": self.clear}


def compare(results: Results) -> list[Row]:
    """Every metric of whole trials in `results`, which holds two bundles."""
    table = results.table
    whole = table[table.time_s.isna()]
    order = {name: place for place, name in enumerate(results.use_case.variants)}
    rows = []
    for key, group in whole.groupby(["metric", "source", "variant", "unit"], sort=False):
        metric, source, variant, unit = map(str, key)
        sides = [list(group[group.bundle == place].value) for place in (0, 1)]
        first, second = (estimate(values) if values else None for values in sides)
        rows.append(Row(variant=variant, source=source, metric=metric, unit=unit,
                        first=first, second=second))  # fmt: skip
    return sorted(rows, key=lambda row: (row.metric, row.source, order.get(row.variant, 0)))


def changed_parameters(results: Results) -> dict[str, tuple[Any, Any]]:
    """Parameters in which the two bundles differ."""
    first, second = (bundle.run["parameters"] for bundle in results.bundles)
    keys = dict.fromkeys([*first, *second])
    return {
        key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)
    }
