"""Trials of the use case run here, and records of trials that were never run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas

from testbed.report.results import Results
from testbed.run import Recorder, Trial
from testbed.run.trial import Conductor
from usecases.clickos_migration import ClickosMigration

Row = tuple[str, str, float]
"""Source, metric, value."""


def run_trial(
    folder: Path, variant: str, changes: Mapping[str, Any]
) -> dict[tuple[str, str], float]:
    """Run one trial of a variant, all in a sandbox already; its results by (metric, source)."""
    from pyarrow import parquet

    params = ClickosMigration.Parameters().changed(changes)
    record = Recorder(folder, Trial(variant=variant, repeat=0, seed=7))
    try:
        Conductor(ClickosMigration(), params, record, lambda **_message: None).conduct()
    finally:
        record.close()
    rows = parquet.read_table(record.series_path).to_pylist()
    return {(r["metric"], r["source"]): r["value"] for r in rows if r["time_s"] is None}


def results_of(variant: str, values: Mapping[tuple[str, str], float]) -> Results:
    """Those of one trial, for claims."""
    return Records(variant, [[(source, metric, v) for (metric, source), v in values.items()]])


class Records(Results):
    """Results of trials of one variant, each given as its rows; a bundle of its own for each.

    `parameters` has a list of values for what differs between bundles.
    """

    def __init__(
        self,
        variant: str,
        trials: Iterable[Iterable[Row]],
        *,
        samples: Iterable[tuple[float, str, str, float]] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(ClickosMigration(), ())
        self._variant = variant
        rows: list[tuple[Any, ...]] = [
            (place, variant, 0, None, source, metric, value, "")
            for place, trial in enumerate(trials)
            for source, metric, value in trial
        ]
        rows += [(0, variant, 0, *sample, "") for sample in samples]
        columns = ["bundle", "variant", "repeat", "time_s", "source", "metric", "value", "unit"]
        frame = pandas.DataFrame(rows, columns=columns)
        self.__dict__["table"] = frame.astype({"time_s": float, "value": float})
        self._parameters = ClickosMigration.Parameters().as_dict() | dict(parameters or {})

    @property
    def trials(self) -> pandas.DataFrame:
        count = self.table.bundle.max() + 1
        rows = [(place, self._variant, 0, 1, 1.0) for place in range(count)]
        return pandas.DataFrame(rows, columns=["bundle", "variant", "repeat", "seed", "seconds"])

    def parameter(self, key: str) -> Any:
        return self._parameters[key]

    def parameter_of(self, key: str) -> dict[int, Any]:
        value = self._parameters[key]
        places = range(len(self.trials))
        return {place: value[place] if isinstance(value, list) else value for place in places}

    def marks(self, *, variant: str | None = None) -> pandas.DataFrame:
        return pandas.DataFrame(
            [(0, self._variant, 0, 3.0, "redirected")],
            columns=["bundle", "variant", "repeat", "time_s", "mark"],
        )

    certified, why_not_certified, why_incomplete = True, "", ""
