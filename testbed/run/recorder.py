"""The recorder: what one trial measured and what happened when, on disk while it runs.

Samples are kept in memory for about a second and then written as one more part of the trial's
series; a part appears under its name only when it is whole, so a killed trial leaves parts
that can be read.  At the trial's end the parts become one file.  Events are appended to the
bundle's events.jsonl as they come.

The one clock is CLOCK_MONOTONIC; times are seconds since the trial's epoch.  Where files lie is
`testbed.run.bundle`'s business.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import ExperimentError
from testbed.run.usecase import Trial

if TYPE_CHECKING:
    import pyarrow

FLUSH_S = 1.0
_FLUSH_ROWS = 20_000
_COLUMNS = ("variant", "repeat", "time_s", "source", "metric", "value", "unit")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(ExperimentError):
    """There is no room left for the records; the run cannot go on."""


def disk_error(error: OSError, path: Path) -> ExperimentError:
    """The error to raise when the records at `path` cannot be written."""
    if error.errno in _DISK_FULL:
        return DiskFullError(
            f"the disk is full: {path.parent}", remedy="free space, or use --results DIR elsewhere"
        )
    return ExperimentError(f"cannot write {path}: {error.strerror or error}")


def _ignore(_fraction: float, _text: str) -> None:
    return None


class Recorder:
    """Records of one trial in a bundle's folder.

    Every method that writes raises `DiskFullError`, or `ExperimentError` naming the file.
    """

    def __init__(
        self,
        folder: Path,
        trial: Trial,
        *,
        on_progress: Callable[[float, str], None] = _ignore,
    ) -> None:
        self.folder = folder
        self.trial = trial
        self.epoch = time.monotonic()
        self._on_progress = on_progress
        self._rows: list[tuple[float | None, str, str, float, str]] = []
        self._begun = False  # has the trial itself recorded a sample?
        self._parts: list[Path] = []
        self._flushed = time.monotonic()
        self._failure: asyncio.Future[None] | None = None
        self._deferred: list[Callable[[], Awaitable[None]]] = []
        for name in ("series", "logs", "pcap"):
            _make(folder / name)
        self._events = _open_events(folder / "events.jsonl")

    # -- time ------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the trial's epoch."""
        return time.monotonic() - self.epoch

    def start_clock(self) -> None:
        """Make now the trial's epoch: when its traffic begins, before the first sample.

        What was observed before has negative times from then on.
        """
        if self._begun:
            raise ExperimentError(
                f"trial {self.trial.label}: the clock was started after the first sample",
                remedy="call start_clock() before the traffic starts",
            )
        before, self.epoch = self.epoch, time.monotonic()
        shift = self.epoch - before
        self._rows = [
            (None if when is None else when - shift, source, metric, value, unit)
            for when, source, metric, value, unit in self._rows
        ]
        for part in self._parts:
            write_table(part, _earlier(part, shift))

    # -- what was measured -----------------------------------------------------------------------

    def sample(
        self, source: str, metric: str, value: float, unit: str, time_s: float | None = None
    ) -> None:
        """One value of `metric` at `source`, now or at `time_s` (s since the epoch)."""
        self._begun = True
        when = self.now() if time_s is None else time_s
        self._rows.append((when, source, metric, float(value), unit))
        self._flush_if_due()

    def samples(self, rows: Iterable[tuple[float, str, str, float, str]]) -> None:
        """Many values: (time_s, source, metric, value, unit)."""
        self._begun = True
        self._rows.extend((t, source, metric, float(v), u) for t, source, metric, v, u in rows)
        self._flush_if_due()

    def observed(self, rows: Iterable[tuple[float, str, str, float, str]]) -> None:
        """Many values sampled beside the trial, their times CLOCK_MONOTONIC's."""
        epoch = self.epoch
        self._rows.extend((t - epoch, source, metric, v, u) for t, source, metric, v, u in rows)
        self._flush_if_due()

    def result(self, metric: str, value: float, unit: str, source: str = "") -> None:
        """A value of the trial as a whole (it has no time)."""
        self._rows.append((None, source, metric, float(value), unit))
        self._flush_if_due()

    def event(self, kind: str, *, time_s: float | None = None, **data: Any) -> None:
        """Something that happened, now or at `time_s`; `data` must fit into JSON."""
        when = self.now() if time_s is None else time_s
        trial = {"variant": self.trial.variant, "repeat": self.trial.repeat}
        line = json.dumps({**trial, "time_s": round(when, 6), "kind": kind, **data}) + "\n"
        try:
            os.write(self._events, line.encode())
        except OSError as error:
            raise disk_error(error, self.folder / "events.jsonl") from error

    def progress(self, fraction: float, text: str = "") -> None:
        """How far the trial is (0 to 1) and what it does now, for the progress bar."""
        self._on_progress(min(max(fraction, 0.0), 1.0), text)

    def log_path(self, name: str) -> Path:
        """Where the trial's log called `name` goes."""
        return self.folder / "logs" / f"{self.trial.label}-{name}.log"

    def pcap_path(self, name: str) -> Path:
        """Where the trial's capture called `name` goes."""
        return self.folder / "pcap" / f"{self.trial.label}-{name}.pcap"

    # -- what ends a trial -----------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """End the trial with `error`, whatever `UseCase.run` waits for at the moment."""
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    def defer(self, clean_up: Callable[[], Awaitable[None]]) -> None:
        """Call `clean_up` when the trial ends, in whatever way (last deferred, first called)."""
        self._deferred.append(clean_up)

    async def supervise(self, work: Awaitable[None]) -> None:
        """Run a trial's `work` until it ends or `fail` is called; clean up, flush as it goes.

        Raises what the work raised, or the error given to `fail`.
        """
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        tasks = [asyncio.ensure_future(self._flush_for_ever()), asyncio.ensure_future(work)]
        failure = self._failure
        try:
            await asyncio.wait({*tasks, failure}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(tasks)
            await self._clean_up()
            self._failure = None
            failure.cancel()
            errors = [each.exception() for each in (failure, *tasks) if not each.cancelled()]
        # the first cause: a dead process makes the work fail too, but says less about why
        for error in errors:
            if error is not None:
                raise error

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._flush_if_due()

    async def _clean_up(self) -> None:
        while self._deferred:
            await self._deferred.pop()()

    # -- files -----------------------------------------------------------------------------------

    @property
    def series_path(self) -> Path:
        """The trial's series when it has ended."""
        return self.folder / "series" / f"{self.trial.label}.parquet"

    def flush(self) -> None:
        """Write what is in memory as one more part."""
        self._flushed = time.monotonic()
        if not self._rows:
            return
        part = self.series_path.with_suffix(f".part-{len(self._parts):05d}.parquet")
        write_table(part, self._table())
        self._parts.append(part)
        self._rows.clear()

    def close(self) -> None:
        """Make one file of the parts; the recorder takes nothing more."""
        try:
            self.flush()
            if self._parts:
                write_table(self.series_path, _read_all(self._parts))
            for part in self._parts:
                part.unlink()
        finally:
            self._parts.clear()
            os.close(self._events)

    def _flush_if_due(self) -> None:
        if len(self._rows) >= _FLUSH_ROWS or time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def _table(self) -> pyarrow.Table:
        import pyarrow

        count = len(self._rows)
        times, sources, metrics, values, unit_names = zip(*self._rows, strict=True)
        word = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        columns: Mapping[str, pyarrow.Array] = {
            "variant": pyarrow.array([self.trial.variant] * count, word),
            "repeat": pyarrow.array([self.trial.repeat] * count, pyarrow.int32()),
            "time_s": pyarrow.array(times, pyarrow.float64()),
            "source": pyarrow.array(sources, word),
            "metric": pyarrow.array(metrics, word),
            "value": pyarrow.array(values, pyarrow.float64()),
            "unit": pyarrow.array(unit_names, word),
        }
        return pyarrow.table({name: columns[name] for name in _COLUMNS})


def write_table(path: Path, table: pyarrow.Table) -> None:
    """Write a parquet file that is there whole or not at all."""
    from pyarrow import parquet

    unfinished = path.with_name(f".{path.name}.writing")
    try:
        parquet.write_table(table, unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def _read_all(parts: list[Path]) -> pyarrow.Table:
    import pyarrow
    from pyarrow import parquet

    tables = [parquet.read_table(part) for part in parts]
    return pyarrow.concat_tables(tables).unify_dictionaries().combine_chunks()


def _earlier(part: Path, shift: float) -> pyarrow.Table:
    """A part's table with its times `shift` seconds earlier."""
    import pyarrow.compute
    from pyarrow import parquet

    table = parquet.read_table(part)
    place = table.column_names.index("time_s")
    return table.set_column(place, "time_s", pyarrow.compute.subtract(table["time_s"], shift))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error


def _open_events(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise disk_error(error, path) from error


async def _cancel(tasks: Iterable[asyncio.Future[None]]) -> None:
    waiting = [task for task in tasks if not task.done()]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
