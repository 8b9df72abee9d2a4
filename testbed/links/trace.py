"""Traces: how rate, delay and loss of a link went over time, read from files.

CSV, whose header says which columns and units there are; a row holds until the next one:

    time_s, rate_mbps, delay_ms, loss_percent
    0,      12.5,      40,       0.5
    0.1,    9,         42,       0.5

Mahimahi's packet-delivery traces (mahimahi.mit.edu; Netravali et al., USENIX ATC 2015): a line is
an integer, the millisecond of an opportunity to deliver one packet of 1500 bytes.  They become a
rate that is constant over windows, so that every window lets through what the trace does, but
not at the trace's very milliseconds.

Both are read strictly (an error names file and line), and begin again at their end when looped.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import ParameterError
from testbed.links.spec import FULL_FRAME

LEAST_RATE_BPS = 10_000.0
"""A rate below this, or 0, is played as this: a frame is never on the wire for minutes."""

WINDOW_S = 0.05
"""Windows over which a packet-delivery trace becomes a rate."""

_RATES = {"bps": 1.0, "kbps": 1e3, "mbps": 1e6, "gbps": 1e9}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_COLUMNS: dict[str, dict[str, float]] = {
    "time": _TIMES,
    "rate": _RATES,
    "delay": _TIMES,
    "loss": {"percent": 1.0, "ratio": 100.0},
}
_HEADER = re.compile(r"([a-z]+)[\s_]*\(?\s*([a-z/%]+)\s*\)?")
_SPELLINGS = {"bit/s": "bps", "kb/s": "kbps", "mb/s": "mbps", "gb/s": "gbps", "%": "percent"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """From `at_s` on: rate in bit/s, delay in s, loss in percent; None leaves it as it is."""

    at_s: float
    rate_bps: float | None = None
    delay_s: float | None = None
    loss: float | None = None

    def fields(self, scale: float = 1.0) -> dict[str, Any]:
        """What a `LinkSpec` is to be changed by, the rate times `scale`."""
        found: dict[str, Any] = {}
        if self.rate_bps is not None:
            found["bw"] = max(self.rate_bps * scale, LEAST_RATE_BPS) / 1e6
        if self.delay_s is not None:
            found["delay"] = f"{self.delay_s * 1e3:.6f}ms"
        if self.loss is not None:
            found["loss"] = self.loss
        return found


@dataclass(frozen=True)
class Trace:
    """Rows in order of time; the last one holds until `length_s`, where the trace ends."""

    name: str
    rows: tuple[Row, ...]
    length_s: float

    def __str__(self) -> str:
        return self.name

    def changes(
        self, *, loop: bool = False, scale: float = 1.0
    ) -> Iterator[tuple[float, dict[str, Any]]]:
        """When (s since the replay began) to change a link by what; endless with `loop`."""
        start = 0.0
        while True:
            before: Mapping[str, Any] = {}
            for row in self.rows:
                fields = row.fields(scale)
                if fields != before:
                    yield start + row.at_s, fields
                before = fields
            if not loop:
                return
            start += self.length_s

    def bits(self, until_s: float | None = None) -> float:
        """What the trace's rate lets through from its beginning until `until_s` (looped)."""
        end = self.length_s if until_s is None else until_s
        rounds, rest = divmod(end, self.length_s)
        return rounds * self._bits(self.length_s) + self._bits(rest)

    def _bits(self, until_s: float) -> float:
        ends = [row.at_s for row in self.rows[1:]] + [self.length_s]
        return sum(
            (row.rate_bps or 0.0) * max(0.0, min(end, until_s) - row.at_s)
            for row, end in zip(self.rows, ends, strict=True)
        )


def load(path: Path | str, *, window_s: float = WINDOW_S) -> Trace:
    """The trace in a file: CSV where its first line has a letter, else mahimahi's.

    Raises `ParameterError` naming file and line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            f"cannot read trace {path}: {getattr(error, 'strerror', error)}",
            remedy="give a CSV file or a packet-delivery trace",
        ) from error
    kept = [(k, line.strip()) for k, line in enumerate(lines, 1)]
    kept = [(k, line) for k, line in kept if line and not line.startswith("#")]
    if not kept:
        raise ParameterError(f"{path}: there is nothing in it", remedy="see docs/dynamics.md")
    read = _read_csv if re.search("[A-Za-z]", kept[0][1]) else _read_deliveries
    return read(path, kept, window_s)


# -- CSV -----------------------------------------------------------------------------------------


def _read_csv(path: Path, lines: list[tuple[int, str]], _window_s: float) -> Trace:
    (number, header), *rest = lines
    columns = [_column(f"{path}:{number}", name) for name in header.split(",")]
    names = [name for name, _unit in columns]
    if "time" not in names or len(names) < 2 or len(set(names)) < len(names):
        raise ParameterError(
            f"{path}:{number}: the columns are {', '.join(names)}",
            remedy="give time_s and, each once, some of rate_mbps, delay_ms, loss_percent",
        )
    rows = [_row(f"{path}:{number}", columns, line) for number, line in rest]
    if not rows:
        raise ParameterError(f"{path}: there are no rows", remedy="give one for each change")
    for (number, _line), row, before in zip(rest[1:], rows[1:], rows, strict=False):
        if row.at_s <= before.at_s:
            raise ParameterError(
                f"{path}:{number}: time {row.at_s:g} s is not after {before.at_s:g} s",
                remedy="put the rows in order of time",
            )
    last = rows[-1].at_s - rows[-2].at_s if len(rows) > 1 else 1.0
    return Trace(path.stem, tuple(rows), rows[-1].at_s + last)


def _column(where: str, header: str) -> tuple[str, float]:
    """A column's name and what its values are multiplied by."""
    match = _HEADER.fullmatch(header.strip().lower())
    name, unit = match.groups() if match else (header.strip(), "")
    factor = _COLUMNS.get(name, {}).get(_SPELLINGS.get(unit, unit))
    if factor is None:
        raise ParameterError(
            f"{where}: column {header.strip()!r} is unknown",
            remedy="columns are time_s, rate_mbps, delay_ms, loss_percent (or other units)",
        )
    return name, factor


def _row(where: str, columns: list[tuple[str, float]], line: str) -> Row:
    (cells,) = csv.reader([line])
    if len(cells) != len(columns):
        raise ParameterError(
            f"{where}: there are {len(cells)} values", remedy=f"give {len(columns)}"
        )
    values = {}
    for (name, factor), cell in zip(columns, cells, strict=True):
        values[name] = _number(where, name, cell) * factor
    if values.get("loss", 0) > 100:
        raise ParameterError(f"{where}: loss is {values['loss']:g}%", remedy="give 100 at most")
    return Row(
        at_s=values["time"],
        rate_bps=values.get("rate"),
        delay_s=values.get("delay"),
        loss=values.get("loss"),
    )


def _number(where: str, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise ParameterError(
            f"{where}: {name} is {cell.strip()!r}", remedy="give a number, 0 or more"
        )
    return value


# -- packet deliveries ---------------------------------------------------------------------------


def _read_deliveries(path: Path, lines: list[tuple[int, str]], window_s: float) -> Trace:
    times: list[int] = []
    for number, line in lines:
        if not (line.isascii() and line.isdigit()):
            raise ParameterError(
                f"{path}:{number}: {line!r} is no millisecond", remedy="give one integer a line"
            )
        if times and int(line) < times[-1]:
            raise ParameterError(
                f"{path}:{number}: {line} ms is before {times[-1]} ms",
                remedy="put the lines in order of time",
            )
        times.append(int(line))
    if times[-1] == 0:
        raise ParameterError(f"{path}: the trace has no length", remedy="end it after 0 ms")
    return deliveries(path.stem, times, window_s=window_s)


def deliveries(name: str, times_ms: Iterable[int], *, window_s: float = WINDOW_S) -> Trace:
    """A trace from the milliseconds at which one packet of 1500 bytes may be delivered.

    What lies on the border of two windows belongs to the first; the last one ends with the trace.
    """
    window_ms = max(1, round(window_s * 1e3))
    listed = list(times_ms)
    end_ms = listed[-1]
    counts = Counter(max(0, time - 1) // window_ms for time in listed)
    rows = []
    for k in range((end_ms + window_ms - 1) // window_ms):
        width_ms = min(window_ms, end_ms - k * window_ms)
        bits = counts[k] * FULL_FRAME * 8
        rows.append(Row(at_s=k * window_ms / 1e3, rate_bps=bits / (width_ms / 1e3)))
    return Trace(name, tuple(rows), end_ms / 1e3)
